"""Trainings that go wrong: the size of the gradients, and a loss that is no number."""

from collections import defaultdict
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from preimage.checks import check_range

_NONE = torch.iinfo(torch.long).max  # the step that no training gets to


class GradientNorms(Callback):
    """Logs the norm of the gradient of each group of layers as `gradient_norm/GROUP`, before it is clipped.

    It looks at every `trainer.log_every_n_steps`-th step and reads all numbers off the device at once.

    Args:
        depth: Parameters whose names agree in this many parts are a group: with 2, `encoder.trunk.0.weight` is
            counted in `encoder.trunk`; with 1, in `encoder`.
    """

    def __init__(self, depth: int = 2) -> None:
        check_range("GradientNorms", "[1, inf)", depth=depth)
        self.depth = depth

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Logs the norms if it is time."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or trainer.global_step % every:
            return
        groups: dict[str, list[Tensor]] = defaultdict(list)
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None:
                groups[".".join(name.split(".")[:-1][: self.depth]) or name].append(parameter.grad)
        norms = torch.stack([torch.nn.utils.get_total_norm(gradients) for gradients in groups.values()])
        values = {f"gradient_norm/{name}": norm for name, norm in zip(groups, norms.tolist(), strict=True)}
        for logger in trainer.loggers:
            logger.log_metrics(values | {"epoch": trainer.current_epoch}, step=trainer.global_step)


class StopOnNaN(Callback):
    """Stops the training at the first loss that is NaN or infinite, before a checkpoint is made of it.

    Args:
        every_n_steps: On a GPU and with several processes, look every n steps, since a look waits for the device
            and for the others; else it is every step. The step that is named is the first bad one either way.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        check_range("stop_on_nan", "[1, inf)", every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self._first_bad: Tensor | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes the first bad step, on the device."""
        if outputs is not None:
            loss = outputs["loss"]
            if self._first_bad is None:
                self._first_bad = torch.full((), _NONE, device=loss.device)
            here = self._first_bad.clamp(max=trainer.global_step)
            self._first_bad = torch.where(torch.isfinite(loss), self._first_bad, here)
        alone = trainer.world_size == 1 and pl_module.device.type == "cpu"
        if alone or (batch_idx + 1) % self.every_n_steps == 0:
            self.on_validation_start(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule, checkpoint: Any = None) -> None:
        """Looks before a validation, and before a checkpoint is written."""
        first = self._first_bad
        if first is None:
            first = torch.tensor(_NONE, device=trainer.strategy.root_device)
        if trainer.world_size > 1:  # all stop, or the others would wait for ever for the one that has
            first = trainer.strategy.reduce(first, reduce_op="min")
        if (step := int(first)) == _NONE:
            return
        self._first_bad = None
        good = [str(path) for c in trainer.checkpoint_callbacks if (path := getattr(c, "best_model_path", ""))]
        raise FloatingPointError(
            f"the training loss is NaN or infinite at step {step} (epoch {trainer.current_epoch});"
            f" last good checkpoint: {good[-1] if good else 'none yet'};"
            " try a lower learning rate or --trainer.gradient_clip_val 1"
        )

    on_save_checkpoint = on_validation_start
