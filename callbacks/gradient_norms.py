"""The size of the gradients, for each group of layers."""

from collections import defaultdict

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from preimage.checks import check_range


class GradientNorms(Callback):
    """Logs the norm of the gradient of each group of layers as `gradient_norm/GROUP`, before it is clipped.

    It looks at every `trainer.log_every_n_steps`-th step and reads all numbers off the device at once.
    """

    def __init__(self, depth: int = 2) -> None:
        """Sets how finely layers are told apart.

        Args:
            depth: Parameters whose names agree in this many parts are a group: with 2, `encoder.trunk.0.weight` is
                counted in `encoder.trunk`; with 1, in `encoder`.
        """
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
