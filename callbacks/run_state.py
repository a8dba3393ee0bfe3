"""What a checkpoint needs besides weights and optimiser for a resumed run to end as if it had never stopped."""

import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torchmetrics import Metric

from preimage.loggers import RunLogger
from preimage.private_api import UPDATE_COUNT, can_stop_early, restore_loaders

KEY = "run_state"


class RunState(Callback):
    """Keeps random states, metrics and the length of `metrics.csv` in every checkpoint, and restores them.

    Random states and metrics are those of each process.
    """

    def __init__(self, stoppers: str = "") -> None:
        """Has nothing to restore yet.

        Args:
            stoppers: What may end the training early, as `runs.stoppers` says it.
        """
        self.stoppers = stoppers
        self._loaded: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the state, and marks a checkpoint that is made between two epochs as such."""
        own = {
            "random": _random_states(pl_module.device),
            "metrics": {name: _metric_state(metric) for name, metric in _metrics(pl_module) if metric.update_called},
            "logged": {key: float(value) for key, value in trainer.callback_metrics.items()},
        }
        processes = [own] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(processes, own)
        rows = [logger.rows() for logger in trainer.loggers if isinstance(logger, RunLogger) and trainer.is_global_zero]
        ended = trainer.should_stop and can_stop_early(trainer)
        checkpoint[KEY] = {"processes": processes, "rows": rows, "stopped": self.stoppers if ended else None}
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        if progress["total"]["started"] == progress["total"]["completed"]:
            for count in progress.values():  # an epoch that is announced and not begun is announced again
                count["ready"] = count["completed"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes the state, which is restored when all that draws random numbers before the training is done."""
        self._loaded = checkpoint.get(KEY)
        for callback in trainer.early_stopping_callbacks:  # whose patience is that of this start, as all settings are
            if state := checkpoint.get("callbacks", {}).get(callback.state_key):
                state["patience"] = callback.patience

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the rows of `metrics.csv` that a killed run wrote after the checkpoint."""
        if self._loaded is not None:
            loggers = [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
            for logger, rows in zip(loggers, self._loaded["rows"], strict=False):
                logger.keep(rows)

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


def _metrics(pl_module: LightningModule) -> Iterator[tuple[str, Metric]]:
    return ((name, part) for name, part in pl_module.named_modules() if isinstance(part, Metric))


def _metric_state(metric: Metric) -> dict[str, Any]:
    """A metric's sums so far."""
    return {**metric.metric_state, UPDATE_COUNT: metric.update_count}


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
