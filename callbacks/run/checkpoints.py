"""The checkpoints of a run: the best states, and the last one, which survives Ctrl-C and a job that is told to end."""

import io
import math
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lightning_modules.metrics import direction
from preimage.checks import check_range
from preimage.files import write_atomically
from preimage.private_api import cluster_environment, requeue_from, validates_next

from .averaging import AveragedWeights


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


class BestCheckpoint(ModelCheckpoint):
    """Keeps the states that are best by a metric; `best.ckpt` is the best of them, whatever the others are called.

    Args:
        monitor: The metric; null for the newest state.
        mode: Whether less (`min`) or more (`max`) of it is better; by default what holds for the metric.
        save_top_k: How many states are kept; -1 for all, 0 for none.
        filename: Name of each, with `{epoch}`, `{step}` or `{val/loss:.4f}` in it; by default `best`, and where
            several are kept, epoch, step and metric.
        auto_insert_metric_name: Write `epoch=3` for `{epoch}`, and not `3`.
        enable_version_counter: Leave a file of the same name alone, and add `-v1` to the name.
        kwargs: When to save, see Lightning's `ModelCheckpoint`.
    """

    def __init__(
        self,
        monitor: str | None = "val/loss",
        mode: Literal["min", "max"] | None = None,
        save_top_k: int = 1,
        filename: str | None = "best",
        auto_insert_metric_name: bool = False,
        enable_version_counter: bool = False,
        **kwargs: Any,
    ) -> None:
        if filename == "last":
            raise ValueError("checkpoint.filename=last is the file of the newest state: give another name")
        if kwargs.get("dirpath") is not None:
            raise ValueError(
                f"checkpoint.dirpath={kwargs['dirpath']}: the checkpoints of a run are in its folder, where --ckpt_path"
                " looks for them: choose that by --run_dir or --trainer.default_root_dir"
            )
        if filename in (None, "best"):
            metric = "" if monitor is None else f"-{monitor.replace('/', '_')}={{{monitor}:.4f}}"
            filename = "best" if save_top_k in (0, 1) else f"epoch={{epoch}}-step={{step}}{metric}"
        super().__init__(
            monitor=monitor,
            mode=mode or direction(monitor or "") or "min",
            save_top_k=save_top_k,
            filename=filename,
            auto_insert_metric_name=auto_insert_metric_name,
            enable_version_counter=enable_version_counter,
            **kwargs,
        )
        try:
            self.format_checkpoint_name({})
        except (ValueError, LookupError, AttributeError) as error:
            raise ValueError(
                f"checkpoint.filename={filename} is no pattern ({error}): write it as {{epoch}}-{{val/loss:.4f}}"
            ) from error
        self._of_average = False  # whether what is kept are averages of weights

    @property
    def _best(self) -> Path:
        return Path(str(self.dirpath)) / "best.ckpt"

    @property
    def _legacy_state_key(self) -> str:  # type: ignore[override]
        # Under which checkpoints hold it that were written by a ModelCheckpoint.
        return self.state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def state_dict(self) -> dict[str, Any]:
        """What was kept so far."""
        return super().state_dict() | {"of_average": self._of_average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what was kept so far, also where the run's folder was moved since."""
        before, here = state_dict["dirpath"], str(self.dirpath)
        if before != here and self._best.is_file():

            def moved(path: str) -> str:
                return os.path.join(here, os.path.relpath(path, before)) if path else path

            paths = {key: moved(state_dict[key]) for key in ("best_model_path", "kth_best_model_path")}
            scores = {moved(path): score for path, score in state_dict["best_k_models"].items()}
            state_dict = state_dict | paths | {"dirpath": self.dirpath, "best_k_models": scores}
        super().load_state_dict(state_dict)
        self._of_average = state_dict.get("of_average", False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps, of what a resumed run has kept so far, as many as are wanted now."""
        super().on_train_start(trainer, pl_module)
        best = str(self._best)
        if self.filename != "best" and best in self.best_k_models:  # it is to follow the best from now on
            other = self._best.with_name("best_before.ckpt")
            self.best_k_models[str(other)] = self.best_k_models.pop(best)
            if trainer.is_global_zero:
                write_atomically(other, lambda file: _link(best, file))
        if not self.best_k_models:
            return
        ranked = sorted(self.best_k_models.items(), key=lambda item: float(item[1]), reverse=self.mode == "max")
        self.best_k_models = dict(ranked if self.save_top_k < 0 else ranked[: self.save_top_k])
        self.best_model_path, self.best_model_score = ranked[0]
        if len(self.best_k_models) == self.save_top_k > 0:
            self.kth_best_model_path, self.kth_value = ranked[self.save_top_k - 1]

    def _get_metric_interpolated_filepath_name(
        self, monitor_candidates: dict[str, Tensor], trainer: Trainer, del_filepath: str | None = None
    ) -> str:
        """Gives no two states that are kept the same file; one that a killed run has left is written over."""
        path = super()._get_metric_interpolated_filepath_name(monitor_candidates, trainer, del_filepath)
        version = self.STARTING_VERSION
        while path in self.best_k_models:
            path = self.format_checkpoint_name(monitor_candidates, ver=version)
            version += 1
        return path

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """Compares averages of weights, once there are any, with each other alone."""
        outdated: list[str] = []
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        if not self._of_average and any(isinstance(one, AveragedWeights) and one.averages for one in callbacks):
            self._of_average = True
            outdated, self.best_k_models = list(self.best_k_models), {}
        super()._save_topk_checkpoint(trainer, monitor_candidates)
        for path in outdated if self.save_top_k > 0 else ():
            if path not in self.best_k_models:
                self._remove_checkpoint(trainer, path)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero and Path(self.best_model_path) != self._best and os.path.isfile(self.best_model_path):
            write_atomically(self._best, lambda file: _link(self.best_model_path, file))


class LastCheckpoint(ModelCheckpoint):
    """Keeps the newest state of the training as `last.ckpt`: after every epoch, in between, and when it has to stop.

    Ctrl-C, SIGTERM and SLURM's signal to requeue wait for the end of the running step, so that no half-made update is
    saved, and where an epoch ends there, for the validation after it; a second signal ends at once and saves nothing.

    Args:
        every_n_steps: Save when this many steps were made since the last time; by default steps do not matter.
        every_n_minutes: Save when this much time has passed; null for after the epochs alone.
    """

    def __init__(self, every_n_steps: int | None = None, every_n_minutes: float | None = 10.0) -> None:
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
        environment = cluster_environment(trainer)
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
        if stepped and self._step >= self._ask_next and not trainer.is_last_batch and not validates_next(trainer):
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
            requeue_from(trainer, self.best_model_path)  # Lightning's handler saves once more, and calls scontrol
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


def _link(source: str, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
