"""Training curves."""

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.colors import TABLEAU_COLORS
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from preimage.files import natural, read_metrics
from preimage.loggers import run_directory

from . import save_picture

_GRADIENTS = "gradient_norm"  # one panel of one curve per group of layers, as wide as the picture


class Curves(Callback):
    """Draws the training and validation metrics per epoch from `metrics.csv`, during the training and at its end.

    Args:
        every_n_minutes: Redraw at the first validation after this time; the end of the training always draws.
    """

    def __init__(self, every_n_minutes: float = 5.0) -> None:
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
                panels[metric][split][row["epoch"] + 1] = value  # as the console and the report count
            elif split == _GRADIENTS:
                panels[split][metric][row["step"]] = value
    if not panels:
        return None
    gradients = panels.pop(_GRADIENTS, {})
    columns = max(min(len(panels), 3), 2 if gradients else 1)
    rows = math.ceil(len(panels) / columns)
    height = rows + bool(gradients)
    figure = Figure(figsize=(4.5 * columns, 3.2 * height), layout="constrained")
    grid = figure.add_gridspec(height, columns)
    for number, (metric, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[divmod(number, columns)])
        _plot(axes, lines)
        axes.set(title=metric, xlabel="epoch")
        axes.legend(fontsize="small")
    if gradients:
        axes = figure.add_subplot(grid[rows, :])
        axes.set_prop_cycle(color=list(TABLEAU_COLORS) * 3, linestyle=["-"] * 10 + ["--"] * 10 + [":"] * 10)
        _plot(axes, gradients)
        axes.set(title=_GRADIENTS, xlabel="step", yscale="log")
        beside: Any = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "ncols": math.ceil(len(gradients) / 14)}
        axes.legend(fontsize="small", **beside)
    return figure


def _plot(axes: Axes, lines: Mapping[str, Mapping[float, float]]) -> None:
    for name, values in sorted(lines.items(), key=lambda line: natural(line[0])):
        axes.plot(list(values), list(values.values()), marker=".", label=name)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
