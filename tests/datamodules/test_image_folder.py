import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import ImageFolderDataModule
from preimage.__main__ import main
from preimage.files import read_metrics
from tests.conftest import ROOT, Fails, Run

NETWORKS = ["--model=Classifier", "--model.encoder=torch.nn.Flatten", "--model.head=MLPHead", "--model.num_classes=3"]
NETWORKS += ["--model.head.in_features=192", "--model.head.num_classes=3", "--trainer.enable_model_summary=false"]


def make_tree(folder: Path, size: int = 8) -> Path:
    """Three classes of 40, 30 and 20 images; the red channel tells the class and the green one the image."""
    for label, (name, count) in enumerate({"bee": 40, "ant": 30, "cat": 20}.items()):
        (folder / "tree" / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((size, size, 3), (label * 100, index * 5, 0), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "tree" / name / f"{index}.png")
    return folder / "tree"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path)


def ready(tree: Path, **kwargs: object) -> ImageFolderDataModule:
    data = ImageFolderDataModule(str(tree), image_size=8, cache_dir=str(tree.parent / "cache"), **kwargs)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup("fit")
    return data


def test_splits_are_stratified_seeded_and_do_not_overlap(tree: Path) -> None:
    data = ready(tree)
    assert data.class_names == ["ant", "bee", "cat"]
    counts = [Counter(split.labels.tolist()) for split in (data.train_set, data.val_set, data.test_set)]
    assert counts == [{0: 21, 1: 28, 2: 14}, {0: 3, 1: 4, 2: 2}, {0: 6, 1: 8, 2: 4}]
    images = torch.cat([split.images[:] for split in (data.train_set, data.val_set, data.test_set)])
    assert len(images.flatten(1).unique(dim=0)) == 90
    assert ready(tree).test_set.images[:].equal(data.test_set.images[:])
    assert not ready(tree, split_seed=1).test_set.images[:].equal(data.test_set.images[:])
    red = data.train_set.images[:][:, 0, 0, 0]
    assert red.equal(torch.tensor([100, 0, 200], dtype=torch.uint8)[data.train_set.labels])  # images and labels agree


def test_splits_of_the_tree_are_kept_and_the_missing_one_is_drawn_from_train(tree: Path) -> None:
    for name in ("ant", "bee", "cat"):
        for split, wanted in (("train", range(15)), ("test", range(15, 20))):
            (tree / split / name).mkdir(parents=True)
            for index in wanted:
                (tree / name / f"{index}.png").rename(tree / split / name / f"{index}.png")
        for left in (tree / name).iterdir():
            left.unlink()
        (tree / name).rmdir()
    data = ready(tree, val_fraction=0.2)
    assert [len(split.images) for split in (data.train_set, data.val_set, data.test_set)] == [36, 9, 15]
    assert set(data.test_set.images[:][:, 1, 0, 0].tolist()) == {5 * index for index in range(15, 20)}


def test_bad_images_are_listed_in_the_run(tree: Path, run: Run) -> None:
    (tree / "cat/3.png").write_bytes(b"broken")
    flags = [f"--data.root={tree}", "--data.image_size=8", f"--data.cache_dir={tree.parent / 'cache'}"]
    flags += ["--data=ImageFolderDataModule", "--data.on_bad_image=skip", "--trainer.max_epochs=1", "--name=bad"]
    run_dir = run("fit", *NETWORKS, flags[3], *flags[:3], *flags[4:]) / "bad/version_0"
    assert list(json.loads((run_dir / "bad_images.json").read_text())) == ["cat/3.png"]
    assert json.loads((run_dir / "classes.json").read_text()) == ["ant", "bee", "cat"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data.root=none"], ["no images at none", "train|val|test"]),
        (["--data.val_fraction=0.9"], ["val_fraction", "0.9"]),
        (["--data.val_fraction=0.005"], ["too few images (90) for data.val_fraction=0.005", "at least 0.02"]),
        (["--data.layout=csv"], ["holds 90 images, but not as", "it has ant/, bee/, cat/"]),
        (["--data.layout=flat"], ["Classifier needs labels, and the data has none"]),
        (["--data.layout=folders", "--data.table=a.csv"], ["data.layout=folders reads no table"]),
        (["--data.label_column=kind"], ["has no table of labels"]),
    ],
)
def test_wrong_trees_end_in_one_line(tree: Path, fails: Fails, flags: list[str], words: list[str]) -> None:
    own = [f"--data.root={tree}", "--data.image_size=8", f"--data.cache_dir={tree.parent / 'cache'}"]
    line = fails("fit", *NETWORKS, "--data=ImageFolderDataModule", *own, *flags)
    for word in words:
        assert word in line


def bare(tmp_path: Path, *names: str, content: bytes = b"") -> Path:
    """A tree of small images, or of other files that are called so."""
    generator = np.random.default_rng(0)
    for name in names:
        path = tmp_path / "bare" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content:
            path.write_bytes(content)
        else:
            Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return tmp_path / "bare"


def test_a_flat_folder_trains_what_needs_no_more(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = bare(tmp_path, *(f"{index}.png" for index in range(24)))
    sizes = [f"--{part}.image_size=32" for part in ("data", "model.encoder", "model.decoder")]
    sizes += ["--model.encoder.width=4", "--model.decoder.width=4"]
    config = ["--config", str(ROOT / "configs/images/vae.yaml"), "--data.augmentations=null", "--trainer.max_epochs=1"]
    config += [
        "--trainer.enable_model_summary=false",
        "--curves=null",
        f"--data.cache_dir={tmp_path / 'cache'}",
        f"--data.root={root}",
    ]
    pictures = ["ReconstructionGrid", "--trainer.callbacks.captions=true", "LatentProjection", "KNNProbe"]
    added = [flag if flag.startswith("--") else f"--trainer.callbacks+={flag}" for flag in pictures]
    run_dir = run("fit", *config, *sizes, *added, "--test_after_fit") / "vae/version_0"
    assert [line for line in caplog.messages if "label" in line] == [
        "24 images without labels",
        "bare: no labels, images: 17 train, 2 val, 5 test",
        "KNNProbe is left out: the data has no labels",
    ]
    assert {path.parent.name for path in run_dir.glob("images/*/test.png")} >= {"latents", "reconstructions"}
    assert json.loads((run_dir / "classes.json").read_text()) == []
    assert not any("knn" in key for row in read_metrics(run_dir / "metrics.csv") for key in row)
    flags = ["--ckpt_path", run_dir / "checkpoints/best.ckpt", "--data.val_fraction=0", "--data.test_fraction=1"]
    run("predict", "--config", run_dir / "config.yaml", *flags)
    with np.load(run_dir / "predictions.npz") as written:
        assert sorted(written["name"]) == sorted(f"{index}.png" for index in range(24))
        assert set(written["label"]) == {-1}
    main(["evaluate", "--ckpt_path", str(run_dir), "--images", "2"])
    assert "nothing is read out of its codes, since the data has no labels" in capsys.readouterr().out
    found = json.loads((run_dir / "evaluation.json").read_text())
    assert found["reading"] is None
    assert found["reconstruction"]["mse"] > 0


def test_a_few_images_of_a_class_are_enough_for_who_asks(
    tmp_path: Path, run: Run, fails: Fails, recwarn: pytest.WarningsRecorder
) -> None:
    root = bare(tmp_path, *(f"{name}/{index}.png" for name in ("a", "b", "c") for index in range(3)))
    flags = ["--data=ImageFolderDataModule", f"--data.root={root}", "--data.image_size=8", "--trainer.max_epochs=1"]
    flags += [f"--data.cache_dir={tmp_path / 'cache'}", "--curves=null"]
    run_dir = run("fit", *NETWORKS, *flags, "--test_after_fit") / "Classifier/version_0"
    warned = [str(warning.message).split(":")[0] for warning in recwarn if "has no image of" in str(warning.message)]
    assert warned == [
        "the val split has no image of 2 of 3 classes, as a, b",
        "the test split has no image of 1 of 3 classes, as c",
    ]
    (last,) = [row for row in read_metrics(run_dir / "metrics.csv") if "test/accuracy" in row]
    assert "test/accuracy_b" in last
    assert "test/accuracy_c" not in last  # there is no image of it
    run("fit", *NETWORKS, *flags, "--data.val_fraction=0.34", "--data.test_fraction=0.33", "--name=even")
    for path in root.glob("*/[12].png"):
        path.unlink()
    line = fails("fit", *NETWORKS, *flags)
    assert "too few images (3) for data.val_fraction=0.1: set 0 to do without such a split, or at least 0.34" in line
    run("fit", *NETWORKS, *flags, "--data.val_fraction=0", "--data.test_fraction=0", "--name=all")


def test_images_that_cannot_be_read_at_all_are_an_error(tmp_path: Path, fails: Fails) -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"
    root = bare(tmp_path, "a/1.png", "b/2.png", "c/3.png", *(f"c/{index}.png" for index in range(4, 9)), content=script)
    flags = ["--data=ImageFolderDataModule", f"--data.root={root}", "--data.image_size=8"]
    line = fails("fit", *NETWORKS, *flags, f"--data.cache_dir={tmp_path / 'cache'}", "--data.on_bad_image=skip")
    assert "no image can be read, as a/1.png (its content is no image)" in line


def test_the_order_of_classes_of_a_trained_model_is_kept(tree: Path, run: Run, fails: Fails) -> None:
    flags = [f"--data.root={tree}", "--data.image_size=8", f"--data.cache_dir={tree.parent / 'cache'}"]
    run_dir = run("fit", *NETWORKS, "--data=ImageFolderDataModule", *flags, "--trainer.max_epochs=1", "--name=o")
    classes = run_dir / "o/version_0/classes.json"
    classes.write_text(json.dumps(["bee", "ant", "cat"]))
    checkpoint = run_dir / "o/version_0/checkpoints/last.ckpt"
    line = fails("test", "--config", run_dir / "o/version_0/config.yaml", "--ckpt_path", checkpoint)
    assert "class 0 is bee in" in line
    assert "and ant in the data" in line


def test_a_last_batch_of_one_image_is_left_out_of_training(tree: Path) -> None:
    data = ready(tree)
    data.batch_size = len(data.train_set) - 1  # over one image batch norm has no variance
    assert [len(images) for images, *_ in data.train_dataloader()] == [data.batch_size]
    data.batch_size = 1
    assert len(data.train_dataloader()) == len(data.train_set)
    data.batch_size = len(data.val_set)
    assert sum(len(images) for images, *_ in data.val_dataloader()) == len(data.val_set)
