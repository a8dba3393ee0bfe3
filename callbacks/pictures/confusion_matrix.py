"""The confusion matrix as a picture and a table."""

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from numpy.typing import NDArray

from preimage.files import write_rows
from preimage.fonts import drawable
from preimage.loggers import reporters, run_directory

from . import Picture, class_names


class ConfusionMatrix(Picture):
    """Draws the confusion matrix that a `Classifier` counts; the test's counts are also saved as CSV.

    Args:
        every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
    """

    name = "confusion"

    def __init__(self, every_n_epochs: int = 5) -> None:
        super().__init__(every_n_epochs)

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> Figure | None:
        """Plots the counts, shaded by the share of their row."""
        metric = getattr(pl_module, "confusion", None)
        if metric is None:
            return None
        counts = metric.compute().cpu().numpy()  # on every rank, since it gathers
        if not trainer.is_global_zero:
            return None
        names = class_names(trainer, len(counts))
        if trainer.testing:
            header = ["true\\predicted", *names]
            rows = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
            for reporter in reporters(trainer):
                reporter.log_table("test_confusion", header, rows, step=trainer.global_step)
            if (run_dir := run_directory(trainer)) is not None:
                write_rows(run_dir / "confusion_test.csv", [dict(zip(header, row, strict=True)) for row in rows])
        return confusion_figure(counts, drawable(names))


def confusion_figure(counts: NDArray[np.int64], names: list[str]) -> Figure:
    """Plots a confusion matrix, with the counts in its cells up to 20 classes, and beyond with a scale of the shares.

    Args:
        counts: Counts `(classes, classes)`, rows are true classes.
        names: Names of the classes.
    """
    size = max(4.0, 0.5 * min(len(names), 40))
    points = min(8.0, 50 * size / len(names))  # a name is no higher than its row
    beside = 0.5 + 0.009 * points * max(map(len, names))  # inches for the names and what they are names of
    figure = Figure(figsize=(size + beside + (len(names) > 20), size + beside), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shaded = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90, fontsize=points)
    axes.set_yticks(ticks, names, fontsize=points)
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) > 20:
        figure.colorbar(shaded, label="share of the true class", shrink=0.5, aspect=40)
    for (row, column), count in np.ndenumerate(counts) if len(names) <= 20 else ():
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=color)
    return figure
