"""Test error against the number of labels, by method, from one encoder."""

import argparse
import csv
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from datamodules import MNISTDataModule
from datamodules.mnist import SOURCES
from datamodules.splits import balanced_subset
from lightning_modules.checkpoints import load_checkpoint
from preimage.cli import PreimageCLI
from preimage.commands.label_efficiency import READERS
from preimage.files import read_metrics, read_plain, sha256, write_atomically, write_json, write_rows
from preimage.locks import PATIENCE, Busy, locked
from preimage.reporting.charts import error_figure
from preimage.reporting.label_errors import COLOURS, error_table, errors_of
from preimage.runs import claimed

CONFIGS = Path(__file__).parents[2] / "configs/mnist"
COLUMNS = ("data", "labels", "method", "seed", "accuracy")
VAL_SIZE = 100  # as in the configs, whose recipes were chosen on so many


class Point(NamedTuple):
    """One training: what was trained on which labels."""

    data: str
    labels: int
    method: str
    seed: int


def measure_label_efficiency(options: argparse.Namespace, rest: list[str]) -> None:
    """Trains what is missing in `label_efficiency.csv`, point by point, and draws `label_efficiency.png`.

    Args:
        options: The arguments of the command.
        rest: Flags for every fit.
    """
    if options.dataset not in SOURCES:
        raise ValueError(f"--dataset {options.dataset}: choose of {', '.join(SOURCES)}")
    load_checkpoint(options.encoder_checkpoint)  # a wrong one ends it before it begins
    data = MNISTDataModule(options.dataset, options.root, val_size=VAL_SIZE)
    data.prepare_data()
    data.setup("fit")
    every, classes = len(data.train_set), len(data.class_names)
    counts = [every if labels == "all" else int(labels) for labels in options.labels]
    if wrong := [count for count in counts if count != every and (count % classes or not classes <= count <= every)]:
        raise ValueError(f"--labels {wrong[0]}: give a multiple of {classes}, at most {every}, or all")
    _claim(options, rest)
    path = options.out / "label_efficiency.csv"
    found = read(path)
    codes = None
    for seed in range(options.seeds):  # seed by seed, so that an interrupted figure has all its points
        for count in counts:
            for method in options.methods:
                point = Point(options.dataset, count, method, seed)
                if point in found or (method == "semi" and count == every):  # which leaves no image without a label
                    continue
                name = f"{point.data}, {point.labels} labels, {method}, seed {seed}"
                try:
                    with claimed(options.out / "_".join(map(str, point))):
                        found = read(path)  # another process may have added to it
                        if point in found:
                            continue
                        if method in READERS:
                            codes = codes or encode(options.encoder_checkpoint, data)
                            accuracy = read_out(point, data, *codes)
                        else:
                            accuracy = fit(point, every, options, rest)
                        found = add(path, point, accuracy)
                except Busy as error:
                    print(f"{name}: {error}, left out here; the same command adds it when it is done", flush=True)
                else:
                    print(f"{name}: {accuracy:.4f}", flush=True)
    errors = errors_of(point._asdict() | {"accuracy": accuracy} for point, accuracy in found.items())
    figure = error_figure(errors, COLOURS)
    write_atomically(options.out / "label_efficiency.png", lambda file: figure.savefig(file, dpi=150))
    print(error_table(errors), options.out / "label_efficiency.png", sep="\n")


def _claim(options: argparse.Namespace, flags: list[str]) -> None:
    """Keeps figures of two encoders or recipes out of one table."""
    made_by = {"encoder": sha256(options.encoder_checkpoint), "steps": options.steps, "flags": flags}
    path = options.out / "made_by.json"
    known = read_plain(path) if path.is_file() else {}
    if not isinstance(known, dict):
        raise ValueError(f"{path} does not say what the figures beside it were made by: give another --out")
    if known.setdefault(options.dataset, made_by) != made_by:
        raise ValueError(f"{options.out} has figures of another encoder or other options: give another --out")
    write_json(path, known)


def read(path: Path) -> dict[Point, float]:
    """The accuracies that are known."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="") as file:
            return {
                Point(row["data"], int(row["labels"]), row["method"], int(row["seed"])): float(row["accuracy"])
                for row in csv.DictReader(file)
            }
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error}): mend the line, or remove the file") from error


def write(path: Path, found: dict[Point, float]) -> None:
    """Writes the accuracies, one point a line."""
    rows = [point._asdict() | {"accuracy": f"{accuracy:.5f}"} for point, accuracy in sorted(found.items())]
    write_rows(path, rows, COLUMNS)


def add(path: Path, point: Point, accuracy: float) -> dict[Point, float]:
    """Adds a point to those that are known, which other processes may add to at the same time."""
    with locked(path.with_name(".table.lock"), PATIENCE):
        found = read(path) | {point: accuracy}
        write(path, found)
    return found


def encode(checkpoint: Path, data: MNISTDataModule) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Codes of the training and test images under a trained encoder, standardised by those of the training images."""
    model: Any = LightningModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    model.eval()
    with torch.inference_mode():
        train, test = (
            torch.cat([model.encoder(part.float() / 255).flatten(1) for part in split.images.split(500)])
            for split in (data.train_set, data.test_set)
        )
    scaler = StandardScaler().fit(train.numpy())
    return scaler.transform(train.numpy()), scaler.transform(test.numpy())


def read_out(point: Point, data: MNISTDataModule, train: NDArray[np.float32], test: NDArray[np.float32]) -> float:
    """Test accuracy of a reader of codes that has no setting to choose, since labels are scarce.

    Args:
        point: Method, seed and number of labels; the images with a label are those of a fit with this `label_seed`.
        data: The images' labels.
        train: Codes `(N, D)` of the training images.
        test: Codes `(M, D)` of the test images.
    """
    labels = data.train_set.labels
    chosen = torch.arange(len(labels))
    if point.labels < len(labels):
        chosen = balanced_subset(labels, point.labels, len(data.class_names), point.seed)
    neighbours = min(20, point.labels // len(data.class_names))  # no more than a class has
    passes = max(30, math.ceil(300_000 / point.labels))
    readers = {
        "linear": LogisticRegression(max_iter=1000),
        "knn": KNeighborsClassifier(neighbours, weights="distance"),
        "mlp": MLPClassifier(64, batch_size=min(200, point.labels), max_iter=passes, random_state=point.seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        reader = readers[point.method].fit(train[chosen], labels[chosen].numpy())
    return float(reader.score(test, data.test_set.labels.numpy()))


def fit(point: Point, every: int, options: argparse.Namespace, rest: list[str]) -> float:
    """Test accuracy of the config `classifier_100_METHOD`, with another number of labels and as many steps for each."""
    run_dir: Path = options.out / "fits" / point.data / f"{point.method}_{point.labels}" / f"version_{point.seed}"
    labels = "null" if point.labels == every else str(point.labels)
    flags = [f"--data.dataset={point.data}", f"--data.root={options.root}", f"--data.val_size={VAL_SIZE}"]
    flags += [f"--data.num_labels={labels}", f"--data.label_seed={point.seed}", f"--seed_everything={point.seed}"]
    flags += ["--trainer.callbacks=[]", "--trainer.enable_model_summary=false", "--trainer.enable_progress_bar=false"]
    if point.method != "scratch":
        flags.append(f"--model.encoder_checkpoint={options.encoder_checkpoint.absolute()}")
    if point.method == "semi":  # its epochs are those of all images: the labelled ones keep their share of a batch
        flags.append(f"--data.label_repeat={max(1, 16_000 // point.labels)}")
    else:
        flags.append(f"--data.repeat={max(1, 5000 // point.labels)}")
        steps = max(options.steps, math.ceil(10 * point.labels / 100))
        flags += ["--trainer.max_epochs=-1", f"--trainer.max_steps={steps}"]
    config = CONFIGS / f"classifier_100_{point.method}.yaml"
    PreimageCLI(
        ["fit", f"--config={config}", *flags, *rest, f"--run_dir={run_dir}", "--ckpt_path=auto", "--test_after_fit"]
    )
    return [row["test/accuracy"] for row in read_metrics(run_dir / "metrics.csv") if "test/accuracy" in row][-1]
