from pathlib import Path

import pytest

from datamodules.image_tree import ImageTree, Layout, find_images
from datamodules.source import Source
from tests.datamodules.test_source import make, zipped


def found(tmp_path: Path, names: str, layout: Layout = "auto") -> ImageTree:
    """Finds the images in folders that are named with their numbers of images, as `train/a:2 test:1`."""
    counts = ((folder, int(count)) for folder, _, count in (part.rpartition(":") for part in names.split()))
    files = [f"{folder}/{index}.jpg".lstrip("/") for folder, count in counts for index in range(count)]
    return find_images(Source(make(tmp_path / "data", *files)), layout)


def summary(tree: ImageTree) -> str:
    """The classes of each split with their numbers of images, as `train/a:2`, sorted."""
    kinds = [
        f"{split or ''}/{tree.class_names[label] if label >= 0 else ''}"
        for split, label in zip(tree.splits, tree.labels, strict=True)
    ]
    return " ".join(f"{kind}:{kinds.count(kind)}" for kind in sorted(set(kinds)))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("training_set/a:2 training_set/b:2 test_set/a:1 test_set/b:1", "test/a:1 test/b:1 train/a:2 train/b:2"),
        ("Training/a:2 Training/b:2 TESTING/a:1", "test/a:1 train/a:2 train/b:2"),
        ("train/a:2 train/b:2 dev/a:1 Valid_set/b:1", "train/a:2 train/b:2 val/a:1 val/b:1"),
        ("trainset/a:2 trainset/b:2 validation-data/a:1 test2017/b:1", "test/b:1 train/a:2 train/b:2 val/a:1"),
        ("train/a:2 train/b:2 test/a:1 test/b:1 docs:1", "test/a:1 test/b:1 train/a:2 train/b:2"),
        ("d/train/a:2 d/train/b:2 d/test/a:1 docs:1", "test/a:1 train/a:2 train/b:2"),
        ("train/a:2 train/b:2 test:3", "train/a:2 train/b:2"),
        ("train/a:2 train/b:2 test/images:3", "train/a:2 train/b:2"),
        ("train/train/a:2 train/train/b:2 test/test/a:1", "test/a:1 train/a:2 train/b:2"),
        ("train/a:2 train/b:2 test/a/deep:1", "test/a:1 train/a:2 train/b:2"),
        ("train/a:2 train/b:2 :1", "train/a:2 train/b:2"),
        ("Train/Real:2 Train/Fake:2 Test/real:1 Test/FAKE:1", "test/Fake:1 test/Real:1 train/Fake:2 train/Real:2"),
        ("train/1:1 train/2:1 val/01:1 val/02:1", "train/1:1 train/2:1 val/1:1 val/2:1"),
        ("train/good:3 test/good:1 test/bad:2 ground_truth/bad:2", "test/bad:2 test/good:1 train/good:3"),
        ("a/train:2 a/test:1 b/train:1 b/test:2", "test/a:1 test/b:2 train/a:2 train/b:1"),
        ("seg_train/seg_train/a:2 seg_train/seg_train/b:1 seg_test/seg_test/b:1", "test/b:1 train/a:2 train/b:1"),
        ("01_train/a:2 01_train/b:1 02_test/b:1", "test/b:1 train/a:2 train/b:1"),
        ("images-train/a:2 images-train/b:1 images-val:2", "train/a:2 train/b:1"),
        ("train_station:1 test_tube:2", "/test_tube:2 /train_station:1"),
        ("a:2 b:2 test/a:1 test/b:1", "test/a:1 test/b:1 train/a:2 train/b:2"),
        ("test/a:1 test/b:1", "test/a:1 test/b:1"),
        ("a:2 b:1 :1", "/a:2 /b:1"),
        ("A:1 a:1", "/A:1 /a:1"),
        (":3", "/:3"),
        ("only:3", "/:3"),
        ("train:3 test1:2", "test/:2 train/:3"),
        ("images/train:3 images/val:1", "train/:3 val/:1"),
        ("train:3 test/a:1 test/b:1", "test/:2 train/:3"),
    ],
)
def test_trees_as_people_have_them(tmp_path: Path, names: str, expected: str) -> None:
    assert summary(found(tmp_path, names)) == expected


@pytest.mark.parametrize(
    ("names", "note"),
    [
        ("train/a:2 train/b:2 docs:1", "1 images are left out, since they have no label or are in no split: 1 in docs"),
        ("train/a:2 train/b:2 test:3", "3 images are left out, since they have no label or are in no split: 3 in test"),
        ("train/a:2 train/b:1 training/a:1", "train and training are both the train split"),
        ("train/Real:2 train/fake:1 val/real:1", "classes that differ only in spelling are one: real is Real"),
        ("Real:1 real:1", "classes that differ only by case are kept apart: Real and real"),
        (":3", "3 images without labels"),
        ("only:2", "2 images are taken without labels, since only would be their only class"),
        ("train:3 test/a:1 test/b:1", "5 images are taken without labels, since no image to train on has one"),
    ],
)
def test_what_is_chosen_is_said(tmp_path: Path, names: str, note: str) -> None:
    assert note in found(tmp_path, names).notes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("car:2 bus:2 train:2", r"train/ beside bus/, car/ may be a class or a split: --data\.layout folders"),
        ("valid:2 invalid:2", r"valid/ beside invalid/ may be a class or a split"),
        ("cat:2 dog:2 test:2", r"test/ beside cat/, dog/ may be a class or a split"),
        ("x/train/a:1 x/train/b:1 y/train/a:1", r"more than one tree, as x/train and y/train"),
        ("cats_train:1 cats_test:1 dogs_train:1 dogs_test:1", r"cats_test/, .* name a class and a split in one"),
        ("x/a:1 x/b:1 x/x/a:1 x/x/b:1", r"x/ holds a/, b/ again"),
        ("a:1 b:1 :5", r"5 images, as 0\.jpg, lie beside a/, b/: are these classes\?"),
    ],
)
def test_what_may_be_taken_in_two_ways_is_refused(tmp_path: Path, names: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        found(tmp_path, names)


@pytest.mark.parametrize("in_zip", [False, True])
def test_a_class_folder_without_images_is_said(tmp_path: Path, in_zip: bool) -> None:
    root = make(tmp_path / "data", "a/1.jpg", "b/2.jpg", "c/3.HEIC", ".git/x/y", "a/deep/2.jpg", "a/read.txt")
    (root / "d/e").mkdir(parents=True)
    tree = find_images(Source(zipped(root) if in_zip else root))
    assert tree.class_names == ["a", "b"]
    assert tree.notes == ["2 files are no images and are left out: 1 .txt, 1 .heic", "2 folders hold no images: c, d"]


def test_numbers_are_in_order_of_their_value(tmp_path: Path) -> None:
    tree = found(tmp_path, " ".join(f"{number}:1" for number in range(12)))
    assert tree.class_names == [str(number) for number in range(12)]
    assert [tree.class_names[label] for label in tree.labels] == [name.split("/")[0] for name in tree.names]


def test_a_layout_can_be_told(tmp_path: Path) -> None:
    assert found(tmp_path, "car:2 train:2", "folders").class_names == ["car", "train"]
    assert found(tmp_path, "car:2 train:2", "flat").labels == [-1] * 4
    with pytest.raises(ValueError, match="holds 4 images, but not as"):
        found(tmp_path, "car:2 train:2", "csv")


@pytest.mark.parametrize("in_zip", [False, True])
@pytest.mark.parametrize("prefix", ["", "top/inner/"])
def test_class_folders_are_sorted_by_name(tmp_path: Path, in_zip: bool, prefix: str) -> None:
    names = [
        f"{prefix}{name}" for name in ("wolf/b.JPG", "ant/c.png", "wolf/deep/a.jpeg", "ant/.hidden.png", "ant/x.txt")
    ]
    root = make(tmp_path / "data", *names, "__MACOSX/ant/._c.png")
    tree = find_images(Source(zipped(root) if in_zip else root))
    assert tree.class_names == ["ant", "wolf"]
    assert tree.names == [f"{prefix}{name}" for name in ("ant/c.png", "wolf/b.JPG", "wolf/deep/a.jpeg")]
    assert tree.labels == [0, 1, 1]
    assert tree.splits == [None] * 3


def test_split_folders(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "d/train/a/1.jpg", "d/train/b/2.jpg", "d/valid/a/3.jpg", "d/test/b/4.jpg")
    tree = find_images(Source(root))
    assert dict(zip(tree.names, tree.splits, strict=True)) == {
        "d/test/b/4.jpg": "test",
        "d/train/a/1.jpg": "train",
        "d/train/b/2.jpg": "train",
        "d/valid/a/3.jpg": "val",
    }
    assert tree.class_names == ["a", "b"]


def test_split_folders_by_other_names_and_images_of_rarer_kinds(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "Training/a/1.jfif", "Training/b/2.JP2", "Validation/a/3.avif", "TEST/b/4.tga")
    tree = find_images(Source(root))
    assert tree.class_names == ["a", "b"]
    assert tree.splits == ["test", "train", "train", "val"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg", "b.jpg"], "holds 2 images, but not as class folders .*; it has a.jpg, b.jpg"),
        (["notes.txt", "x/y.txt"], "holds 0 images, .*; it has notes.txt, x/"),
        (["only/1.jpg", "only/2.jpg"], r"images of 1 class \['only'\]"),
    ],
)
def test_trees_without_classes_are_named(tmp_path: Path, names: list[str], message: str) -> None:
    layout: Layout = "splits" if "a.jpg" in names else "folders"
    with pytest.raises(ValueError, match=message):
        find_images(Source(make(tmp_path / "data", *names)), layout)
