"""Checkpoints that survive what goes wrong: a disk that is full, Ctrl-C, a job that is told to end."""

import io
import math
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from preimage.checks import check_range
from preimage.files import write_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when it is on the disk.

    Lightning's own goes by the folder for temporary files, from which a move to another disk is a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes the file."""
        data = io.BytesIO()  # torch, writing a file itself, hides why it could not
        torch.save(checkpoint, data)
        try:
            write_atomically(Path(path), lambda file: file.write_bytes(data.getbuffer()))
        except OSError as error:
            mend = "make room on the disk, and start again"
            if Path(path).exists():
                mend = f"what it held before is still good: {mend} with --ckpt_path last"
            raise OSError(f"{path} could not be written ({error.strerror}), {mend}") from error


class LastCheckpoint(ModelCheckpoint):
    """Keeps the newest state of the training as `last.ckpt`: after every epoch, in between, and when it has to stop.

    Ctrl-C, SIGTERM and SLURM's signal to requeue wait for the end of the running step, so that no half-made update is
    saved, and where an epoch ends there, for the validation after it; a second signal ends at once and saves nothing.
    """

    def __init__(self, every_n_steps: int | None = None, every_n_minutes: float | None = 10.0) -> None:
        """Sets how often to save within an epoch.

        Args:
            every_n_steps: Save when this many steps were made since the last time; by default steps do not matter.
            every_n_minutes: Save when this much time has passed; null for after the epochs alone.
        """
        super().__init__(filename="last", enable_version_counter=False)
        check_range("last_checkpoint", "[1, inf)", every_n_steps=every_n_steps)
        check_range("last_checkpoint", "[0, inf]", every_n_minutes=every_n_minutes)
        self.every_n_steps = math.inf if every_n_steps is None else every_n_steps
        self.every_n_minutes = math.inf if every_n_minutes is None else every_n_minutes
        self._received = 0
        self._handlers: dict[int, Any] = {}
        self._saved_at = self._asked_at = (0, 0.0)  # step and time
        self._ask_next: float = 0  # step
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the signals, after Lightning has."""
        self._received = 0
        self._step = self._ask_next = trainer.global_step
        self._saved_at = self._asked_at = self._step, time.monotonic()
        signals = [signal.SIGINT, signal.SIGTERM]
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue and environment.requeue_signal:
            signals.append(environment.requeue_signal)
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._receive) for number in signals}

    def _receive(self, number: int, frame: Any) -> None:
        if self._received:  # asked twice: now
            raise KeyboardInterrupt if number == signal.SIGINT else SIGTERMException(128 + number)
        self._received = number

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Saves if it is time, and stops after the step in which a signal came."""
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        # Lightning would resume behind a validation that is still to come: the save waits until it is over.
        loop = trainer.fit_loop
        validates = loop._data_fetcher is not None and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
        if stepped and self._step >= self._ask_next and not trainer.is_last_batch and not validates:
            received, due = self._agree(trainer)
            if received or due:
                self._save(trainer)
                self._stop(trainer, received)

    def _agree(self, trainer: Trainer) -> tuple[int, bool]:
        """The signal that any process got, and whether it is time to save: the same on all of them."""
        (step, last), (asked, before), now = self._saved_at, self._asked_at, time.monotonic()
        due = self._step - step >= self.every_n_steps or now - last >= 60 * self.every_n_minutes
        if trainer.world_size == 1:
            return self._received, due
        # To ask is to wait for the device and for the others: about once a second is enough, or after 50 short steps.
        pace = (now - before) / max(1, self._step - asked)
        ours = torch.tensor([self._received, due, pace], device=trainer.strategy.root_device)
        received, due, pace = trainer.strategy.reduce(ours, reduce_op="max").tolist()
        self._asked_at = self._step, now
        self._ask_next = min(self._step + max(1, int(1 / max(pace, 0.02))), step + self.every_n_steps)
        return int(received), bool(due)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves between two epochs, when all that the first has left behind is written."""
        received, _ = self._agree(trainer)
        if trainer.global_step > self._saved_at[0]:
            self._save(trainer)
        self._stop(trainer, received)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the end."""
        self.on_train_epoch_start(trainer, pl_module)
        self._restore_handlers()

    on_train_epoch_end = Callback.on_train_epoch_end  # the numbers of the epoch are not written yet
    on_validation_end = Callback.on_validation_end  # the epoch is not over

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.best_model_path = self.format_checkpoint_name({})
        trainer.save_checkpoint(self.best_model_path, weights_only=False)
        self._saved_at = trainer.global_step, time.monotonic()

    def _stop(self, trainer: Trainer, received: int) -> None:
        if not received:
            return
        if received == signal.SIGINT:
            raise KeyboardInterrupt
        if received != signal.SIGTERM:
            # Lightning's handler saves once more and calls scontrol; its file of its own would be shared by all runs.
            connector: Any = trainer._checkpoint_connector
            connector.hpc_save_path = lambda folder: self.best_model_path
            self._handlers[received](received, None)
        raise SIGTERMException(128 + received)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Says how to go on."""
        if self._handlers and isinstance(exception, KeyboardInterrupt | SIGTERMException):
            why = "interrupted" if isinstance(exception, KeyboardInterrupt) else "told to end"
            path = self.best_model_path
            cure = f"to resume, add: --ckpt_path {path}" if path else "nothing is saved"
            rank_zero_info(f"{why} at step {trainer.global_step}, saved at step {self._saved_at[0]}; {cure}")
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
