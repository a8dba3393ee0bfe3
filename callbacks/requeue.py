"""Trainings that outlast the time limit of their job."""

import os
import signal
import subprocess
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from .checkpoints import LastCheckpoint


class Requeue(Callback):
    """Writes `last.ckpt` and puts the job back into SLURM's queue when SIGUSR1 says that its time is nearly up.

    Lightning's own way saves wherever a process is when the signal comes, in the middle of an update or a step ahead of
    the others, into a folder that runs share. Here all processes save after the same step, into the run directory; the
    training goes on until SLURM ends it, and resumes from there.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        """Sets how often to look.

        Args:
            every_n_steps: The processes ask each other every n steps whether one of them got the signal.
        """
        self.every_n_steps = every_n_steps
        self._asked = False
        self._handler: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the signal over."""
        self._asked = False
        self._handler = signal.signal(signal.SIGUSR1, self._ask)

    def _ask(self, *args: Any) -> None:
        self._asked = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves and requeues if a process got the signal."""
        if (batch_idx + 1) % self.every_n_steps and batch_idx + 1 < trainer.num_training_batches:
            return
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            self._asked = False
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, LastCheckpoint):
                    trainer.save_checkpoint(callback.format_checkpoint_name({}))
            if trainer.is_global_zero:
                _requeue()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the signal back."""
        if self._handler is not None:
            signal.signal(signal.SIGUSR1, self._handler)
            self._handler = None


def _requeue() -> None:
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
        rank_zero_info(f"the time is nearly up: last.ckpt is written, and job {job} is back in the queue")
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        rank_zero_warn(f"last.ckpt is written, but job {job} could not be put back into the queue: {reason}")
