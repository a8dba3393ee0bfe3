import zipfile
from collections import Counter
from pathlib import Path

import pytest

from datamodules.image_tree import ImageTree, find_images
from datamodules.source import Source
from datamodules.tables import Wanted
from tests.datamodules.test_source import make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images in train/, two of the same names in test/."""
    return make(tmp_path / "data", *(f"train/Image_{i}.jpg" for i in range(4)), "test/Image_0.jpg", "test/Image_1.jpg")


def found(root: Path, tables: dict[str, str | bytes], **wanted: str) -> ImageTree:
    for name, text in tables.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return find_images(Source(root), wanted=Wanted(**wanted))


def labels(tree: ImageTree) -> dict[str, str]:
    return {name: tree.class_names[label] for name, label in zip(tree.names, tree.labels, strict=True)}


ROWS = [("Image_2.jpg", "wolf"), ("Image_0.jpg", "ant"), ("Image_1.jpg", "wolf")]
FOUND = {"train/Image_2.jpg": "wolf", "train/Image_0.jpg": "ant", "train/Image_1.jpg": "wolf"}


def table(header: str, delimiter: str = ",", rows: list[tuple[str, str]] = ROWS) -> str:
    return "\n".join([header, *(delimiter.join(row) for row in rows)])


@pytest.mark.parametrize(
    "text",
    [
        table("filename,label"),
        table("image,label"),
        table("Filename,Label"),
        table("filename, label", ", "),
        table("filename;label", ";"),
        table("id,breed"),
        table("File Name\tspecies", "\t"),
        table("image_path|class", "|"),
        table("\ufefffilename,label"),
        table("filename,label").encode("utf-16"),
        table("filename,label").encode("utf-16-be"),
        table("filename,label").replace("\n", "\r\n\r\n"),
        table("filename,label").replace("\n", "\r"),
        "sep=;\n" + table("filename;label", ";"),
        table("filename,label,", ",", [(name, f"{label},") for name, label in ROWS]),
        table(",filename,label", ",", [(f"7,{name}", label) for name, label in ROWS]),
        table("age,label,filename", ",", [("7", f"{label},{name}") for name, label in ROWS]),
        table("id,label", ",", [(name.removesuffix(".jpg"), label) for name, label in ROWS]),
        table("id,label", ",", [(name.upper(), label) for name, label in ROWS]),
        table("id,label", ",", [(f"train/{name}", label) for name, label in ROWS]),
        table("id,label", ",", [(f"data\\train\\{name}", label) for name, label in ROWS]),
        table('" File Name " ; "Label"', " ; ", [(f'"{name}"', f'"{label}"') for name, label in ROWS]),
        table('"filename","label"', ",", [(f'"{name}"', f'" {label} "') for name, label in ROWS]),
    ],
)
def test_a_table_in_the_forms_that_people_have(root: Path, text: str | bytes) -> None:
    tree = found(root, {"labels.csv": text})
    assert labels(tree) == FOUND
    assert tree.class_names == ["ant", "wolf"]
    assert list(tree.names) == list(FOUND)  # in the order of the rows


def test_suffixes_of_any_case_on_disk(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "img/a.JPG", "img/b.JPG")
    assert labels(found(root, {"meta.csv": "file,kind\na.jpg,x\nb,y\n"})) == {"img/a.JPG": "x", "img/b.JPG": "y"}


def test_paths_that_climb_within_the_root(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "images/a.png", "images/b.png")
    tree = found(root, {"tables/all.csv": "file,y\n../images/a.png,1\n..\\images\\b.png,2\n"})
    assert labels(tree) == {"images/a.png": "1", "images/b.png": "2"}
    with pytest.raises(ValueError, match=r"all\.csv, row 3: \.\./\.\./b\.png leaves the folder"):
        found(root, {"tables/all.csv": "file,y\n../images/a.png,1\n../../b.png,2\n"})


def test_columns_and_table_can_be_told(root: Path, tmp_path: Path) -> None:
    text = "shot,age,kind\nImage_0.jpg,3,x\nImage_1.jpg,4,y\n"
    with pytest.raises(ValueError, match=r"labels\.csv has the columns shot, age, kind: .* --data\.layout flat"):
        found(root, {"labels.csv": text})
    tree = found(root, {"labels.csv": text}, label_column="Kind", filename_column="shot")
    assert labels(tree) == {"train/Image_0.jpg": "x", "train/Image_1.jpg": "y"}
    assert "labels.csv labels the images (shot, kind)" in tree.notes[0]
    tree = found(root, {"other.csv": table("file,label")}, table="labels.csv", label_column="age")
    assert tree.class_names == ["3", "4"]
    (tmp_path / "beside.csv").write_text(table("file,label"))
    assert labels(found(root, {}, table=str(tmp_path / "beside.csv"))) == FOUND


def test_each_table_labels_the_images_of_its_own_split(root: Path) -> None:
    tables: dict[str, str | bytes] = {"Training_set.csv": table("filename,label")}
    tables["Testing_set.csv"] = table("filename,label", rows=[("Image_0.jpg", "wolf"), ("Image_1.jpg", "ant")])
    tables["a_sample_submission.csv"] = table("filename,label", rows=[("Image_0.jpg", "ant"), ("Image_1.jpg", "ant")])
    tree = found(root, tables)
    assert labels(tree) == FOUND | {"test/Image_0.jpg": "wolf", "test/Image_1.jpg": "ant"}
    assert Counter(tree.splits) == {"train": 3, "test": 2}
    tree = found(root, {"Testing_set.csv": "filename\nImage_0.jpg\nImage_1.jpg\n"})  # no labels: no test split
    assert labels(tree) == FOUND
    assert set(tree.splits) == {"train"}
    assert "3 images are left out, since they have no label or are in no split: 2 in test, 1 in train" in tree.notes


def test_tables_that_share_images(tmp_path: Path) -> None:
    root = make(tmp_path / "data", *(f"img/{index}.png" for index in range(3)))
    all_of_them = {"all.csv": "id,y\n0,a\n1,b\n2,b\n", "train.csv": "id,y\n0,a\n1,b\n", "val.csv": "id,y\n2,b\n"}
    assert found(root, {**all_of_them}).splits == ["train", "train", "val"]
    with pytest.raises(
        ValueError, match=r"val\.csv, row 2 takes img/0\.png for the val split, and not train, as .*all"
    ):
        found(root, {"val.csv": "id,y\n0,a\n"})


def test_a_table_of_the_test_images_joins_the_class_folders_of_the_others(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "train/a/1.jpg", "train/b/2.jpg", "test/1.jpg", "test/2.jpg")
    tree = found(root, {"test_labels.csv": "filename,label\n1.jpg,b\n2.jpg,a\n"})
    assert labels(tree) == {"train/a/1.jpg": "a", "train/b/2.jpg": "b", "test/1.jpg": "b", "test/2.jpg": "a"}
    assert Counter(tree.splits) == {"train": 2, "test": 2}


def test_what_stands_beside_class_folders_is_no_label_of_itself(tmp_path: Path) -> None:
    root = make(tmp_path / "data", *(f"train/{name}.jpg" for name in ("a/1", "a/2", "b/3", "b/4")), "test/b/5.jpg")
    tree = found(root, {"info.csv": "file,camera\n1.jpg,old\n2.jpg,old\n"})
    assert (tree.class_names, len(tree.names)) == (["a", "b"], 5)
    assert any("camera is old in all rows, and no label" in note for note in tree.notes)
    rows = "file,camera\n1.jpg,old\n2.jpg,new\n3.jpg,new\n"
    with pytest.raises(ValueError, match=r"info\.csv: the labels may be camera, or the folders, as b/: set"):
        found(root, {"info.csv": rows})
    assert found(root, {}, label_column="camera").class_names == ["new", "old"]
    assert found(root, {"info.csv": "file,kind\n1,x\n2,x\n3,y\n4,y\n5,y\n"}).class_names == ["x", "y"]


def test_tables_within_split_folders_and_of_one_folder_of_images(root: Path, tmp_path: Path) -> None:
    rows = table("image,label", rows=[("Image_0.jpg", "a"), ("Image_1.jpg", "b")])
    tree = found(root, {"train/labels.csv": rows, "test/labels.csv": rows})
    assert Counter(tree.splits) == {"train": 2, "test": 2}
    one = make(tmp_path / "one", *(f"images/{index}.png" for index in range(4)))
    tree = found(one, {"train.csv": "id,y\n0,a\n1,b\n", "val.csv": "id,y\n2,b\n", "test.csv": "id\n3\n"})
    assert dict(zip(tree.names, tree.splits, strict=True)) == {
        "images/0.png": "train",
        "images/1.png": "train",
        "images/2.png": "val",
    }


def test_a_column_of_splits(tmp_path: Path) -> None:
    root = make(tmp_path / "data", *(f"img/{index}.png" for index in range(4)))
    text = "filename,label,data set\n0.png,a,train\n1.png,b,Training\n2.png,a,valid\n3.png,b,test\n"
    assert found(root, {"meta.csv": text}).splits == ["train", "train", "val", "test"]
    with pytest.raises(ValueError, match=r"meta\.csv, row 23 has 'holdout' for a split"):
        found(root, {"meta.csv": text + "0.png,a,train\n" * 17 + "1.png,b,holdout\n"})


def test_tables_that_say_more_than_labels(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "Train/0/1.png", "Train/1/2.png", "train/0/1.png", "Test/3.png", "Meta/0.png")
    tables: dict[str, str | bytes] = {
        "Train.csv": "Width,ClassId,Path\n9,0,Train/0/1.png\n8,1,Train/1/2.png\n",
        "Test.csv": "Width,ClassId,Path\n9,1,Test/3.png\n",
        "Meta.csv": "Path,ClassId,ShapeId\nMeta/0.png,0,1\n",
    }
    tree = found(root, tables)
    assert labels(tree) == {"Test/3.png": "1", "Train/0/1.png": "0", "Train/1/2.png": "1"}
    assert tree.splits == ["test", "train", "train"]
    assert tree.notes[-1].endswith("no label or are in no split: 1 in Meta, 1 in train/0")


def test_a_column_of_folds_is_no_label_and_no_split(tmp_path: Path) -> None:
    root = make(tmp_path / "data", *(f"img/{index}.png" for index in range(4)))
    tree = found(root, {"meta.csv": "id,kind,fold\n0,a,1\n1,b,2\n"})
    assert tree.class_names == ["a", "b"]
    assert "meta.csv: fold does not hold train, val and test: it is not read" in tree.notes[1]
    assert found(root, {"meta.csv": "image_id,partition\n0,1\n1,2\n"}).class_names == []


def test_labels_that_are_one_are_one(root: Path) -> None:
    rows = [("Image_0.jpg", "1 "), ("Image_1.jpg", "1.0"), ("Image_2.jpg", "01"), ("Image_3.jpg", "10")]
    tree = found(root, {"labels.csv": table("filename,label", rows=rows)})
    assert tree.class_names == ["1", "10"]
    assert tree.labels == [0, 0, 0, 1]
    assert any("01 is 1, 1.0 is 1" in note for note in tree.notes)
    rows = [("Image_0.jpg", "09"), ("Image_1.jpg", "10"), ("Image_2.jpg", "9a"), ("Image_3.jpg", "a")]
    assert found(root, {"labels.csv": table("filename,label", rows=rows)}).class_names == ["09", "10", "9a", "a"]
    rows = [("Image_0.jpg", "A"), ("Image_1.jpg", "a")]  # letters
    assert found(root, {"labels.csv": table("filename,label", rows=rows)}).class_names == ["A", "a"]


def test_text_that_is_no_utf8(root: Path) -> None:
    tree = found(root, {"labels.csv": "filename,label\nImage_0.jpg,café\nImage_1.jpg,b\n".encode("cp1252")})
    assert tree.class_names == ["b", "café"]
    assert "is no UTF-8" in tree.notes[0]


def test_a_table_that_names_images_twice(root: Path) -> None:
    again = table("filename,label", rows=[*ROWS, ("Image_0.jpg", "ant")])
    assert labels(found(root, {"labels.csv": again})) == FOUND  # once, or it could be in two splits
    with pytest.raises(
        ValueError, match=r"labels\.csv, row 3 labels train/Image_0.jpg ant, and not wolf, as .*b\.csv, row 2"
    ):
        found(root, {"b.csv": "filename,label\nImage_0.jpg,wolf\n"})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("Image_0.jpg,a\nImage_1.jpg,b\nImage_0.jpg,b", "row 4 labels train/Image_0.jpg b, and not a"),
        ("Image_0.jpg,a\nImage_1.jpg", "row 3 gives no label to Image_1.jpg"),
        ("Image_0.jpg,a\nImage_1.jpg,  ", "row 3 gives no label to Image_1.jpg"),
        ("Image_0.jpg,a\n\nImage_1.jpg,NaN", "row 4 gives Image_1.jpg the label NaN"),
        ("Image_0.jpg,a\nImage_1.jpg,null", "row 3 gives Image_1.jpg the label null"),
        ("Image_0.jpg,a\n../../etc/passwd,b", "row 3: ../../etc/passwd leaves the folder"),
        ("Image_0.jpg,a\n/etc/passwd,b", "row 3: /etc/passwd leaves the folder"),
        ("Image_0.jpg,a\nC:\\1.jpg,b", "row 3: C:\\1.jpg leaves the folder"),
        ("Image_0.jpg,a\nnone.jpg,b", "row 3 names none.jpg, which is not there"),
        ("Image_0.jpg,a\nImage_3.png,b", "row 3 names Image_3.png, which is not there (there is train/Image_3.jpg)"),
        ("none.jpg,Image_0\nnone.png,Image_1", "row 2 names none.jpg, which is not there"),
        ("none.jpg,a\nnone.png,b", "row 2 names none.jpg, which is not there"),
        ("Image_0.jpg,a\n,b", "row 3 names no image"),
        ("Image_0.jpg,a\nImage_1.jpg,b, black", "row 3 has 3 cells for 2 columns"),
        ('Image_0.jpg,a\nImage_1.jpg,"b\nImage_2.jpg,a', "after row 2: quotation marks do not pair up"),
        ('Image_0.jpg,a\nImage_1.jpg,"' + "x" * 200_000, "after row 2: quotation marks do not pair up (field larger"),
    ],
)
def test_a_row_with_a_mistake_is_named(root: Path, rows: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        found(root, {"labels.csv": f"filename,label\n{rows}\n"})
    assert f"{root}: labels.csv, {message}" in str(error.value)


@pytest.mark.parametrize(
    ("text", "wanted", "message"),
    [
        (table("filename,label"), {"label_column": "kind"}, "labels.csv has the columns filename, label, and no kind"),
        (table("filename,label"), {"table": "l.csv"}, "data.table=l.csv is neither in"),
        ("filename,label,label\nImage_0.jpg,a,b\n", {}, "filename, label, label: several may hold labels"),
        ("Image_0.jpg,a\nImage_1.jpg,b\n", {}, "has no header, its first row names Image_0.jpg"),
        ("id,breed\nimg0,a\nimg1,b\n", {}, "has the columns id, breed: none names the images (--data.filename_column)"),
        ("a,b\n1,2\n", {"filename_column": "c"}, "has the columns a, b, and no c"),
    ],
)
def test_a_table_that_is_not_understood_is_named(root: Path, text: str, wanted: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError) as error:
        found(root, {"labels.csv": text}, **wanted)
    assert message in str(error.value)


def test_a_name_in_two_folders_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "cat/1.jpg", "dog/1.jpg")
    with pytest.raises(ValueError, match=r"labels\.csv, row 2: 1\.jpg may be cat/1\.jpg or dog/1\.jpg"):
        found(root, {"labels.csv": "filename,label\n1.jpg,a\n"})


def test_a_table_of_other_things_leaves_the_labels_to_the_folders(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "cat/1.jpg", "dog/2.jpg")
    tree = found(root, {"stats.csv": "filename,width,height\ncat/1.jpg,3,4\n", "notes.csv": "a,b\nx,y\n", "e.csv": ""})
    assert tree.class_names == ["cat", "dog"]
    assert [note.split(": ", 1)[1] for note in tree.notes] == [
        "e.csv is empty",
        "notes.csv has the columns a, b: none names the images (--data.filename_column)",
        "stats.csv has the columns filename, width, height: several may hold labels (--data.label_column)",
    ]


def test_kaggle_csv(tmp_path: Path) -> None:
    root = make(tmp_path / "kaggle", "d/train/Image_1.jpg", "d/train/Image_2.jpg", "d/test/Image_9.jpg")
    (root / "d/Training_set.csv").write_text("filename,label\r\nImage_2.jpg,MONARCH\r\nImage_1.jpg,ADONIS\r\n")
    (root / "d/Testing_set.csv").write_text("filename\r\nImage_9.jpg\r\n")
    tree = find_images(Source(root))
    assert tree.names == ["d/train/Image_2.jpg", "d/train/Image_1.jpg"]
    assert tree.labels == [1, 0]
    assert tree.class_names == ["ADONIS", "MONARCH"]
    (root / "d/train/Image_1.jpg").unlink()
    with pytest.raises(ValueError, match=r"Training_set\.csv, row 3 names Image_1\.jpg, which is not there"):
        find_images(Source(root))


def test_a_damaged_table_in_a_zip_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("labels.csv", "filename,label\n1.jpg,a\n2.jpg,b\n")
    data = (tmp_path / "data.zip").read_bytes()
    (tmp_path / "data.zip").write_bytes(data.replace(b"1.jpg,a", b"1.jpg,X"))
    with pytest.raises(ValueError, match=r"data\.zip: its member labels\.csv cannot be read \(Bad CRC"):
        find_images(Source(tmp_path / "data.zip"))
