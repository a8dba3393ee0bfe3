import errno
import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks import AtomicCheckpointIO, LastCheckpoint, StopOnNaN
from datamodules import MNISTDataModule
from lightning_modules import Autoencoder, MNISTDecoder, MNISTEncoder
from lightning_modules.checkpoints import load_checkpoint
from preimage.loggers import RunLogger
from tests.lightning_modules.test_base import trainer

SLURM = {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"}
SLURM |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1"}
SLURM |= {"SLURM_NODELIST": "localhost"}


class Exploding(Autoencoder):
    """Its loss is what it is told to be, at one step."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(MNISTEncoder(), MNISTDecoder())
        self.step, self.value = step, value

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * self.value if self.global_step == self.step else loss


@pytest.mark.parametrize(("value", "precision"), [(float("nan"), None), (float("inf"), None), (1e39, "bf16-mixed")])
def test_the_first_bad_step_is_named_and_no_checkpoint_made_of_it(
    tmp_path: Path, value: float, precision: str | None
) -> None:
    options = {"callbacks": [LastCheckpoint(), StopOnNaN()], "logger": RunLogger(tmp_path), "precision": precision}
    run = trainer(tmp_path, max_epochs=3, **options)
    with pytest.raises(FloatingPointError, match=r"at step 7 \(epoch 1\).*last\.ckpt"):
        run.fit(Exploding(6, value), MNISTDataModule())
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())


def test_a_bad_loss_that_was_only_noted_on_the_device_stops_a_checkpoint(tmp_path: Path) -> None:
    guard = StopOnNaN()
    guard._first_bad = torch.tensor(3)  # as on a GPU, between two looks
    run = trainer(tmp_path, callbacks=[guard])
    with pytest.raises(FloatingPointError, match="at step 3"):
        guard.on_save_checkpoint(run, Autoencoder(MNISTEncoder(), MNISTDecoder()), {})


class Signals(Callback):
    """Sends itself signals in the middle of a step."""

    def __init__(self, step: int, *numbers: int) -> None:
        self.step, self.numbers = step, numbers

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if trainer.global_step == self.step:
            for number in self.numbers:
                signal.raise_signal(number)


def fit_with(tmp_path: Path, *callbacks: Callback) -> tuple[int, dict[str, Any]]:
    """Trains until something happens: the exit code, and the checkpoint that is left."""
    run = trainer(tmp_path, max_epochs=3, callbacks=[LastCheckpoint(), *callbacks], logger=RunLogger(tmp_path))
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with pytest.raises(SystemExit) as stop:
        run.fit(Autoencoder(MNISTEncoder(), MNISTDecoder()), MNISTDataModule())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which Lightning leaves ignored
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before
    assert isinstance(stop.value.code, int)
    return stop.value.code, torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_end_of_the_step(
    tmp_path: Path, number: int, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    found, saved = fit_with(tmp_path, Signals(5, number))
    assert found == code
    assert saved["global_step"] == 6
    steps = {int(state["step"]) for state in saved["optimizer_states"][0]["state"].values()}
    assert steps == {6}  # every parameter was updated
    assert f"at step 6, saved at step 6; to resume, add: --ckpt_path {tmp_path}/checkpoints/last.ckpt" in caplog.text


def test_a_signal_in_the_last_step_of_an_epoch_waits_for_its_validation(tmp_path: Path) -> None:
    steps = []

    class Validated(Callback):
        def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            steps.append(trainer.global_step)

    _, saved = fit_with(tmp_path, Signals(7, signal.SIGTERM), Validated())
    assert saved["global_step"] == 8
    assert steps[-1] == 8


def test_a_second_signal_ends_at_once_and_saves_no_half_made_update(tmp_path: Path) -> None:
    code, saved = fit_with(tmp_path, Signals(5, signal.SIGINT, signal.SIGINT))
    assert code == 1
    assert saved["global_step"] == 4  # of the epoch before


def test_slurm_requeues_after_the_end_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    for key, value in SLURM.items():
        monkeypatch.setenv(key, value)
    code, saved = fit_with(tmp_path, Signals(5, signal.SIGUSR1))
    assert code == 128 + signal.SIGUSR1
    assert saved["global_step"] == 6
    assert (tmp_path / "called").read_text() == "requeue 77\n"
    assert not list(tmp_path.rglob("hpc_ckpt*"))  # which another run would take for its own


@pytest.mark.parametrize(("seconds", "steps"), [(0.001, 50), (0.125, 8), (3.0, 1)])
def test_processes_ask_each_other_for_signals_about_once_a_second(
    monkeypatch: pytest.MonkeyPatch, seconds: float, steps: int
) -> None:
    two, asked, other = MagicMock(world_size=2, is_last_batch=False, global_step=0), [], 0
    two.fit_loop.epoch_loop._should_check_val_fx.return_value = False
    two.strategy.root_device = torch.device("cpu")

    def reduce(given: Tensor, reduce_op: str) -> Tensor:
        asked.append(two.global_step)
        return given.maximum(torch.tensor([other, 0, 0]))

    two.strategy.reduce = reduce
    callback, model = LastCheckpoint(), Autoencoder(MNISTEncoder(), MNISTDecoder())
    monkeypatch.setattr("callbacks.run.checkpoints.time.monotonic", lambda: two.global_step * seconds)
    monkeypatch.setattr("callbacks.run.checkpoints.signal.signal", lambda *args: None)
    callback.on_train_start(two, model)
    for two.global_step in range(1, 202):
        callback.on_train_batch_end(two)
    assert set(np.diff(asked)) == {steps}
    other = signal.SIGTERM  # which this process did not get
    with pytest.raises(SystemExit):
        for two.global_step in range(202, 202 + steps):
            callback.on_train_batch_end(two)


@pytest.mark.parametrize("place", ["os.fsync", "torch.save"])
def test_killed_while_writing_the_previous_one_still_loads(tmp_path: Path, place: str) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"a": torch.ones(3)}}, path)

    def child() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, lambda *args: os.kill(os.getpid(), signal.SIGKILL))
            AtomicCheckpointIO().save_checkpoint({"state_dict": {"a": torch.zeros(3)}}, path)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert load_checkpoint(path)["state_dict"]["a"].equal(torch.ones(3))


def test_the_last_state_is_kept_also_where_no_validation_came(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=3, check_val_every_n_epoch=2, callbacks=[LastCheckpoint()])
    run.fit(Autoencoder(MNISTEncoder(), MNISTDecoder()), MNISTDataModule())
    (path,) = tmp_path.rglob("last.ckpt")
    assert torch.load(path, weights_only=True)["global_step"] == 12


def test_only_a_checkpoint_that_was_there_is_said_to_be_still_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "last.ckpt"
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"last\.ckpt could not be written \(No space left on device\), make room on"):
        AtomicCheckpointIO().save_checkpoint({}, path)
    path.write_text("good")
    with pytest.raises(OSError, match=r"what it held before is still good: make room .* with --ckpt_path last"):
        AtomicCheckpointIO().save_checkpoint({}, path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert path.read_text() == "good"
