"""What callbacks share that look, at the end of a split, at the outputs of all its steps."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_modules.networks.tokens import probe_vectors
from preimage.checks import check_range


class OutputCallback(Callback):
    """Base of callbacks that keep outputs of validation and test steps for the end of the split.

    Attributes:
        needs: Outputs (of a `StepOutput`) without which a step is left out.
        keeps: Outputs that are kept, as far as a step has them.
        count: Images that are kept of the whole split, spread evenly over it; None for all.
        pools: Whether codes are kept as the vectors of probes, of which tokens and maps need far less memory.
        every_rank: Whether all processes keep those of their share, and not the first alone.
        kept: What `collect` has kept of the split; empty at its first batch.

    Args:
        every_n_epochs: Look at every n-th epoch, and at the test; 0 for the test alone.
    """

    needs: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    count: int | None = None
    pools = False
    every_rank = False

    def __init__(self, every_n_epochs: int = 1) -> None:
        check_range(type(self).__name__, "[0, inf)", every_n_epochs=every_n_epochs)
        self.every_n_epochs = every_n_epochs
        self.kept: list[Any] = []

    def collect(self, trainer: Trainer, outputs: dict[str, Any], batch_idx: int) -> None:
        """Keeps what is needed of the outputs of one validation or test step, on the CPU."""
        if self.keeps and all(key in outputs for key in self.needs):
            if self.pools and "code" in outputs:
                vectors = getattr(trainer.lightning_module, "vectors", probe_vectors)
                outputs = outputs | {"code": vectors(outputs["code"])}
            chosen: Any = slice(None)
            if self.count is not None:
                chosen = self.pick(trainer, batch_idx, len(outputs[self.keeps[0]]), self.count)
            kept = {key: outputs[key][chosen].detach().cpu() for key in self.keeps if key in outputs}
            floats = {key: value.float() for key, value in kept.items() if value.is_floating_point()}
            self.kept.append(kept | floats)

    def look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes something of what was kept; called on every rank."""
        raise NotImplementedError

    def joined(self) -> dict[str, Tensor]:
        """What `collect` has kept, over the whole split; empty where that is nothing."""
        return {key: torch.cat([part[key] for part in self.kept]) for key in (self.kept or [{}])[0]}

    def pick(self, trainer: Trainer, batch_idx: int, size: int, count: int) -> Tensor:
        """Chooses images of a batch so that `count` are spread evenly over the split, the same at every epoch.

        The first ones would all be of one class where the images are sorted by class.

        Args:
            trainer: The trainer, which knows the number of batches.
            batch_idx: Index of the batch.
            size: Images in the batch.
            count: Images wanted of the whole split.

        Returns:
            Indices into the batch.
        """
        batches = int((trainer.num_test_batches if trainer.testing else trainer.num_val_batches)[0])
        share = min(size, count * (batch_idx + 1) // batches - count * batch_idx // batches)
        return (torch.arange(share) * size).div(max(share, 1), rounding_mode="floor")

    def due(self, trainer: Trainer) -> bool:
        """Whether this split is looked at."""
        if trainer.sanity_checking or trainer.testing:
            return bool(trainer.testing)
        return self.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Collects from a step."""
        if (trainer.is_global_zero or self.every_rank) and self.due(trainer) and isinstance(outputs, dict):
            if batch_idx == 0:
                self.kept = []
            self.collect(trainer, outputs, batch_idx)

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks, if it is time."""
        if self.due(trainer):
            self.look(trainer, pl_module)

    on_test_epoch_end = on_validation_epoch_end
