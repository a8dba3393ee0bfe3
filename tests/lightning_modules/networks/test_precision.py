"""Every system in every precision that weights may have: what goes in, what is computed from what comes out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from datamodules import MNISTDataModule
from lightning_modules import Autoencoder, MNISTDecoder, MNISTEncoder
from tests.conftest import QUICK, Run
from tests.lightning_modules.test_base import trainer
from tests.preimage.test_cli import values

ENCODER = ["--model.encoder=MNISTEncoder", "--model.encoder.latent_dim=3"]
DECODER = ["--model.decoder=MNISTDecoder", "--model.decoder.latent_dim=3"]
VAE = ["--model=VAE", "--model.encoder=MNISTGaussianEncoder", "--model.encoder.latent_dim=3", "--model.latent_dim=3"]
MODELS = {
    "Autoencoder": ["--model=Autoencoder", *ENCODER, *DECODER],
    "VAE": [*VAE, *DECODER, "--model.num_importance_samples=2", "--model.likelihood=gaussian"],
    "Classifier": ["--model=Classifier", "--model.encoder=MNISTEncoder", "--model.head=MLPHead"],
    "ClassifierReconstructor": [
        "--model=ClassifierReconstructor", "--model.num_classes=10", "--model.latent_dim=3", *ENCODER, *DECODER,
    ],
    "Inversion": [
        "--model=Inversion", "--model.encoder_checkpoint=null", "--model.standardize=true", *ENCODER, *DECODER,
    ],
}  # fmt: skip
DTYPES = {"16-true": torch.float16, "bf16-true": torch.bfloat16, "64-true": torch.float64}


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        ("Autoencoder", "16-true"),
        ("VAE", "64-true"),
        *(pytest.param(model, "bf16-true", marks=pytest.mark.slow) for model in MODELS),
    ],
)
def test_every_command_works_in_every_precision(run: Run, model: str, precision: str) -> None:
    flags = [*QUICK, f"--trainer.precision={precision}", "--cpu_precision.force=true", "--trainer.callbacks=null"]
    flags += [*MODELS[model], "--trainer.limit_test_batches=1", "--trainer.limit_predict_batches=1"]
    flags += ["--trainer.callbacks+=ReconstructionGrid", "--trainer.callbacks+=LatentProjection"]
    run_dir = run("fit", *flags, "--test_after_fit") / "quickstart/version_0"
    weights = torch.load(run_dir / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert {value.dtype for name, value in weights.items() if "encoder." in name} == {DTYPES[precision]}
    loss = values(run_dir, "test/loss")
    run("validate", *flags, "--ckpt_path=best")
    run("predict", *flags, "--ckpt_path=best")
    assert np.isfinite(np.load(run_dir / "predictions.npz")["code"]).all()
    run("test", *flags, "--ckpt_path=best", "--trainer.precision=32-true")  # the same metrics, summed in as many digits
    assert values(run_dir, "test/loss") == pytest.approx(loss * 2, rel=0.05)


def test_metrics_do_not_lose_what_they_count(tmp_path: Path) -> None:
    model, data = Autoencoder(MNISTEncoder(), MNISTDecoder()), MNISTDataModule(dataset="digits5k", batch_size=16)
    run: Trainer = trainer(tmp_path, precision="bf16-true", limit_val_batches=1.0)
    run.fit(model, data)
    sums: Any = model.val_metrics["mse"]._defaults.values()
    assert {value.dtype for value in sums} == {torch.float32, torch.int64}
    images = data.val_set.images.float() / 255
    with torch.no_grad():
        expected = (model.float()(images) - images).square().mean()
    assert float(run.callback_metrics["val/mse"]) == pytest.approx(float(expected), rel=1e-3)


def test_lbfgs_trains(run: Run) -> None:
    flags: list[Any] = ["--model.optimizer=torch.optim.LBFGS", "--model.optimizer.max_iter=3", "--trainer.max_epochs=2"]
    run_dir = run("fit", *QUICK, *flags, "--model.scheduler=null", "--test_after_fit") / "quickstart/version_0"
    loss = values(run_dir, "val/loss")
    assert loss[-1] < loss[0]


def test_a_checkpoint_with_the_encoder_in_a_group_of_its_own_goes_on(run: Run) -> None:
    """As they were written before one group was made where one is enough."""
    path = run("fit", *QUICK, "--model.encoder_lr=0.008") / "quickstart/version_0/checkpoints/last.ckpt"
    (state,) = torch.load(path, weights_only=True)["optimizer_states"]
    assert len(state["param_groups"]) == 2
    run("fit", *QUICK, "--trainer.max_epochs=2", f"--ckpt_path={path}")
    (after,) = torch.load(path, weights_only=True)["optimizer_states"]
    assert len(after["param_groups"]) == 1
    assert {float(value["step"]) for value in after["state"].values()} == {6.0}
    assert after["state"].keys() == state["state"].keys()
