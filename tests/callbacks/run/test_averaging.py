"""Averages of weights: they are what is validated, kept and tested, and a resumed run goes on averaging."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from datamodules import MNISTDataModule
from lightning_modules import Autoencoder, MNISTDecoder, MNISTEncoder
from tests.conftest import PLAIN, Fails, Run
from tests.preimage.test_cli import values, weights
from tests.test_resume import same


class NormalizedEncoder(nn.Sequential):
    """An encoder whose batch norm has statistics to renew, and a buffer that is no number to average."""

    def __init__(self) -> None:
        super().__init__(nn.BatchNorm2d(1), MNISTEncoder())
        self.register_buffer("hash", torch.tensor([7, 255], dtype=torch.uint8))


class Witness(Callback):
    """Keeps the weights of every step in a file."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"{trainer.global_step}.pt")


SWA = ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.001"]
SWA += ["--trainer.callbacks.swa_epoch_start=2"]
EMA = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.5"]
LATE_EMA = [*EMA, "--trainer.callbacks.update_starting_at_step=5"]
MEAN = ["--trainer.callbacks+=WeightAveraging"]
OTHERS = [pytest.param(kind, marks=pytest.mark.slow) for kind in (LATE_EMA, MEAN)]
KINDS = pytest.mark.parametrize("kind", [SWA, EMA, *OTHERS], ids=["swa", "ema", "late_ema", "mean"])


def fit(run: Run, kind: list[str], folder: Path, *flags: object) -> Path:
    folder.mkdir(exist_ok=True)
    given = [*PLAIN, "--model.encoder=tests.callbacks.run.test_averaging.NormalizedEncoder", "--trainer.max_epochs=3"]
    given += ["--trainer.callbacks+=tests.callbacks.run.test_averaging.Witness"]
    given += [f"--trainer.callbacks.folder={folder}", "--trainer.limit_train_batches=2", "--data.batch_size=256"]
    return run("fit", *given, *kind, "--run_dir", folder / "run", *flags) / folder / "run"


def averaged(kind: list[str], folder: Path) -> dict[str, Tensor]:
    """The average of three epochs of two steps by its definition."""
    steps = [torch.load(folder / f"{step}.pt", weights_only=True) for step in range(1, 7)]
    chosen = {"swa": steps[3::2], "mean": steps, "ema": steps, "late": steps[5:]}[
        "swa" if kind is SWA else "mean" if kind is MEAN else "ema" if kind is EMA else "late"
    ]
    average = chosen[0]
    for count, step in enumerate(chosen[1:], start=1):
        rate = 0.5 if kind is EMA else 1 / (count + 1)
        average = {name: value + rate * (step[name] - value) for name, value in average.items()}
    return average


@KINDS
def test_the_average_is_validated_kept_and_tested(run: Run, tmp_path: Path, kind: list[str]) -> None:
    folder = fit(run, kind, tmp_path / "whole", "--test_after_fit")
    assert "Unable" not in (folder / "config.yaml").read_text()  # to write a device
    expected = averaged(kind, tmp_path / "whole")
    last, best = weights(folder / "checkpoints/last.ckpt"), weights(folder / "checkpoints/best.ckpt")
    for name, value in expected.items():
        if not name.startswith("encoder.0.") and name != "encoder.hash":
            assert torch.allclose(last[name], value, atol=1e-6), name
    assert last["encoder.hash"].tolist() == [7, 255]

    model, data = (
        Autoencoder(NormalizedEncoder(), MNISTDecoder()).eval(),
        MNISTDataModule(dataset="digits5k", val_size=64),
    )
    data.setup("fit")
    for state, images, key, place in ((last, data.val_set, "val/mse", -1), (best, data.test_set, "test/mse", 0)):
        model.load_state_dict(state)
        with torch.no_grad():
            mse = (model(images.images / 255) - images.images / 255).square().mean()
        assert values(folder, key)[place] == pytest.approx(float(mse), rel=1e-4)


def test_the_statistics_are_those_of_the_averaged_network(run: Run, tmp_path: Path) -> None:
    """Here of the images themselves, which come first."""
    short = ["--trainer.max_epochs=2", "--trainer.limit_val_batches=1"]
    folder = fit(run, SWA, tmp_path / "whole", "--trainer.limit_train_batches=1.0", "--data.val_size=3000", *short)
    data = MNISTDataModule(dataset="digits5k", val_size=3000, batch_size=256)
    data.setup("fit")
    mean = weights(folder / "checkpoints/last.ckpt")["encoder.0.running_mean"]
    assert float(mean) == pytest.approx(float(data.train_set.images.float().mean() / 255), rel=1e-3)


@KINDS
def test_a_resumed_run_averages_as_one_that_was_not_stopped(run: Run, tmp_path: Path, kind: list[str]) -> None:
    constant = ["--model.scheduler=null", "--data.batch_size=32"]  # a schedule would follow trainer.max_epochs
    whole = fit(run, kind, tmp_path / "whole", *constant, "--trainer.max_epochs=4")
    fit(run, kind, tmp_path / "resumed", *constant, "--trainer.max_epochs=2")
    resumed = fit(run, kind, tmp_path / "resumed", *constant, "--trainer.max_epochs=4", "--ckpt_path=last")
    for name in ("best", "last"):
        first, second = (torch.load(one / f"checkpoints/{name}.ckpt", weights_only=True) for one in (whole, resumed))
        keys = ["state_dict", "optimizer_states", "lr_schedulers", "global_step"]
        for key in [*keys, *({"current_model_state", "averaging_state"} & first.keys())]:
            assert same(first[key], second[key]), f"{name}.ckpt: {key}"


def test_two_averages_at_a_time_are_refused(fails: Fails) -> None:
    flags = ["--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks+=WeightAveraging"]
    assert "one average of weights at a time" in fails("fit", *PLAIN, *flags)
