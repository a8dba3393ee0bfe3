import csv
import os
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from datamodules import MNISTDataModule
from lightning_modules import Autoencoder
from preimage.__main__ import main
from preimage.evaluation.label_efficiency import COLUMNS, Point, add, read
from preimage.reporting.runs import read_findings
from preimage.runs import claimed
from tests.conftest import ROOT, Run

Table = list[dict[str, str]]


@pytest.fixture
def checkpoint(run: Run, idx_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A barely trained autoencoder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = str(ROOT / "configs/mnist/autoencoder.yaml")
    flags = [
        "--data.val_size=0",
        "--trainer.limit_train_batches=2",
        "--checkpoint.monitor=step",
        "--checkpoint.mode=max",
    ]
    flags += [
        "--trainer.max_epochs=1",
        "--trainer.enable_model_summary=false",
        "--trainer.callbacks=[]",
        "--curves=null",
    ]
    return (
        run("fit", "--config", config, f"--data.root={idx_root}", *flags)
        / "autoencoder/version_0/checkpoints/last.ckpt"
    )


def label_efficiency(idx_root: Path, checkpoint: Path, out: Path, *flags: str) -> Table:
    own = [f"--root={idx_root}", f"--encoder_checkpoint={checkpoint}", f"--out={out}", "--steps=3"]
    main(["label-efficiency", *own, "--trainer.accelerator=cpu", "--trainer.limit_test_batches=1", *flags])
    with (out / "label_efficiency.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_method_has_its_points_and_those_that_are_known_are_skipped(
    idx_root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "curve"
    methods = ["--methods", "linear", "knn", "mlp", "scratch", "finetune", "semi"]
    flags = ["--labels", "20", "all", "--seeds=1", *methods, "--trainer.limit_train_batches=2"]
    flags += ["--curves=null", "--trainer.max_epochs", "1"]
    rows = label_efficiency(idx_root, checkpoint, out, *flags)
    points = [(row["method"], int(row["labels"])) for row in rows]
    both = {(method, count) for method in ("linear", "knn", "mlp", "scratch", "finetune") for count in (20, 900)}
    assert set(points) == both | {("semi", 20)}  # with all labels there is no image without one
    assert len(points) == len(both) + 1
    assert all(0 <= float(row["accuracy"]) <= 1 and row["data"] == "mnist" for row in rows)
    assert Image.open(out / "label_efficiency.png").size[0] > 300
    assert "M1+M2" in capsys.readouterr().out
    assert len(list(out.rglob("metrics.csv"))) == 5
    assert not read_findings([out]).runs  # the fits are points of its table
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.ckpt")}
    lines = (out / "label_efficiency.csv").read_text().splitlines()
    (out / "label_efficiency.csv").write_text("\n".join(line for line in lines if ",knn," not in line) + "\n")
    again = label_efficiency(
        idx_root, checkpoint, out, *flags[:-2], "--trainer.max_epochs=1"
    )  # the same, said otherwise
    assert again == rows
    assert capsys.readouterr().out.count(", knn, seed 0: ") == 2
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.ckpt")}
    for wrong, words in (
        ("--model.label_smoothing=0", f"{out} has figures of another encoder or other options"),
        ("--labels=55", "--labels 55: give a multiple of 10, at most 900, or all"),
        ("--labels=1000", "--labels 1000: give"),
    ):
        with pytest.raises(SystemExit):
            label_efficiency(idx_root, checkpoint, out, *flags, wrong)
        assert words in capsys.readouterr().err


def test_a_point_of_another_process_is_left_to_it(
    idx_root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "curve"
    flags = ["--labels", "20", "50", "--seeds=1", "--methods", "knn"]
    with claimed(out / "mnist_20_knn_0"):
        rows = label_efficiency(idx_root, checkpoint, out, *flags)
        assert [row["labels"] for row in rows] == ["50"]
        assert f"mnist, 20 labels, knn, seed 0: process {os.getpid()} on " in capsys.readouterr().out
    add(out / "label_efficiency.csv", Point("mnist", 10, "mlp", 0), 0.5)  # as by another process
    rows = label_efficiency(idx_root, checkpoint, out, *flags)
    assert [row["labels"] for row in rows] == ["10", "20", "50"]


def test_a_linear_probe_sees_the_labels_of_its_seed_alone(idx_root: Path, checkpoint: Path, tmp_path: Path) -> None:
    flags = ["--methods", "linear", "--labels", "50", "--seeds=2"]
    rows = label_efficiency(idx_root, checkpoint, tmp_path / "curve", *flags)
    encoder = Autoencoder.load_from_checkpoint(checkpoint, weights_only=True).encoder
    for seed, row in enumerate(rows):
        few = MNISTDataModule("mnist", str(idx_root), val_size=100, num_labels=50, label_seed=seed)
        whole = MNISTDataModule("mnist", str(idx_root), val_size=100)
        for data in (few, whole):
            data.setup("fit")
        with torch.no_grad():
            codes = [encoder(part.images.float() / 255) for part in (whole.train_set, few.train_set, few.test_set)]
        mean, deviation = codes[0].mean(dim=0), codes[0].std(dim=0)
        train, test = (((part - mean) / deviation).numpy() for part in codes[1:])
        probe = LogisticRegression(max_iter=1000).fit(train, few.train_set.labels.numpy())
        assert float(row["accuracy"]) == pytest.approx(probe.score(test, few.test_set.labels.numpy()), abs=0.006)
    assert rows[0]["accuracy"] != rows[1]["accuracy"]


def test_the_points_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = {Point("mnist", 100, "linear", seed): accuracy for seed, accuracy in enumerate((0.8, 0.9))}
    found[Point("fashion_mnist", 100, "knn", 0)] = 0.75
    for point, accuracy in found.items():
        add(tmp_path / "points.csv", point, accuracy)
    assert read(tmp_path / "points.csv") == found


@pytest.mark.parametrize(
    ("flags", "words", "code"),
    [
        (["--labels", "10", "many"], ["--labels: give numbers or all, not many"], 2),
        (["--seeds=0"], ["--seeds: give a whole number from 1 up, not 0"], 2),
        (["--methods", "svm"], ["svm", "label-efficiency --help"], 2),
        (["--encoder_checkpoint=none.ckpt"], ["no checkpoint at none.ckpt"], 1),
    ],
)
def test_wrong_arguments_end_in_one_line(
    flags: list[str], words: list[str], code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["preimage"])
    with pytest.raises(SystemExit) as stop:
        main(["label-efficiency", *flags])
    assert stop.value.code == code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in error for word in words)


@pytest.mark.parametrize("row", ["mnist,many,linear,0,0.5", "mnist,10,linear,0,", "mnist", "mnist,10,linear,0,\x00"])
def test_a_damaged_table_is_named(tmp_path: Path, row: str) -> None:
    path = tmp_path / "label_efficiency.csv"
    path.write_text(f"{','.join(COLUMNS)}\n{row}\n")
    with pytest.raises(ValueError, match=r"label_efficiency\.csv cannot be read .*: mend the line, or remove the file"):
        read(path)
