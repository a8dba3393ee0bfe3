"""Training curves."""

import math
import time
from collections import defaultdict
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from preimage.files import read_metrics
from preimage.loggers import run_directory

from . import save_picture

_GRADIENTS = "gradient_norm"  # one panel of one curve per group of layers


class Curves(Callback):
    """Draws the training and validation metrics per epoch from `metrics.csv`, during the training and at its end."""

    def __init__(self, every_n_minutes: float = 5.0) -> None:
        """Sets how often to draw.

        Args:
            every_n_minutes: Redraw at the first validation after this time; the end of the training always draws.
        """
        self.every_n_minutes = every_n_minutes
        self._last = math.inf

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._last = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Redraws if it is time."""
        if time.monotonic() - self._last > 60 * self.every_n_minutes:
            self.on_fit_end(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the whole training."""
        self._last = time.monotonic()
        run_dir = run_directory(trainer)
        if run_dir is not None and (run_dir / "metrics.csv").is_file():
            figure = curves_figure(run_dir / "metrics.csv")
            if figure is not None:
                save_picture(trainer, figure, "curves.png")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draws what there is of a training that broke off."""
        if trainer.state.fn == "fit":
            self.on_fit_end(trainer, pl_module)


def curves_figure(path: Path) -> Figure | None:
    """Plots a `metrics.csv`: one panel per metric, training and validation together, and one of gradient norms.

    Args:
        path: The file.

    Returns:
        The figure, or None where no metric was logged for training or validation.
    """
    panels: dict[str, dict[str, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in read_metrics(path):
        for key, value in row.items():
            split, _, metric = key.partition("/")
            if split in ("train", "val") and "epoch" in row:
                panels[metric][split][row["epoch"]] = value
            elif split == _GRADIENTS:
                panels[split][metric][row["step"]] = value
    if not panels:
        return None
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.5 * columns, 3.2 * rows), layout="constrained")
    for number, (metric, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        for name, values in sorted(lines.items()):
            axes.plot(list(values), list(values.values()), marker=".", label=name)
        gradients = metric == _GRADIENTS
        axes.set(title=metric, xlabel="step" if gradients else "epoch", yscale="log" if gradients else "linear")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    return figure
