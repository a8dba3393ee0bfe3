"""Test error against the number of labels, by method, from one encoder."""

import argparse
import csv
import math
from pathlib import Path
from typing import NamedTuple

from datamodules import MNISTDataModule
from datamodules.mnist import SOURCES
from datamodules.splits import balanced_subset
from preimage.files import read_plain, sha256, write_atomically, write_json, write_rows
from preimage.locks import PATIENCE, locked
from preimage.reporting.charts import error_figure
from preimage.reporting.label_errors import COLOURS, error_table, errors_of
from preimage.runs import Run, claimed

from .measures import encode_splits
from .probes import Codes, probe_accuracy, standardized, unchosen
from .runs import default_device, figures_of, left_to_others, load_model, train

COLUMNS = ("data", "labels", "method", "seed", "accuracy")
_VAL_SIZE = 100  # as in the configs, whose recipes were chosen on so many


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
    checkpoint: Path = options.encoder_checkpoint
    device = default_device()
    model = load_model(Run(checkpoint.parent.parent, checkpoint)).to(device)  # a wrong one ends it before it begins
    data = MNISTDataModule(options.dataset, options.root, val_size=_VAL_SIZE)
    data.prepare_data()
    data.setup("fit")
    every, classes = len(data.train_set), len(data.class_names)
    counts = [every if labels == "all" else int(labels) for labels in options.labels]
    if wrong := [count for count in counts if count != every and (count % classes or not classes <= count <= every)]:
        raise ValueError(f"--labels {wrong[0]}: give a multiple of {classes}, at most {every}, or all")
    _claim(options, rest)
    path = options.out / "label_efficiency.csv"
    codes: dict[str, Codes] = {}
    # Seed by seed, so that an interrupted figure has all its points.
    chosen = [(seed, count, method) for seed in range(options.seeds) for count in counts for method in options.methods]
    for seed, count, method in chosen:
        point = Point(options.dataset, count, method, seed)
        if point in read(path) or (method == "semi" and count == every):  # which leaves no image without a label
            continue
        name = f"{point.data}, {point.labels} labels, {method}, seed {seed}"
        with left_to_others(name), claimed(options.out / "_".join(map(str, point))):
            if point in read(path):  # which another process has added in the meantime
                continue
            if _config(method).is_file():
                accuracy = _fit(point, every, options, rest)
            else:
                codes = codes or standardized(encode_splits(model, data, ["train", "test"], device))
                accuracy = _probe(point, classes, codes)
            add(path, point, accuracy)
            print(f"{name}: {accuracy:.4f}", flush=True)
    errors = errors_of(point._asdict() | {"accuracy": accuracy} for point, accuracy in read(path).items())
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


def add(path: Path, point: Point, accuracy: float) -> None:
    """Adds a point to those that are known, which other processes may add to at the same time."""
    with locked(path.with_name(".table.lock"), PATIENCE):
        known = read(path) | {point: accuracy}
        rows = [point._asdict() | {"accuracy": f"{accuracy:.5f}"} for point, accuracy in sorted(known.items())]
        write_rows(path, rows, COLUMNS)


def _config(method: str) -> Path:
    """The config of a method that fits a network; there is none of a probe."""
    return Path(__file__).parents[2] / f"configs/mnist/classifier_100_{method}.yaml"


def _probe(point: Point, num_classes: int, splits: dict[str, Codes]) -> float:
    """Test accuracy of a probe, from the labels that a fit with this `label_seed` has."""
    codes, labels = splits["train"]
    if point.labels < len(labels):
        few = balanced_subset(labels, point.labels, num_classes, point.seed)
        codes, labels = codes[few], labels[few]
    settings = unchosen(point.labels, num_classes, point.seed)[point.method]
    return probe_accuracy(settings, (codes, labels), splits["test"])["accuracy"]


def _fit(point: Point, every: int, options: argparse.Namespace, rest: list[str]) -> float:
    """Test accuracy of a method's config, with another number of labels and as many steps for each."""
    labels = "null" if point.labels == every else str(point.labels)
    flags = [f"--data.dataset={point.data}", f"--data.root={options.root}", f"--data.val_size={_VAL_SIZE}"]
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
    run_dir: Path = options.out / "fits" / point.data / f"{point.method}_{point.labels}" / f"version_{point.seed}"
    train(run_dir, f"--config={_config(point.method)}", *flags, *rest)
    return figures_of(run_dir)["test/accuracy"]
