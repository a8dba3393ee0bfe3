"""What a checkpoint holds besides weights and optimiser: what a resumed run needs, and where the file comes from."""

import random
import time
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torchmetrics import Metric

from preimage.files import git_commit
from preimage.loggers import run_logger
from preimage.private_api import UPDATE_COUNT, can_stop_early, restore_loaders

_STATE = "run_state"
PROVENANCE = "provenance"


class RunState(Callback):
    """Keeps random states, metrics and the length of `metrics.csv` in every checkpoint, and restores them.

    A resumed run then ends as if it had never stopped. Random states and metrics are those of each process.

    Args:
        stoppers: What may end the training early, as `runs.stoppers` says it.
    """

    def __init__(self, stoppers: str = "") -> None:
        self.stoppers = stoppers
        self._loaded: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the state, and marks a checkpoint that is made between two epochs as such."""
        own = {
            "random": _random_states(pl_module.device),
            "metrics": {
                name: {**metric.metric_state, UPDATE_COUNT: metric.update_count}
                for name, metric in _metrics(pl_module)
                if metric.update_called
            },
            "logged": {key: float(value) for key, value in trainer.callback_metrics.items()},
        }
        processes = [own] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(processes, own)
        logger = run_logger(trainer)
        rows = [logger.rows()] if logger is not None and trainer.is_global_zero else []
        ended = trainer.should_stop and can_stop_early(trainer)
        checkpoint[_STATE] = {"processes": processes, "rows": rows, "stopped": self.stoppers if ended else None}
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        if progress["total"]["started"] == progress["total"]["completed"]:
            for count in progress.values():  # an epoch that is announced and not begun is announced again
                count["ready"] = count["completed"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes the state, which is restored when all that draws random numbers before the training is done."""
        self._loaded = checkpoint.get(_STATE)
        for callback in trainer.early_stopping_callbacks:  # whose patience is that of this start, as all settings are
            if state := checkpoint.get("callbacks", {}).get(callback.state_key):
                state["patience"] = callback.patience

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the rows of `metrics.csv` that a killed run wrote after the checkpoint."""
        logger = run_logger(trainer)
        if self._loaded is not None and self._loaded["rows"] and logger is not None:
            logger.keep(self._loaded["rows"][0])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores random states and metrics."""
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        restore_loaders(trainer)
        loop = trainer.fit_loop
        progress = loop.epoch_progress.total
        if progress.ready == progress.completed:
            loop.epoch_loop.restarting = False  # with max_steps, Lightning takes every start for one within an epoch
        if len(loaded["processes"]) != trainer.world_size:
            rank_zero_warn(
                f"the checkpoint is of {len(loaded['processes'])} processes, this run has {trainer.world_size}:"
                " it goes on, but with other random numbers"
            )
            return
        own = loaded["processes"][trainer.global_rank]
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in own["logged"].items()})
        for name, metric in _metrics(pl_module):
            for key, value in own["metrics"].get(name, {}).items():
                setattr(metric, key, deepcopy(value))  # metrics of one compute group share theirs in the file
            metric.to(pl_module.device)
        _restore_random_states(own["random"], pl_module.device)


class Provenance(Callback):
    """Keeps the minutes of training, pictures included, the precision that was used and the commit in every checkpoint.

    A run that is resumed goes on counting. Lightning's Timer would do the first, but switches `trainer.max_time` off.
    """

    def __init__(self) -> None:
        self._before = 0.0
        self._start = 0.0
        self._commit: str | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes the minutes that went before."""
        self._before = checkpoint.get(PROVENANCE, {}).get("minutes", 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._start = time.monotonic()
        self._commit = git_commit()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds what is known so far."""
        now = time.monotonic()
        minutes = self._before + (now - (self._start or now)) / 60  # a search saves, and loads again, before the start
        checkpoint[PROVENANCE] = {"minutes": minutes, "git_commit": self._commit, "precision": str(trainer.precision)}


def _metrics(pl_module: LightningModule) -> Iterator[tuple[str, Metric]]:
    return ((name, part) for name, part in pl_module.named_modules() if isinstance(part, Metric))


def _random_states(device: torch.device) -> dict[str, Any]:
    name, keys, *rest = np.random.get_state(legacy=True)
    numpy = name, np.asarray(keys).tolist(), *rest  # plain, for a file that loads under weights_only
    states = {"python": random.getstate(), "numpy": numpy, "torch": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
