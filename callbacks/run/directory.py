"""The run directory: everything a run writes lies in one folder, and deleting the folder deletes the run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from preimage.files import clear_leftovers, write_atomically, write_json, write_text
from preimage.loggers import reporters, run_directory
from preimage.runs import Run

from .tuning import BatchSizeSearch, LearningRateSearch


class RunDirectory(Callback):
    """Writes `config.yaml` and `classes.json` when a run starts.

    Args:
        config: The resolved configuration, as YAML.
    """

    def __init__(self, config: str) -> None:
        self.config = config

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the files and removes a killed process's half ones; an evaluation leaves the training's config."""
        run_dir = run_directory(trainer)
        if run_dir is None:
            return
        clear_leftovers(run_dir)
        if stage == "fit" or not (run_dir / "config.yaml").exists():
            Run(run_dir).write_config(self.config)
        data = getattr(trainer, "datamodule", None)
        classes, bad = run_dir / "classes.json", getattr(data, "bad_images", None)
        if (names := getattr(data, "class_names", None)) is not None:
            if getattr(pl_module, "num_classes", None) is not None:
                _check_order(classes, names)
            if stage == "fit" or not classes.exists():
                write_json(classes, names)
        if bad:
            write_json(run_dir / "bad_images.json", bad)
        for reporter in reporters(trainer):
            reporter.log_config(self.config)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes what was searched in place of what was asked for, when the search is over."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        searches = [one for one in callbacks if isinstance(one, LearningRateSearch | BatchSizeSearch)]
        run_dir = run_directory(trainer)
        if searches and run_dir is not None:
            config = yaml.safe_load(self.config)
            for search in searches:
                search.record(trainer, config)
            write_text(run_dir / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the id of the W&B run, which a resumed run continues."""
        for reporter in reporters(trainer):
            if reporter.wandb_id is not None:
                checkpoint["wandb_id"] = reporter.wandb_id


class PredictionWriter(BasePredictionWriter):
    """Writes what `predict` returns, and file names, to `predictions.npz` in the run directory, in the data's order."""

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        """Joins the batches of every process, puts them in order and writes the arrays."""
        arrays: dict[str, Any] = {key: torch.cat([batch[key] for batch in predictions]).cpu() for key in predictions[0]}
        part = (torch.tensor([index for batch in batch_indices[0] for index in batch]), arrays)
        parts: list[Any] = [part] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(parts, part)
        run_dir = run_directory(trainer)
        if run_dir is None:
            return
        indices = torch.cat([indices for indices, _ in parts])
        order = indices.argsort()
        joined = {key: torch.cat([part[key] for _, part in parts])[order] for key in arrays}
        # numpy has no bfloat16, in which a module may have answered.
        arrays = {key: (value.float() if value.is_floating_point() else value).numpy() for key, value in joined.items()}
        names = getattr(getattr(getattr(trainer, "datamodule", None), "predict_set", None), "names", None)
        if names is not None:
            arrays["name"] = np.array(names)[indices[order].numpy()]
        write_atomically(run_dir / "predictions.npz", lambda file: np.savez(file, **arrays))
        shapes = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
        rank_zero_info(f"{run_dir / 'predictions.npz'}: {shapes}")


def _check_order(path: Path, names: list[str]) -> None:
    """Compares the order of the classes with that of the training, in which the model counts them.

    Raises:
        ValueError: The data has the same classes in another order.
    """
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        return
    if before != names and isinstance(before, list) and sorted(map(str, before)) == sorted(names):
        first = next(index for index, pair in enumerate(zip(before, names, strict=True)) if len(set(pair)) > 1)
        raise ValueError(
            f"class {first} is {before[first]} in {path} and {names[first]} in the data: train anew, or rename the"
            " classes so that they come in the order of that file"
        )
