"""Keeps what `predict` computes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from preimage.files import write_atomically
from preimage.loggers import run_directory


class PredictionWriter(BasePredictionWriter):
    """Writes what `predict` returns, and file names, to `predictions.npz` in the run directory, in the data's order."""

    def __init__(self) -> None:
        """Writes once, at the end."""
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
