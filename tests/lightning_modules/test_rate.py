"""Bits of a code, as the test of each system measures them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from datamodules import MNISTDataModule
from lightning_modules import (
    FSQ,
    VAE,
    Autoencoder,
    Inversion,
    MNISTDecoder,
    MNISTEncoder,
    MNISTGaussianEncoder,
    OptimizationInversion,
)
from lightning_modules.metrics import CodeEntropy
from tests.conftest import QUICK, Run
from tests.lightning_modules.test_base import trainer
from tests.preimage.test_cli import values


def test_the_entropy_of_codes_is_scipys_and_that_of_one_level_is_none() -> None:
    generator = np.random.default_rng(0)
    indices = np.stack([generator.binomial(7, p, 300) for p in (0.1, 0.5, 0.9)] + [np.full(300, 3)], axis=1)
    metric = CodeEntropy()
    for part in torch.from_numpy(indices).split(128):
        metric.update(part)
    expected = [entropy(np.bincount(column), base=2) for column in indices.T]
    measured = {name: float(value) for name, value in metric.compute().items()}
    assert measured["code_entropy"] == pytest.approx(sum(expected), rel=1e-5)
    assert measured["used_levels"] == pytest.approx(np.mean(np.exp2(expected)), rel=1e-5)
    assert expected[3] == 0


def test_bits_of_an_autoencoder_are_32_a_number_or_the_logarithm_of_its_codes(tmp_path: Path) -> None:
    data = MNISTDataModule(batch_size=300)
    (plain,) = trainer(tmp_path).test(Autoencoder(MNISTEncoder(), MNISTDecoder()), data, verbose=False)
    assert plain["test/bits_per_image"] == 12 * 32
    assert "test/code_entropy" not in plain
    model = Autoencoder(MNISTEncoder(5), MNISTDecoder(5), quantizer=FSQ(5, levels=6))
    model.encode(torch.rand(99, 1, 28, 28))  # which gives the batch norm something to go by
    (measured,) = trainer(tmp_path, limit_test_batches=1.0).test(model, data, verbose=False)
    assert measured["test/bits_per_image"] == pytest.approx(math.log2(6**5), rel=1e-6)
    with torch.no_grad():
        codes = model.eval().encode(data.test_set.images.float() / 255).numpy()
    assert measured["test/code_entropy"] == pytest.approx(
        sum(entropy(np.unique(column.round(4), return_counts=True)[1], base=2) for column in codes.T), rel=1e-4
    )


def test_bits_of_a_vae_are_its_divergence_and_pay_for_a_drawn_code(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data, model = MNISTDataModule(batch_size=300), VAE(MNISTGaussianEncoder(4), MNISTDecoder(4), latent_dim=4)
    (measured,) = trainer(tmp_path, limit_test_batches=1.0).test(model, data, verbose=False)
    images = data.test_set.images.float() / 255
    with torch.no_grad():
        mean, log_variance = model.eval().encoder.posterior(images)
        posterior = Normal(mean, (0.5 * log_variance).exp())
        kl = kl_divergence(posterior, Normal(torch.zeros(4), torch.ones(4))).sum(dim=1).mean()
        errors = [float(F.mse_loss(model.decode(posterior.sample()), images)) for _ in range(5)]
    assert measured["test/bits_per_image"] == pytest.approx(float(kl) / math.log(2), rel=1e-4)
    assert measured["test/mse_drawn"] == pytest.approx(np.mean(errors), rel=0.01)
    assert measured["test/mse_drawn"] > measured["test/mse"] or max(errors) < measured["test/mse"]


@pytest.mark.parametrize("cached", [False, True])
def test_an_inversion_reads_levels_and_measures_the_features_before_them(tmp_path: Path, cached: bool) -> None:
    torch.manual_seed(0)
    quantizer = FSQ(12, levels=3, features=7)
    model = Inversion(MNISTEncoder(), MNISTDecoder(7), None, True, quantizer=quantizer, cache_codes=cached)
    data = MNISTDataModule(num_labels=100, cache_dir=str(tmp_path))
    before = quantizer.project.weight.clone()  # type: ignore[operator]
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, data)
    assert not torch.equal(before, quantizer.project.weight)  # type: ignore[arg-type]  # learned behind a frozen encoder
    assert float(run.callback_metrics["val/used_levels"]) > 1
    (measured,) = trainer(tmp_path, limit_test_batches=1.0).test(model, data, verbose=False)
    assert measured["test/bits_per_image"] == pytest.approx(7 * math.log2(3), rel=1e-6)
    images = data.test_set.images.float() / 255
    with torch.no_grad():
        code, features = model.eval().encode(images), model.encoder(images)
        standard = (features - model.code_mean) / model.code_std
        assert code.equal(quantizer(standard))
        again = model.encoder(model.decoder(code))
    assert measured["test/feature_error"] == pytest.approx(
        float(((again - features).norm(dim=1) / features.norm(dim=1)).mean()), rel=1e-4
    )


def test_a_checkpoint_alone_rebuilds_the_quantiser_and_one_flag_says_the_length(run: Run) -> None:
    flags = ["--model.quantizer=FSQ", "--model.quantizer.levels=4", "--model.encoder.latent_dim=5"]
    folder = run("fit", *QUICK, *flags, "--trainer.callbacks=null", "--test_after_fit") / "quickstart/version_0"
    assert values(folder, "test/bits_per_image") == [10.0]
    model = Autoencoder.load_from_checkpoint(folder / "checkpoints/last.ckpt", weights_only=True).eval()
    assert set(model.encode(torch.rand(50, 1, 28, 28)).mul(1.5).add(1.5).unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    assert float(model.quantizer.normalize.running_var.mean()) != 1  # type: ignore[union-attr,operator]


def test_systems_without_levels_say_so() -> None:
    with pytest.raises(ValueError, match=r"model\.quantizer: a VAE draws its codes"):
        VAE(MNISTGaussianEncoder(4), MNISTDecoder(4), latent_dim=4, quantizer=FSQ(4))
    with pytest.raises(ValueError, match=r"model\.quantizer: a search for an image reads no quantised code"):
        OptimizationInversion(MNISTEncoder(), quantizer=FSQ())
