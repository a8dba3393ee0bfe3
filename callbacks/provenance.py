"""Where a checkpoint comes from: how long it was trained, in which precision, by which code."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from preimage.files import git_commit

KEY = "provenance"


class Provenance(Callback):
    """Keeps the minutes of training, pictures included, the precision that was used and the commit in every checkpoint.

    A run that is resumed goes on counting. Lightning's Timer would do the first, but switches `trainer.max_time` off.
    """

    def __init__(self) -> None:
        """Starts at zero."""
        self._before = 0.0
        self._start = 0.0
        self._commit: str | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes the minutes that went before."""
        self._before = checkpoint.get(KEY, {}).get("minutes", 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._start = time.monotonic()
        self._commit = git_commit()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds what is known so far."""
        now = time.monotonic()
        minutes = self._before + (now - (self._start or now)) / 60  # a search saves, and loads again, before the start
        checkpoint[KEY] = {"minutes": minutes, "git_commit": self._commit, "precision": str(trainer.precision)}
