"""Learning rate schedules that torch lacks."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from preimage.checks import check_range


class OneCycle(LRScheduler):
    """The 1cycle schedule over the whole training, stepped once per batch (Smith and Topin 2018, arXiv 1708.07120).

    The learning rate rises by a cosine from `lr / div_factor` to the optimiser's `lr` and falls by a cosine to
    `lr / div_factor / final_div_factor`. Unlike `torch.optim.lr_scheduler.OneCycleLR` it needs no number of steps in
    the config (the module sets `total_steps` from the trainer) and keeps the ratio between parameter groups.

    Args:
        optimizer: The optimiser; its learning rates are the peaks.
        pct_start: Share of the steps spent rising, in (0, 1).
        div_factor: The first learning rate is the peak divided by this.
        final_div_factor: The last learning rate is the first divided by this.
    """

    interval = "step"

    def __init__(
        self, optimizer: Optimizer, pct_start: float = 0.3, div_factor: float = 25.0, final_div_factor: float = 1e4
    ) -> None:
        check_range("OneCycle", "(0, 1)", pct_start=pct_start)
        check_range("OneCycle", "(0, inf)", div_factor=div_factor, final_div_factor=final_div_factor)
        self.pct_start = pct_start
        self.start = 1 / div_factor
        self.end = self.start / final_div_factor
        self.total_steps = 2
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The learning rate of each parameter group at the present step."""
        return [float(lr) * self._factor(self.last_epoch) for lr in self.base_lrs]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on at the saved step; the number of steps stays that of this training, which may be a longer one."""
        super().load_state_dict(state_dict | {"total_steps": self.total_steps})

    def _factor(self, step: int) -> float:
        if step == 0:  # asked for by the constructor, before the number of steps is known
            return self.start
        peak, last = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if step <= peak:
            return _cosine(self.start, 1.0, step / peak)
        return _cosine(1.0, self.end, (min(step, last) - peak) / (last - peak))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
