"""Checkpoints that survive what goes wrong: a loss that is no number, and Ctrl-C."""

import signal
import threading
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor


class LastCheckpoint(ModelCheckpoint):
    """Keeps the newest state of the training as `last.ckpt`, also when it is interrupted with Ctrl-C.

    ModelCheckpoint's own `save_last` copies the last checkpoint that was worth saving, which after epochs without
    progress is an old one. The interrupt waits for the end of the running step, so that no half-made update is saved.
    """

    def __init__(self) -> None:
        """Sets the file name."""
        super().__init__(filename="last", enable_version_counter=False)
        self._interrupted = False
        self._handler: Any = None

    def _should_save_on_train_epoch_end(self, trainer: Trainer) -> bool:
        # Also after an epoch without a validation: the training may end before the next one.
        return super()._should_save_on_train_epoch_end(trainer) or (trainer.check_val_every_n_epoch or 1) > 1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over Ctrl-C."""
        self._interrupted = False
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, *args: Any) -> None:
        if self._interrupted:  # asked twice: now
            raise KeyboardInterrupt
        self._interrupted = True

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Stops after the step in which Ctrl-C was pressed."""
        super().on_train_batch_end(trainer, *args, **kwargs)
        if self._interrupted:
            raise KeyboardInterrupt

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Stops after the step in which Ctrl-C was pressed."""
        if self._interrupted:
            raise KeyboardInterrupt

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves the state at an interrupt, and says how to go on from it."""
        writes = trainer.state.fn == "fit" and not getattr(trainer, "fast_dev_run", False)
        if writes and isinstance(exception, KeyboardInterrupt):
            path = self.format_checkpoint_name({})
            trainer.save_checkpoint(path)
            rank_zero_info(f"interrupted at step {trainer.global_step}; to resume, add: --ckpt_path {path}")
        self._restore_handler()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives Ctrl-C back."""
        self._restore_handler()

    def _restore_handler(self) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self._handler = None


class StopOnNaN(Callback):
    """Stops the training at the first loss that is NaN or infinite, before a checkpoint is made of it."""

    def __init__(self, every_n_steps: int = 50) -> None:
        """Sets how often to look.

        Args:
            every_n_steps: On a GPU, look every n steps, since a look waits for the device; on the CPU it is every step.
                The step that is named is the first bad one either way.
        """
        self.every_n_steps = every_n_steps
        self._first_bad: Tensor | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes the first bad step, on the device."""
        if outputs is None:
            return
        loss = outputs["loss"]
        if self._first_bad is None:
            self._first_bad = torch.full((), -1, device=loss.device)
        if loss.device.type == "cpu":
            if not torch.isfinite(loss):
                self._first_bad.fill_(trainer.global_step)
                self._check(trainer)
            return
        bad = ~torch.isfinite(loss) & (self._first_bad < 0)
        self._first_bad = torch.where(bad, trainer.global_step, self._first_bad)
        if (batch_idx + 1) % self.every_n_steps == 0:
            self._check(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks before a validation."""
        self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Looks before a checkpoint is written."""
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        step = -1 if self._first_bad is None else int(self._first_bad)
        if step < 0:
            return
        self._first_bad = None
        good = [str(path) for c in trainer.checkpoint_callbacks if (path := getattr(c, "best_model_path", ""))]
        raise FloatingPointError(
            f"the training loss is NaN or infinite at step {step} (epoch {trainer.current_epoch});"
            f" last good checkpoint: {good[-1] if good else 'none yet'};"
            " try a lower learning rate or --trainer.gradient_clip_val 1"
        )
