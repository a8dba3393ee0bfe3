"""The progress bar of a terminal, and the lines of a log file."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor

from preimage.checks import check_range


class ProgressBar(TQDMProgressBar):
    """Shows the loss and the validation metrics; where the output is no terminal, one line per epoch instead of a bar.

    The numbers are read only when the bar is redrawn: to read them at every step costs more than a small step itself.
    """

    def __init__(self, refresh_rate: int = 50) -> None:
        """Sets how often to redraw.

        Args:
            refresh_rate: Redraw every n batches; 0 for no bar.
        """
        check_range("ProgressBar", "[0, inf)", refresh_rate=refresh_rate)
        super().__init__(refresh_rate=refresh_rate)
        self._loss: Tensor | None = None
        self._start = 0.0
        if not sys.stdout.isatty():
            self.disable()

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The numbers beside the bar."""
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        loss = {} if self._loss is None else {"loss": float(self._loss)}
        return {key: f"{value:.4f}" for key, value in (loss | metrics).items()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the loss for the next redrawing."""
        self._loss = None if outputs is None else outputs["loss"]
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        """Starts the clock of an epoch that is resumed."""
        super().on_train_start(trainer, *args)
        self._start = time.monotonic() if trainer.fit_loop.restarted_mid_epoch else 0.0

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Writes the line of the epoch before, whose numbers are all in by now."""
        super().on_train_epoch_start(trainer, *args)
        self._write_line(trainer)
        self._start = time.monotonic()

    def on_train_end(self, trainer: Trainer, *args: Any) -> None:
        """Writes the line of the last epoch."""
        super().on_train_end(trainer, *args)
        self._write_line(trainer)

    def _write_line(self, trainer: Trainer) -> None:
        if self.is_enabled or not trainer.is_global_zero or not self._start:
            return
        numbers = "  ".join(f"{key} {float(value):.4f}" for key, value in sorted(trainer.callback_metrics.items()))
        seconds, epoch = time.monotonic() - self._start, f"{trainer.current_epoch}/{trainer.max_epochs}"
        print(f"epoch {epoch}  {numbers}  ({seconds:.1f} s)", flush=True)
