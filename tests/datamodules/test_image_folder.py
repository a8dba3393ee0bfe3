import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import ImageFolderDataModule
from tests.conftest import Fails, Run

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
    images = torch.cat([split.images for split in (data.train_set, data.val_set, data.test_set)])
    assert len(images.flatten(1).unique(dim=0)) == 90
    assert ready(tree).test_set.images.equal(data.test_set.images)
    assert not ready(tree, split_seed=1).test_set.images.equal(data.test_set.images)
    red = data.train_set.images[:, 0, 0, 0]
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
    assert set(data.test_set.images[:, 1, 0, 0].tolist()) == {5 * index for index in range(15, 20)}


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
        (["--data.val_fraction=0.01"], ["class ant has too few images", "val split"]),
        (["--data.layout=csv"], ["holds 90 images, but not as"]),
    ],
)
def test_wrong_trees_end_in_one_line(tree: Path, fails: Fails, flags: list[str], words: list[str]) -> None:
    own = [f"--data.root={tree}", "--data.image_size=8", f"--data.cache_dir={tree.parent / 'cache'}"]
    line = fails("fit", *NETWORKS, "--data=ImageFolderDataModule", *own, *flags)
    for word in words:
        assert word in line


def test_a_last_batch_of_one_image_is_left_out_of_training(tree: Path) -> None:
    data = ready(tree)
    data.batch_size = len(data.train_set) - 1  # over one image batch norm has no variance
    assert [len(images) for images, *_ in data.train_dataloader()] == [data.batch_size]
    data.batch_size = 1
    assert len(data.train_dataloader()) == len(data.train_set)
    data.batch_size = len(data.val_set)
    assert sum(len(images) for images, *_ in data.val_dataloader()) == len(data.val_set)
