import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from datamodules import HuggingFaceDataModule, ImageFolderDataModule
from tests.conftest import ROOT, Fails, Run
from tests.datamodules.test_image_folder import NETWORKS, make_tree
from tests.preimage.test_cli import values

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the Hub."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def rows(tree: Path) -> pd.DataFrame:
    """The files of class folders, in the order of a listing, with the class as a text."""
    files = sorted(tree.rglob("*.png"), key=lambda path: path.relative_to(tree).parts)
    return pd.DataFrame(
        {"picture": [file.read_bytes() for file in files], "label": [file.parent.name for file in files]}
    )


def data_set(frame: pd.DataFrame) -> Any:
    """The same in the types of the library."""
    kinds = {"picture": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cat"])}
    pictures = [{"bytes": data, "path": None} for data in frame["picture"]]
    return datasets.Dataset.from_dict({"picture": pictures, "label": list(frame["label"])}, datasets.Features(kinds))


def ready(root: Path, **options: Any) -> HuggingFaceDataModule:
    data = HuggingFaceDataModule(str(root), image_size=8, cache_dir=str(root.parent / "cache"), **options)
    data.prepare_data()
    data.setup("fit")
    return data


def written(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_parquet(path)
    return path


def saved(frame: pd.DataFrame, path: Path) -> Path:
    data_set(frame).save_to_disk(path.with_suffix(""))
    return path.with_suffix("")


def arrow(frame: pd.DataFrame, path: Path) -> Path:
    (file,) = saved(frame, path).glob("*.arrow")
    return file


def folder(frame: pd.DataFrame, path: Path) -> Path:
    (path.with_suffix("") / "data").mkdir(parents=True)
    frame.to_parquet(path.with_suffix("") / "data/train-00000-of-00001.parquet")
    return path.with_suffix("")


@pytest.mark.parametrize("write", [written, saved, arrow, folder])
def test_a_table_has_the_images_labels_and_splits_of_the_folder(
    tmp_path: Path, write: Callable[[pd.DataFrame, Path], Path]
) -> None:
    tree = make_tree(tmp_path)
    data = ready(write(rows(tree), tmp_path / "table.parquet"))
    plain = ImageFolderDataModule(str(tree), image_size=8, cache_dir=str(tmp_path / "cache"))
    plain.setup("fit")
    assert data.class_names == plain.class_names
    for name in ("train", "val", "test"):
        ours, theirs = (getattr(module, f"{name}_set") for module in (data, plain))
        assert ours.images[:].equal(theirs.images[:]) and ours.labels.equal(theirs.labels)
        assert all(row.startswith("train/") for row in ours.names)


def test_training_on_a_table_also_resumed_is_training_on_the_folder(run: Run, tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    table = written(rows(tree), tmp_path / "table.parquet")
    options = ["--data.image_size=8", f"--data.cache_dir={tmp_path / 'cache'}", "--curves=null"]
    two = ["--trainer.max_epochs=2", "--test_after_fit"]
    run("fit", *NETWORKS, "--data=ImageFolderDataModule", *options, f"--data.root={tree}", "--name=folder", *two)
    flags = [f"--config={ROOT / 'configs/images/table.yaml'}", *NETWORKS, *options]
    flags += [f"--data.root={table}", "--name=table"]
    run("fit", *flags, "--trainer.max_epochs=1")
    runs = run("fit", *flags, *two, "--ckpt_path=last")
    assert [path.name for path in (runs / "table").iterdir()] == ["version_0"]
    first, second = (runs / name / "version_0" for name in ("folder", "table"))
    for metric in ("train/loss", "val/loss", "test/loss", "test/accuracy"):
        assert values(first, metric) == values(second, metric) != []
    weights = [torch.load(path / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for path in (first, second)]
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())


def test_splits_of_the_table_are_kept_and_others_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = rows(make_tree(tmp_path))
    parts = {"train": frame[::2], "validation": frame[1::4], "unsupervised": frame[3::4]}
    whole = datasets.DatasetDict({name: data_set(part) for name, part in parts.items()})
    whole.save_to_disk(tmp_path / "saved")
    caplog.set_level("INFO")
    data = ready(tmp_path / "saved", test_fraction=0.2)
    assert [len(split) for split in (data.train_set, data.val_set, data.test_set)] == [36, 23, 9]
    assert set(data.val_set.names or ()) == {f"validation/{row}" for row in range(23)}
    assert "left out: unsupervised" in caplog.text


@pytest.mark.parametrize(
    ("labels", "class_names", "first"),
    [
        (["10", "9", "x"], ["10", "9", "x"], [0, 1, 2]),
        ([10, 9, 10.5], ["9.0", "10.0", "10.5"], [1, 0, 2]),
        ([3, None, 20], ["3.0", "20.0"], [0, -1, 1]),
        ([True, False, True], ["False", "True"], [1, 0, 1]),
        (["a", "a", None], [], [-1, -1, -1]),
    ],
)
def test_labels_of_any_kind_become_classes(
    tmp_path: Path, labels: list[Any], class_names: list[str], first: list[int]
) -> None:
    pictures = rows(make_tree(tmp_path))["picture"][:30]
    path = written(pd.DataFrame({"img": pictures, "Class_Name": labels * 10, "n": range(30)}), tmp_path / "a.parquet")
    data = ready(path, val_fraction=0, test_fraction=0)
    assert data.class_names == class_names
    assert data.train_set.labels.tolist() == first * 10


def cut(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


PICTURE = io.BytesIO()
Image.new("RGB", (4, 4)).save(PICTURE, "PNG")
GOOD = pd.DataFrame({"img": [PICTURE.getvalue()] * 20, "label": [0, 1] * 10})


@pytest.mark.parametrize(
    ("make", "flags", "words"),
    [
        (
            lambda path: cut(arrow(rows(make_tree(path)), path / "a.parquet"), 3000),
            [],
            "cannot be read as a Parquet or",
        ),
        (lambda path: cut(written(GOOD, path / "a.parquet"), 500), [], "cannot be read as a Parquet or"),
        (lambda path: written(GOOD, path / "a.txt"), [], "it ends in none of .parquet, .arrow"),
        (make_tree, [], "ImageFolderDataModule takes folders of images"),
        (lambda path: path / "none.parquet", [], "no data at"),
        (
            lambda path: written(GOOD, path / "a.parquet"),
            ["image_column=label"],
            "holds no encoded images; the columns",
        ),
        (lambda path: written(GOOD, path / "a.parquet"), ["image_column=x"], "data.image_column=x is not there"),
        (lambda path: written(GOOD, path / "a.parquet"), ["label_column=x"], "there is no x; set data.label_column to"),
        (lambda path: written(GOOD[["label"]], path / "a.parquet"), [], "no column may hold encoded images"),
        (lambda path: written(GOOD.assign(b=GOOD["img"]), path / "a.parquet"), [], "img as well as b may hold"),
        (lambda path: written(GOOD.assign(labels=0), path / "a.parquet"), [], "label as well as labels may be"),
        (lambda path: written(GOOD.assign(label=[[1, 2]] * 20), path / "a.parquet"), [], "and not one label"),
        (
            lambda path: written(GOOD.assign(img=[b"text", *GOOD["img"][1:]]), path / "a.parquet"),
            [],
            "the image train/0 cannot be read (its content is no image)",
        ),
        (
            lambda path: written(GOOD.assign(img=[None, *GOOD["img"][1:]]), path / "a.parquet"),
            [],
            "the image train/0 cannot be read (the file is empty)",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    make: Callable[[Path], Path], flags: list[str], words: str, fails: Fails, tmp_path: Path
) -> None:
    options = [f"--data.{flag}" for flag in (*flags, "image_size=8", f"cache_dir={tmp_path / 'cache'}")]
    said = fails("fit", *NETWORKS, "--data=HuggingFaceDataModule", f"--data.root={make(tmp_path)}", *options)
    assert words in said


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'preimage\[hf\]'"):
        ready(tmp_path / "a.parquet")


def test_a_data_set_of_the_hub_is_asked_for_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def load(*args: Any, **options: Any) -> Any:
        asked.append((args, options))
        return {"train": data_set(rows(make_tree(tmp_path)))}

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    data = HuggingFaceDataModule("someone/pictures", 8, "small", revision="v1", cache_dir=str(tmp_path / "cache"))
    data.prepare_data()
    data.setup("fit")
    assert asked == [(("someone/pictures", "small"), {"revision": "v1", "keep_in_memory": False})]
    assert len(data.train_set) == 63
