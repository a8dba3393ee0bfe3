from typing import Any

import pytest
import torch
from torch import nn

from lightning_modules import OneCycle


@pytest.mark.parametrize(("total", "pct"), [(10, 0.3), (100, 0.3), (57, 0.25)])
def test_equals_torchs_one_cycle(total: int, pct: float) -> None:
    def adam() -> torch.optim.Optimizer:
        return torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.02)

    ours = OneCycle(adam(), pct_start=pct)
    ours.total_steps = total
    torchs = torch.optim.lr_scheduler.OneCycleLR(adam(), 0.02, total_steps=total, pct_start=pct, cycle_momentum=False)
    for _ in range(total - 1):
        assert ours.get_last_lr()[0] == pytest.approx(torchs.get_last_lr()[0], rel=1e-6)
        for schedule in (ours, torchs):
            schedule.optimizer.step()
            schedule.step()
    assert ours.get_last_lr()[0] == pytest.approx(0.02 / 25 / 1e4, rel=1e-6)


def test_keeps_the_ratio_between_parameter_groups() -> None:
    groups: list[dict[str, Any]] = [
        {"params": [nn.Parameter(torch.zeros(1))]},
        {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.001},
    ]
    schedule = OneCycle(torch.optim.SGD(groups, lr=0.1))
    schedule.total_steps = 20
    for _ in range(25):  # also past the end
        first, second = schedule.get_last_lr()
        assert first == pytest.approx(100 * second)
        schedule.optimizer.step()
        schedule.step()


def test_a_longer_training_that_goes_on_from_a_checkpoint_follows_its_own_length() -> None:
    def schedule(total: int) -> OneCycle:
        one_cycle = OneCycle(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1))
        one_cycle.total_steps = total
        return one_cycle

    def run(one_cycle: OneCycle, steps: int) -> None:
        for _ in range(steps):
            one_cycle.optimizer.step()
            one_cycle.step()

    short, resumed, long = schedule(10), schedule(40), schedule(40)
    run(short, 10)
    resumed.load_state_dict(short.state_dict())
    run(resumed, 5)
    run(long, 15)
    assert resumed.get_last_lr() == long.get_last_lr()
