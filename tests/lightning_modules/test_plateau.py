"""A schedule that follows a metric: when it steps, and on what."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import QUICK, Fails, Run
from tests.preimage.test_cli import values

PLATEAU = [*QUICK, "--trainer.callbacks=null", "--trainer.limit_train_batches=2", "--model.optimizer.lr=1.0e-3"]
PLATEAU += ["--model.scheduler=lightning.pytorch.cli.ReduceLROnPlateau", "--model.scheduler.patience=0"]
PLATEAU += ["--model.scheduler.factor=0.5"]
PLATEAU += ["--model.scheduler.threshold=0.5", "--trainer.max_epochs=4", "--trainer.limit_val_batches=1"]


def state(runs: Path) -> dict[str, Any]:
    path = runs / "quickstart/version_0/checkpoints/last.ckpt"
    (schedule,) = torch.load(path, weights_only=True)["lr_schedulers"]
    return dict(schedule)


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        ([], 4),
        (["--trainer.check_val_every_n_epoch=2"], 2),
        (["--trainer.check_val_every_n_epoch=3"], 1),
        (["--trainer.val_check_interval=1"], 8),
        (["--trainer.val_check_interval=3", "--trainer.check_val_every_n_epoch=null"], 2),
        (["--trainer.check_val_every_n_epoch=2", "--trainer.accumulate_grad_batches=2"], 2),
        (["--model.scheduler.monitor=train/loss", "--trainer.check_val_every_n_epoch=2"], 4),
        (["--model.scheduler.monitor=train/loss", "--data.val_size=0"], 4),
    ],
)
def test_it_steps_when_what_it_follows_was_measured(run: Run, flags: list[str], steps: int) -> None:
    schedule = state(run("fit", *PLATEAU, "--model.scheduler.monitor=val/loss", *flags))
    assert schedule["last_epoch"] == steps
    assert schedule["num_bad_epochs"] == 0  # patience is 0: every look but the first has reduced the learning rate
    assert set(schedule["_last_lr"]) == {1e-3 * 0.5 ** (steps - 1)}


def test_it_follows_its_own_metric_in_its_direction_over_a_resumption(run: Run) -> None:
    flags = [*PLATEAU, "--model.scheduler.monitor=val/psnr", "--trainer.max_epochs=2"]
    schedule = state(runs := run("fit", *flags))
    assert schedule["mode"] == "max"
    assert schedule["best"] == pytest.approx(values(runs / "quickstart/version_0", "val/psnr")[0])
    run("fit", *flags, "--trainer.max_epochs=3", "--ckpt_path=last")
    assert state(runs)["last_epoch"] == 3


def test_torchs_own_follows_the_validation_loss(run: Run) -> None:
    flags = ["--model.scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau", "--trainer.max_epochs=1"]
    schedule = state(runs := run("fit", *PLATEAU, *flags))
    assert schedule["best"] == pytest.approx(values(runs / "quickstart/version_0", "val/loss")[0])


@pytest.mark.parametrize(
    ("flags", "culprit"),
    [
        (["--model.scheduler.monitor=val/loss", "--data.val_size=0"], "follows val/loss, and there is no validation"),
        (["--model.scheduler.monitor=val/loss", "--trainer.limit_val_batches=0"], "there is no validation"),
        (
            ["--model.scheduler.monitor=val/lost", "--model.scheduler.mode=min"],
            "monitor=val/lost is no metric",
        ),
        (["--model.scheduler.monitor=val/energy"], "ReduceLROnPlateau monitors val/energy"),
    ],
)
def test_what_it_cannot_follow_is_refused(fails: Fails, flags: list[str], culprit: str) -> None:
    assert culprit in fails("fit", *PLATEAU, *flags)
