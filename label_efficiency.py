"""`preimage label-efficiency`: test error against the number of labels, by method, from one encoder."""

import argparse
import csv
import math
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray

from cli import PreimageCLI
from datamodules import MNISTDataModule
from datamodules.mnist import SOURCES
from datamodules.splits import balanced_subset
from errors import CommandParser
from files import read_metrics, write_atomically
from lightning_modules.checkpoints import load_checkpoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIGS = Path(__file__).parent / "configs/mnist"
READERS = ("linear", "knn", "mlp")
FITS = ("scratch", "finetune", "semi")
NAMES = {"linear": "linear", "knn": "kNN", "mlp": "MLP", "scratch": "from scratch", "finetune": "fine-tuned"}
NAMES["semi"] = "fine-tuned, semi-supervised"
LABELS = ("10", "50", "100", "600", "1000", "3000", "all")
COLUMNS = ("data", "labels", "method", "seed", "accuracy")
VAL_SIZE = 100  # as in the configs, whose recipes were chosen on so many
#: Test error on MNIST in percent by number of labels: Kingma et al. 2014 (arXiv 1406.5298), table 1.
PUBLISHED = {
    "M1+TSVM, Kingma et al.": {100: 11.82, 600: 5.72, 1000: 4.24, 3000: 3.49},
    "M1+M2, Kingma et al.": {100: 3.33, 600: 2.59, 1000: 2.40, 3000: 2.18},
}


class Point(NamedTuple):
    """One training: what was trained on which labels."""

    data: str
    labels: int
    method: str
    seed: int


def parse(args: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads the arguments; those that are not the command's own are for every fit."""
    epilog = "All other flags go to every fit, for example --trainer.accelerator cpu."
    parser = CommandParser("preimage label-efficiency", description=__doc__, epilog=epilog)
    parser.add_argument("--dataset", default="mnist", choices=list(SOURCES), help="which images")
    parser.add_argument("--root", default="data", help="folder with the IDX files, see MNISTDataModule")
    parser.add_argument(
        "--encoder_checkpoint",
        type=Path,
        help="run of the encoder, by default runs/DATASET/autoencoder_all/version_0/checkpoints/last.ckpt",
    )
    parser.add_argument("--labels", nargs="+", default=list(LABELS), help="numbers of labels, or all")
    every = [*READERS, *FITS]
    parser.add_argument("--methods", nargs="+", default=every, choices=every, help="readers and fits, by default all")
    parser.add_argument("--seeds", type=int, default=5, help="draws of the labels, and of the weights")
    parser.add_argument("--steps", type=int, default=1500, help="steps of a fit from labels alone, of 100 images each")
    out = Path("runs/label_efficiency")
    parser.add_argument("--out", type=Path, default=out, help=f"folder of the figure and the runs, by default {out}")
    options, rest = parser.parse_known_args(args)
    if wrong := [count for count in options.labels if count != "all" and not count.isdigit()]:
        parser.error(f"--labels takes numbers or all, not {wrong[0]}")
    if options.encoder_checkpoint is None:
        options.encoder_checkpoint = Path(f"runs/{options.dataset}/autoencoder_all/version_0/checkpoints/last.ckpt")
    return options, rest


def main(args: Sequence[str]) -> None:
    """Trains what is missing in `label_efficiency.csv`, point by point, and draws `label_efficiency.png`."""
    options, rest = parse(args)
    load_checkpoint(options.encoder_checkpoint)  # a wrong one ends it before it begins
    data = MNISTDataModule(options.dataset, options.root, val_size=VAL_SIZE)
    data.prepare_data()
    data.setup("fit")
    every = len(data.train_set)
    path = options.out / "label_efficiency.csv"
    found = read(path)
    codes = None
    for seed in range(options.seeds):  # seed by seed, so that an interrupted figure has all its points
        for count in (every if labels == "all" else int(labels) for labels in options.labels):
            for method in options.methods:
                point = Point(options.dataset, count, method, seed)
                if point in found or (method == "semi" and count == every):  # which leaves no image without a label
                    continue
                if method in READERS:
                    codes = codes or encode(options.encoder_checkpoint, data)
                    found[point] = read_out(point, data, *codes)
                else:
                    found[point] = fit(point, every, options, rest)
                write(path, found)
                print(f"{point.data}, {point.labels} labels, {method}, seed {seed}: {found[point]:.4f}", flush=True)
    figure = error_figure(found)
    write_atomically(options.out / "label_efficiency.png", lambda file: figure.savefig(file, dpi=120))
    print(table(found), options.out / "label_efficiency.png", sep="\n")


def read(path: Path) -> dict[Point, float]:
    """The accuracies that are known."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        Point(row["data"], int(row["labels"]), row["method"], int(row["seed"])): float(row["accuracy"]) for row in rows
    }


def write(path: Path, found: dict[Point, float]) -> None:
    """Writes the accuracies, one point a line."""

    def write_csv(file: Path) -> None:
        with file.open("w", newline="") as lines:
            writer = csv.writer(lines)
            writer.writerow(COLUMNS)
            writer.writerows([*point, f"{accuracy:.5f}"] for point, accuracy in sorted(found.items()))

    write_atomically(path, write_csv)


def encode(checkpoint: Path, data: MNISTDataModule) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Codes of the training and test images under a trained encoder, standardised by those of the training images."""
    model: Any = LightningModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    model.eval()
    with torch.inference_mode():
        train, test = (
            torch.cat([model.encoder(part.float() / 255).flatten(1) for part in split.images.split(500)])
            for split in (data.train_set, data.test_set)
        )
    mean, deviation = train.mean(dim=0), train.std(dim=0)
    return ((train - mean) / deviation).numpy(), ((test - mean) / deviation).numpy()


def read_out(point: Point, data: MNISTDataModule, train: NDArray[np.float32], test: NDArray[np.float32]) -> float:
    """Test accuracy of a reader of codes that has no setting to choose, since labels are scarce.

    Args:
        point: Method, seed and number of labels; the images with a label are those of a fit with this `label_seed`.
        data: The images' labels.
        train: Codes `(N, D)` of the training images.
        test: Codes `(M, D)` of the test images.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier

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
    run_dir: Path = options.out / point.data / f"{point.method}_{point.labels}" / f"version_{point.seed}"
    shutil.rmtree(run_dir, ignore_errors=True)  # interrupted before its line was written
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
        flags += ["--trainer.max_epochs=-1", f"--trainer.max_steps={options.steps}"]
    config = CONFIGS / f"classifier_100_{point.method}.yaml"
    PreimageCLI(["fit", f"--config={config}", *flags, *rest, f"--run_dir={run_dir}", "--test_after_fit"])
    return [row["test/accuracy"] for row in read_metrics(run_dir / "metrics.csv") if "test/accuracy" in row][-1]


def curves(found: dict[Point, float], data: str) -> dict[str, dict[int, list[float]]]:
    """Test errors in percent over the seeds, by method and number of labels."""
    lines: dict[str, dict[int, list[float]]] = {}
    for point, accuracy in sorted(found.items()):
        if point.data == data:
            lines.setdefault(point.method, {}).setdefault(point.labels, []).append(100 * (1 - accuracy))
    return {method: lines[method] for method in (*READERS, *FITS) if method in lines}


def table(found: dict[Point, float]) -> str:
    """Test errors in percent as a Markdown table, mean and standard deviation over the seeds."""
    lines = []
    for data in sorted({point.data for point in found}):
        counts = sorted({point.labels for point in found if point.data == data})
        lines += [["error, %, on " + data, *map(str, counts)], ["---"] * (1 + len(counts))]
        for method, errors in curves(found, data).items():
            lines.append([NAMES[method], *(_cell(errors.get(count, [])) for count in counts)])
        for name, points in PUBLISHED.items() if data == "mnist" else ():
            lines.append([name, *(f"{points[count]:.2f}" if count in points else "" for count in counts)])
        lines.append([])
    return "\n".join(f"| {' | '.join(line)} |" if line else "" for line in lines)


def _cell(errors: list[float]) -> str:
    if not errors:
        return ""
    return f"{np.mean(errors):.2f}" + (f" ± {np.std(errors, ddof=1):.2f}" if len(errors) > 1 else "")


def error_figure(found: dict[Point, float]) -> "Figure":
    """Plots test error against the number of labels, a panel per data set.

    Args:
        found: Accuracies.

    Returns:
        The figure: lines are means over seeds, bands one standard deviation either way.
    """
    from matplotlib.figure import Figure

    names = sorted({point.data for point in found}, reverse=True)
    figure = Figure(figsize=(1 + 5 * len(names), 4.5), layout="constrained")
    for panel, data in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for method, errors in curves(found, data).items():
            counts = list(errors)
            mean = np.array([np.mean(errors[count]) for count in counts])
            deviation = np.array([np.std(errors[count], ddof=1) if len(errors[count]) > 1 else 0 for count in counts])
            (line,) = panel.plot(counts, mean, marker="o", markersize=3, label=NAMES[method])
            low = np.maximum(mean - deviation, mean / 10)  # the axis is logarithmic
            panel.fill_between(counts, low, mean + deviation, color=line.get_color(), alpha=0.2, linewidth=0)
        for (name, points), marker in zip(PUBLISHED.items() if data == "mnist" else (), "^s", strict=False):
            panel.plot(list(points), list(points.values()), marker, color="black", markersize=5, label=name)
        panel.set(title=data, xscale="log", yscale="log", xlabel="labels", ylabel="test error, %")
        counts = sorted({point.labels for point in found if point.data == data})
        panel.set_xticks(counts, [f"{count:,}" for count in counts])
        panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
        panel.legend(fontsize="x-small")
        panel.grid(alpha=0.3, which="both")
    return figure
