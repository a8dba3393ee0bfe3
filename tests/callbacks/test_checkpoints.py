from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks import LastCheckpoint, RunLogger, StopOnNaN
from datamodules import MNISTDataModule
from lightning_modules import Autoencoder, MNISTDecoder, MNISTEncoder
from tests.lightning_modules.test_base import trainer


class Exploding(Autoencoder):
    """Its loss is what it is told to be, at one step."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(MNISTEncoder(), MNISTDecoder())
        self.step, self.value = step, value

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * self.value if self.global_step == self.step else loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_bad_step_is_named_and_no_checkpoint_made_of_it(tmp_path: Path, value: float) -> None:
    run = trainer(tmp_path, max_epochs=3, callbacks=[LastCheckpoint(), StopOnNaN()], logger=RunLogger(tmp_path))
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


class Interrupt(Callback):
    """Presses Ctrl-C in the middle of a step."""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        import signal

        if trainer.global_step == 5:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_waits_for_the_end_of_the_step(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=3, callbacks=[LastCheckpoint(), Interrupt()], logger=RunLogger(tmp_path))
    with pytest.raises(SystemExit):
        run.fit(Autoencoder(MNISTEncoder(), MNISTDecoder()), MNISTDataModule())
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 6
    steps = {int(state["step"]) for state in saved["optimizer_states"][0]["state"].values()}
    assert steps == {6}  # every parameter was updated


def test_the_last_state_is_kept_also_where_no_validation_came(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=3, check_val_every_n_epoch=2, callbacks=[LastCheckpoint()])
    run.fit(Autoencoder(MNISTEncoder(), MNISTDecoder()), MNISTDataModule())
    (path,) = tmp_path.rglob("last.ckpt")
    assert torch.load(path, weights_only=True)["global_step"] == 12
