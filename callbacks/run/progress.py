"""The progress bar of a terminal, and the lines of a log file."""

import math
import sys
import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer, TQDMProgressBar
from torch import Tensor

from preimage.checks import check_range
from preimage.progress import Progress

_ESTIMATE = 60.0  # seconds of training that an estimate needs, and that must be left to be worth one


class ProgressBar(TQDMProgressBar):
    """Shows the loss and the validation metrics; where the output is no terminal, lines instead of a bar.

    There is one line per epoch, and within whatever takes longer than 30 s another one every 30 s. A minute after its
    start, a training that has another minute to go says how long it takes in all. The numbers beside the bar are read
    only when it is redrawn: to read them at every step costs more than a small step itself.

    Args:
        refresh_rate: Redraw every n batches; 0 for no bar.
    """

    def __init__(self, refresh_rate: int = 50) -> None:
        check_range("ProgressBar", "[0, inf)", refresh_rate=refresh_rate)
        super().__init__(refresh_rate=refresh_rate)
        self._loss: Tensor | None = None
        self._start = 0.0
        self._lines: dict[str, Progress] = {}
        self._train_start, self._first_step, self._estimated = 0.0, 0, False
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
        name = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._beat(trainer, name, trainer.num_training_batches, batch_idx)
        if not self._estimated and time.monotonic() - self._train_start >= _ESTIMATE:
            self._estimate(trainer)

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        """Starts the clocks, also of an epoch that is resumed."""
        super().on_train_start(trainer, *args)
        self._train_start, self._first_step, self._estimated = time.monotonic(), trainer.global_step, False
        self._start = time.monotonic() if trainer.fit_loop.restarted_mid_epoch else 0.0

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Writes the line of the epoch before, whose numbers are all in by now."""
        super().on_train_epoch_start(trainer, *args)
        self._write_line(trainer)
        self._start = time.monotonic()
        self._lines.clear()

    def on_train_end(self, trainer: Trainer, *args: Any) -> None:
        """Writes the line of the last epoch."""
        super().on_train_end(trainer, *args)
        self._write_line(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Says now and then how far it is."""
        super().on_validation_batch_end(trainer, module, outputs, batch, batch_idx, *args)
        self._beat(trainer, "validation", sum(trainer.num_val_batches), batch_idx)

    def on_test_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Says now and then how far it is."""
        super().on_test_batch_end(trainer, module, outputs, batch, batch_idx, *args)
        self._beat(trainer, "test", sum(trainer.num_test_batches), batch_idx)

    def on_predict_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Says now and then how far it is."""
        super().on_predict_batch_end(trainer, module, outputs, batch, batch_idx, *args)
        self._beat(trainer, "predict", sum(trainer.num_predict_batches), batch_idx)

    def _beat(self, trainer: Trainer, name: str, batches: float, batch_idx: int) -> None:
        if self.is_enabled or not trainer.is_global_zero:
            return
        if batch_idx == 0 or name not in self._lines:  # its clock starts when the first batch is done
            bar = Progress(desc=name, unit="batches", total=batches, initial=batch_idx + 1, disable=True)
            self._lines[name] = bar
        else:
            self._lines[name].update()

    def _estimate(self, trainer: Trainer) -> None:
        """Says how long the training takes, going by its steps so far."""
        seconds, steps = time.monotonic() - self._train_start, trainer.global_step - self._first_step
        if not steps:
            return
        self._estimated = True
        left = (trainer.estimated_stepping_batches - trainer.global_step) * seconds / steps
        timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
        left = min([left, *(limit for timer in timers if (limit := timer.time_remaining()) is not None)])
        if trainer.is_global_zero and _ESTIMATE <= left < math.inf:
            whole, rest = (timedelta(seconds=round(value)) for value in (seconds + left, left))
            line = f"about {whole} for the whole training, {rest} of it left, at {steps / seconds:.3g} steps a second"
            if trainer.enable_validation and not any(key.startswith("val/") for key in trainer.callback_metrics):
                line += ", validation not counted"
            (self.print if self.is_enabled else print)(line)

    def _write_line(self, trainer: Trainer) -> None:
        if self.is_enabled or not trainer.is_global_zero or not self._start:
            return
        numbers = "  ".join(f"{key} {float(value):.4f}" for key, value in sorted(trainer.callback_metrics.items()))
        seconds, epoch = time.monotonic() - self._start, f"{trainer.current_epoch}/{trainer.max_epochs}"
        print(f"epoch {epoch}  {numbers}  ({seconds:.1f} s)", flush=True)
