from pathlib import Path

import pytest

from datamodules.image_tree import Layout, find_images
from datamodules.source import Source
from tests.datamodules.test_source import make, zipped


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


def test_a_layout_can_be_told(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "train/a/1.jpg", "test/b/2.jpg")
    assert find_images(Source(root), "folders").class_names == ["test", "train"]
    for layout in ("csv", "splits"):
        if layout == "csv":
            with pytest.raises(ValueError, match="holds 2 images, but not as"):
                find_images(Source(root), layout)


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
