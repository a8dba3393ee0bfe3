import re
import stat
import zipfile
from pathlib import Path

import pytest

from datamodules.image_tree import Layout, Source, find_images


def make(root: Path, *names: str, text: str = "") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def zipped(root: Path) -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in root.rglob("*"):
            archive.write(path, path.relative_to(root))
    return root.with_suffix(".zip")


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


def test_a_table_that_names_images_twice(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "train/1.jpg", "train/2.jpg")
    table = root / "labels.csv"
    table.write_text("filename,label\n1.jpg,a\n2.jpg,b\n1.jpg,a\n")
    tree = find_images(Source(root))
    assert tree.names == ["train/1.jpg", "train/2.jpg"]  # once, or it could be in two splits
    table.write_text("filename,label\n1.jpg,a\n2.jpg,b\n1.jpg,b\n")
    with pytest.raises(ValueError, match=r"labels\.csv labels 1\.jpg both a and b"):
        find_images(Source(root))
    for row in ("2.jpg", "2.jpg,"):
        table.write_text(f"filename,label\n1.jpg,a\n{row}\n")
        with pytest.raises(ValueError, match=r"labels\.csv gives no label to 2\.jpg"):
            find_images(Source(root))


def test_kaggle_csv(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "d/train/Image_1.jpg", "d/train/Image_2.jpg", "d/test/Image_9.jpg")
    (root / "d/Training_set.csv").write_text("filename,label\r\nImage_2.jpg,MONARCH\r\nImage_1.jpg,ADONIS\r\n")
    (root / "d/Testing_set.csv").write_text("filename\r\nImage_9.jpg\r\n")
    tree = find_images(Source(root))
    assert tree.names == ["d/train/Image_2.jpg", "d/train/Image_1.jpg"]
    assert tree.labels == [1, 0]
    assert tree.class_names == ["ADONIS", "MONARCH"]
    (root / "d/train/Image_1.jpg").unlink()
    with pytest.raises(ValueError, match=r"Training_set\.csv names Image_1\.jpg, which is not in d/train"):
        find_images(Source(root))


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
        (["a.jpg", "b.jpg"], "holds 2 images, but not as class folders"),
        (["notes.txt"], "holds 0 images"),
        (["only/1.jpg", "only/2.jpg"], r"images of 1 class \['only'\]"),
    ],
)
def test_trees_without_classes_are_named(tmp_path: Path, names: list[str], message: str) -> None:
    layout: Layout = "auto"
    with pytest.raises(ValueError, match=message):
        find_images(Source(make(tmp_path / "data", *names)), layout)


def test_sources_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a folder or zip file with class folders"):
        Source(tmp_path / "none")
    (tmp_path / "broken.zip").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"broken\.zip is no folder and no whole zip file"):
        Source(tmp_path / "broken.zip")


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "a/../../evil.jpg", "/etc/evil.jpg", "C:/evil.jpg", "a/..\\..\\evil.jpg"]
)
def test_members_that_leave_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"")
    with pytest.raises(ValueError, match=f"refused: its member {re.escape(name)} leaves"):
        Source(tmp_path / "evil.zip")


def test_links_and_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = zipfile.ZipInfo("a/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match=r"its member a/link\.jpg is a link"):
        Source(tmp_path / "link.zip")
    monkeypatch.setattr("datamodules.image_tree.LARGEST", 2**20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/bomb.jpg", bytes(2**20 + 1))
    assert (tmp_path / "bomb.zip").stat().st_size < 2000
    with pytest.raises(ValueError, match=r"its member a/bomb\.jpg is of 1048577 bytes"):
        Source(tmp_path / "bomb.zip")


def test_a_damaged_table_in_a_zip_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("labels.csv", "filename,label\n1.jpg,a\n2.jpg,b\n")
    data = (tmp_path / "data.zip").read_bytes()
    (tmp_path / "data.zip").write_bytes(data.replace(b"1.jpg,a", b"1.jpg,X"))
    with pytest.raises(ValueError, match=r"data\.zip: its member labels\.csv cannot be read \(Bad CRC"):
        find_images(Source(tmp_path / "data.zip"))
