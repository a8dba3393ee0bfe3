import io
import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import TinyImageNetDataModule
from datamodules.in_memory import InMemoryImages
from tests.conftest import Fails, Run
from tests.datamodules.test_image_folder import NETWORKS

WORDS = {
    "n01443537": "goldfish, Carassius auratus",
    "n01629819": "European fire salamander, Salamandra salamandra",
    "n01641577": "bullfrog, Rana catesbeiana",
    "n01644900": "tailed frog, bell toad",
    "n01698640": "American alligator",
}
NAMES = [f"{words.split(',')[0]} ({wnid})" for wnid, words in WORDS.items()]
SMALL = {"image_size": 8, "num_classes": 3, "test_per_class": 4, "val_fraction": 0.25}
FLAGS = [f"--data.{key}={value}" for key, value in SMALL.items()]


def picture(label: int, index: int) -> bytes:
    """An image whose red tells the class, and whose green tells which of its images it is."""
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), (label * 60, index * 20, 0), dtype=np.uint8)).save(file, "jpeg", quality=95)
    return file.getvalue()


def make_tree(root: Path) -> Path:
    """Five classes of twelve images, with the files of the standard tree that are not to be used."""
    for label, wnid in enumerate(WORDS):
        (root / "train" / wnid / "images").mkdir(parents=True)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("0 0 8 8")
        for index in range(12):
            (root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG").write_bytes(picture(label, index))
    for split in ("val", "test"):
        (root / split / "images").mkdir(parents=True)
        (root / split / "images" / f"{split}_0.JPEG").write_bytes(b"broken")
    (root / "wnids.txt").write_text("\n".join(sorted(WORDS, reverse=True)) + "\n")
    (root / "words.txt").write_text("n00001740\tentity\n" + "".join(f"{wnid}\t{WORDS[wnid]}\n" for wnid in WORDS))
    return root


def zipped(root: Path, prefix: str = "tiny-imagenet-200") -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in sorted(root.rglob("*"), reverse=True):
            archive.write(path, f"{prefix}/{path.relative_to(root)}")
    return root.with_suffix(".zip")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tiny")


def ready(root: Path, **kwargs: object) -> TinyImageNetDataModule:
    data = TinyImageNetDataModule(str(root), cache_dir=str(root.parent / "cache"), **(SMALL | kwargs))  # type: ignore[arg-type]
    data.prepare_data()
    data.setup("fit")
    return data


def splits(data: TinyImageNetDataModule) -> list[InMemoryImages]:
    return [data.train_set, data.val_set, data.test_set]


def files(split: InMemoryImages) -> set[str]:
    return {Path(name).name for name in split.names or ()}


@pytest.mark.parametrize("in_zip", [False, True])
@pytest.mark.parametrize("prefix", ["", "top/tiny-imagenet-200/"])
def test_labels_names_and_pixels_agree(tmp_path: Path, in_zip: bool, prefix: str) -> None:
    root = make_tree(tmp_path / f"tiny/{prefix}")
    data = ready(zipped(root, f"x/{prefix}") if in_zip else tmp_path / "tiny")
    assert len(data.class_names) == 3
    assert data.class_names == sorted(data.class_names, key=NAMES.index)
    for split in splits(data):
        assert split.names is not None
        for image, label, name in zip(split.images, split.labels.tolist(), split.names, strict=True):
            wnid, _, index = Path(name).stem.partition("_")
            assert data.class_names[label].endswith(f"({wnid})")
            colors = image.float().mean(dim=(1, 2)).tolist()
            assert [round(colors[0] / 60), round(colors[1] / 20)] == [list(WORDS).index(wnid), int(index)]


def test_splits_are_uniform_and_do_not_overlap(tree: Path) -> None:
    data = ready(tree)
    assert [Counter(split.labels.tolist()) for split in splits(data)] == [dict.fromkeys(range(3), n) for n in (6, 2, 4)]
    assert len(set().union(*map(files, splits(data)))) == 36  # and no image of val/ or test/, which cannot be read


def test_seeds_determine_classes_and_splits(tree: Path) -> None:
    torch.manual_seed(1)
    data = ready(tree)
    torch.manual_seed(2)
    again = ready(zipped(tree))
    assert again.class_names == data.class_names
    assert [files(split) for split in splits(again)] == [files(split) for split in splits(data)]
    assert again.train_set.images[:].equal(data.train_set.images[:])
    assert files(ready(tree, split_seed=1).test_set) != files(data.test_set)
    drawn = {tuple(ready(tree, class_seed=seed).class_names) for seed in range(6)}
    assert len(drawn) > 2
    assert set(data.class_names) < set(ready(tree, num_classes=4).class_names)


def test_test_images_are_the_same_beside_other_classes(tree: Path) -> None:
    every, one = ready(tree, num_classes=5), ready(tree, wnids=["n01641577"])
    assert every.class_names == NAMES
    assert one.class_names == ["bullfrog (n01641577)"]
    for all_files, own in zip(map(files, splits(every)), map(files, splits(one)), strict=True):
        assert own == {name for name in all_files if name.startswith("n01641577")}


def test_only_the_chosen_classes_are_decoded(tree: Path) -> None:
    for wnid in set(WORDS) - {"n01443537", "n01698640"}:
        for path in (tree / "train" / wnid / "images").iterdir():
            path.write_bytes(b"broken")
    data = ready(tree, wnids=["n01698640", "n01443537"])
    assert data.class_names == [NAMES[0], NAMES[4]]
    with pytest.raises(ValueError, match=r"_\d+\.JPEG cannot be read"):
        ready(tree, num_classes=5)


def test_grayscale_becomes_rgb(tree: Path) -> None:
    for path in (tree / "train/n01443537/images").iterdir():
        Image.new("L", (8, 8), 90).save(path)
    assert (ready(tree, wnids=["n01443537"]).train_set.images[:] == 90).all()


def test_bad_and_missing_images_leave_as_many_of_each_class(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = ready(tree, num_classes=5)
    (tree / "train/n01443537/images/n01443537_3.JPEG").write_bytes(b"broken")
    (tree / "train/n01443537/images/n01443537_4.JPEG").unlink()
    caplog.set_level("INFO")
    data = ready(tree, num_classes=5, on_bad_image="skip")
    assert "10 images of each class are used, since goldfish (n01443537) has no more" in caplog.text
    assert list(data.bad_images) == ["train/n01443537/images/n01443537_3.JPEG"]
    counts = [Counter(split.labels.tolist()) for split in splits(data)]
    assert counts == [dict.fromkeys(range(5), n) for n in (4, 2, 4)]
    others = [{name for name in files(part.test_set) if not name.startswith("n01443537")} for part in (whole, data)]
    assert others[0] == others[1]


def test_no_validation_split(tree: Path) -> None:
    data = ready(tree, val_fraction=0.0)
    assert [len(split) for split in splits(data)] == [24, 0, 12]
    assert data.val_dataloader() == []


def test_a_tree_without_lists_is_read_by_its_folders(tree: Path) -> None:
    (tree / "words.txt").unlink()
    (tree / "wnids.txt").unlink()
    assert ready(tree, num_classes=5).class_names == list(WORDS)


def test_duplicates_are_named_and_count_once(tree: Path) -> None:
    drawn = ready(tree).class_names
    (tree / "wnids.txt").write_text("\r\n".join([*WORDS, "n01641577", "", "n01641577"]))
    with pytest.warns(UserWarning, match=r"wnids\.txt names n01641577 more than once"):
        assert ready(tree).class_names == drawn


def test_classes_are_logged_once_and_saved(tree: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    own = ["--data=TinyImageNetDataModule", f"--data.root={tree}", f"--data.cache_dir={tree.parent / 'cache'}"]
    short = ["--name=tiny", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--test_after_fit"]
    run_dir = run("fit", *NETWORKS, *own, *FLAGS, *short) / "tiny/version_0"
    classes = json.loads((run_dir / "classes.json").read_text())
    assert set(classes) < set(NAMES)
    logged = [record.message for record in caplog.records if "drawn by data.class_seed=0" in record.message]
    assert logged == [f"tiny: classes drawn by data.class_seed=0: {', '.join(classes)}"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data.root=none"], ["no images at none", "train/WNID/images/*.JPEG", "words.txt"]),
        (["--data.num_classes=6"], ["num_classes=6", "only 5 classes"]),
        (["--data.num_classes=0"], ["num_classes=0", "at least 1"]),
        (["--data.val_fraction=1.0"], ["val_fraction=1.0", "[0, 1)"]),
        (["--data.image_size=0"], ["image_size", "must be at least 1"]),
        (["--data.test_per_class=12"], ["has 12 images, too few", "test_per_class=12"]),
        (["--data.val_fraction=0.01"], ["has 12 images, too few", "val_fraction=0.01"]),
        (["--data.wnids=[n01644901]"], ["no class n01644901", "the nearest are n01644900"]),
        (["--data.wnids=[n01644900,n01644900]"], ["data.wnids", "each class once"]),
        (["--data.wnids=[]"], ["data.wnids", "at least one class"]),
    ],
)
def test_wrong_settings_end_in_one_line(tree: Path, fails: Fails, flags: list[str], words: list[str]) -> None:
    own = ["--data=TinyImageNetDataModule", f"--data.root={tree}", f"--data.cache_dir={tree.parent / 'cache'}"]
    line = fails("fit", *NETWORKS, *own, *FLAGS, *flags)
    for word in words:
        assert word in line
    assert not (tree.parent / "cache").exists()  # nothing was decoded before


def test_a_short_class_is_named_with_its_count(tree: Path) -> None:
    for index in range(8):
        (tree / f"train/n01698640/images/n01698640_{index}.JPEG").unlink()
    with pytest.raises(ValueError, match=r"American alligator \(n01698640\) has 4 images, too few"):
        ready(tree, num_classes=5)


@pytest.mark.parametrize("kwargs", [{"num_classes": 5}, {"wnids": ["n01443537", "n01641577"]}])
def test_a_class_without_images_is_named(tree: Path, kwargs: dict[str, object]) -> None:
    (tree / "train/n01641577").rename(tree / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"1 of the . chosen classes .* no images in train/, as n01641577"):
        ready(tree, **kwargs)


def test_other_trees_are_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no images of Tiny ImageNet in .*train: expected train/WNID"):
        ready(tree / "train")
    make_tree(tmp_path / "copy")
    with pytest.raises(ValueError, match="more than one tree, as copy/train and tiny/train"):
        ready(tmp_path)
