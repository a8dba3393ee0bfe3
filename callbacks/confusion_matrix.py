"""The confusion matrix as a picture and a table."""

import csv
import io
from typing import TYPE_CHECKING

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from preimage.files import write_atomically
from preimage.loggers import WandbRunLogger

from .pictures import Picture, class_names
from .run_directory import run_directory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ConfusionMatrix(Picture):
    """Draws the confusion matrix that a `Classifier` counts; the test's counts are also saved as CSV."""

    name = "confusion"

    def __init__(self, every_n_epochs: int = 5) -> None:
        """Sets how often to draw.

        Args:
            every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
        """
        super().__init__(every_n_epochs)

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> "Figure | None":
        """Plots the counts, shaded by the share of their row."""
        metric = getattr(pl_module, "confusion", None)
        if metric is None:
            return None
        counts = metric.compute().cpu().numpy()  # on every rank, since it gathers
        run_dir = run_directory(trainer)
        if run_dir is None:
            return None
        names = class_names(trainer) or [str(i) for i in range(len(counts))]
        if trainer.testing:
            header = ["true\\predicted", *names]
            rows = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
            table = io.StringIO()
            csv.writer(table, lineterminator="\n").writerows([header, *rows])
            write_atomically(run_dir / "confusion_test.csv", lambda file: file.write_text(table.getvalue()))
            for logger in trainer.loggers:
                if isinstance(logger, WandbRunLogger):
                    logger.log_table("test_confusion", header, rows, step=trainer.global_step)
        return confusion_figure(counts, names)


def confusion_figure(counts: "np.typing.NDArray[np.int64]", names: list[str]) -> "Figure":
    """Plots a confusion matrix.

    Args:
        counts: Counts `(classes, classes)`, rows are true classes.
        names: Names of the classes.

    Returns:
        The figure; counts are written into the cells up to 20 classes.
    """
    from matplotlib.figure import Figure

    size = max(4.0, 0.5 * min(len(names), 40))
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90, fontsize=8)
    axes.set_yticks(ticks, names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= 20:
        for row in ticks:
            for column in ticks:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=color)
    return figure
