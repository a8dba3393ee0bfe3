import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import PLAIN, Run

RATE = [
    "--trainer.callbacks+=LearningRateFinder",
    "--trainer.callbacks.num_training_steps=20",
]
RATE += ["--trainer.limit_train_batches=20", "--trainer.max_epochs=1"]
SIZE = [
    "--trainer.callbacks+=BatchSizeFinder",
    "--trainer.callbacks.max_trials=3",
]
SIZE += ["--trainer.limit_train_batches=1.0", "--data.num_labels=80"]  # 10 steps of 8


def recorded(folder: Path) -> tuple[float, int]:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    return config["model"]["init_args"]["optimizer"]["init_args"]["lr"], config["data"]["init_args"]["batch_size"]


def schedule(folder: Path) -> dict[str, float]:
    (state,) = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["lr_schedulers"]
    return dict(state)


def minutes(folder: Path) -> float:
    provenance = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["provenance"]
    return float(provenance["minutes"])


def test_the_learning_rate_that_was_found_is_used_and_recorded(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    start = time.monotonic()
    with caplog.at_level("INFO"):
        folder = run("fit", *PLAIN, *RATE, "--test_after_fit") / "quickstart/version_0"
    assert 0 < minutes(folder) < (time.monotonic() - start) / 60
    lr, size = recorded(folder)
    assert lr not in (0.008, 1e-3)
    assert size == 32
    assert schedule(folder)["base_lrs"] == [lr]
    assert f"learning rate {lr:g} (OneCycle)" in caplog.text
    assert not list(folder.parent.parent.glob(".lr_find*"))
    caplog.clear()
    run("fit", *PLAIN, *RATE, "--trainer.max_epochs=2", "--ckpt_path=last")  # does not search again
    assert "Learning rate set" not in caplog.text
    assert recorded(folder)[0] == lr
    assert schedule(folder)["base_lrs"] == [lr]


def test_the_batch_size_that_was_found_is_used_and_recorded(run: Run) -> None:
    start = time.monotonic()
    folder = run("fit", *PLAIN, *SIZE, "--test_after_fit") / "quickstart/version_0"
    assert 0 < minutes(folder) < (time.monotonic() - start) / 60
    assert recorded(folder) == (0.008, 8)
    assert schedule(folder)["total_steps"] == schedule(folder)["last_epoch"] == 10
    run("fit", *PLAIN, *SIZE, "--trainer.max_epochs=2", "--ckpt_path=last")
    assert recorded(folder) == (0.008, 8)
    assert schedule(folder)["last_epoch"] == 20
