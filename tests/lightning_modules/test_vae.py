import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from datamodules import MNISTDataModule
from lightning_modules import VAE, MNISTDecoder, MNISTEncoder, MNISTGaussianEncoder, SigmoidDecoder
from lightning_modules.metrics import ActiveUnits
from tests.conftest import QUICK, Run
from tests.lightning_modules.test_base import trainer
from tests.preimage.test_cli import values


def vae(**kwargs: Any) -> VAE:
    torch.manual_seed(0)
    return VAE(MNISTGaussianEncoder(4), MNISTDecoder(4), latent_dim=4, **kwargs)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(1)).round(), torch.zeros(6).long()


def reference(model: VAE, images: Tensor, samples: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-likelihoods, log-prior, log-posterior `(samples, B)` of the codes that a step draws, and the KL `(B,)`."""
    mean, log_variance = model.encoder.posterior(images)
    posterior = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mean), 1.0), 1)
    codes = mean + (0.5 * log_variance).exp() * torch.randn(samples, *mean.shape)
    likelihoods = []
    for code in codes:
        image = model.decoder(code)
        deviation = math.exp(0.5 * float(model.pixel_log_variance))
        pixels: Any = Bernoulli(image) if model.likelihood == "bernoulli" else Normal(image, deviation)
        likelihoods.append(Independent(pixels, 3).log_prob(images))
    return torch.stack(likelihoods), prior.log_prob(codes), posterior.log_prob(codes), kl_divergence(posterior, prior)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("samples", [1, 5])
def test_the_loss_is_the_negative_elbo_per_image_in_nats(
    batch: tuple[Tensor, Tensor], likelihood: str, samples: int
) -> None:
    model = vae(likelihood=likelihood, variance=0.05, num_samples=samples)
    torch.manual_seed(7)
    loss = model.training_step(batch, 0)
    torch.manual_seed(7)
    log_likelihood, _, _, kl = reference(model, batch[0], samples)
    # Averaged over the samples' losses: the loss of the averaged reconstructions would be another number.
    assert loss.item() == pytest.approx(-(log_likelihood.mean(dim=0) - kl).mean().item(), rel=1e-5)
    values = {key: float(value) for key, value in model.train_metrics.compute().items()}
    assert values["train/reconstruction"] == pytest.approx(-log_likelihood.mean().item(), rel=1e-5)
    assert values["train/kl"] == pytest.approx(kl.mean().item(), rel=1e-4)
    assert values["train/elbo"] == pytest.approx(-loss.item(), rel=1e-5)


def test_the_importance_weighted_bound(batch: tuple[Tensor, Tensor]) -> None:
    model = vae(num_samples=8, importance_weighted=True)
    torch.manual_seed(7)
    loss = model.training_step(batch, 0)
    torch.manual_seed(7)
    log_likelihood, prior, posterior, _ = reference(model, batch[0], 8)
    weights = log_likelihood + prior - posterior
    assert loss.item() == pytest.approx(-(weights.logsumexp(0) - math.log(8)).mean().item(), rel=1e-5)
    assert loss.item() < -weights.mean().item()  # tighter than the bound that averages


def test_the_bound_keeps_its_digits_under_bfloat16(batch: tuple[Tensor, Tensor]) -> None:
    model = vae(num_samples=4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mean, log_variance = model.encoder.posterior(batch[0])
        assert mean.dtype == log_variance.dtype == torch.float32
        torch.manual_seed(7)
        model.training_step(batch, 0)
        torch.manual_seed(7)
        _, _, _, kl = reference(model, batch[0], 4)
    assert float(model.train_metrics.compute()["train/kl"]) == pytest.approx(kl.mean().item(), rel=1e-5)


def test_beta_and_free_bits_weigh_the_kl_and_only_that(batch: tuple[Tensor, Tensor]) -> None:
    def parts(**kwargs: Any) -> tuple[float, float, float]:
        model = vae(**kwargs)
        torch.manual_seed(7)
        loss = model.training_step(batch, 0).item()
        values = model.train_metrics.compute()
        return loss, float(values["train/reconstruction"]), float(values["train/kl"])

    loss, nll, kl = parts(beta=4.0)
    assert loss == pytest.approx(nll + 4 * kl, rel=1e-5)
    loss, nll, kl = parts(free_bits=2.0)
    assert loss == pytest.approx(nll + 4 * 2.0, rel=1e-5)  # a new model's KL is below two nats in all four dimensions
    assert kl < 1


def test_the_kl_warms_up_in_training_and_has_its_full_weight_in_evaluation(tmp_path: Path) -> None:
    model, seen = vae(beta=2.0, warmup_epochs=4), []
    training_step = model.training_step
    model.training_step = lambda *args: (seen.append(model.kl_weight()), training_step(*args))[1]  # type: ignore[method-assign,func-returns-value]
    run = trainer(tmp_path, max_epochs=6, limit_train_batches=1)
    run.fit(model, MNISTDataModule())
    assert seen == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    metrics = run.callback_metrics
    expected = float(metrics["val/reconstruction"]) + 2.0 * float(metrics["val/kl"])
    assert float(metrics["val/loss"]) == pytest.approx(expected, rel=1e-5)


def test_the_kl_weight_rises_anew_in_every_cycle(tmp_path: Path) -> None:
    model, seen = vae(warmup_epochs=2, cycle_epochs=3), []
    training_step = model.training_step
    model.training_step = lambda *args: (seen.append(model.kl_weight()), training_step(*args))[1]  # type: ignore[method-assign,func-returns-value]
    trainer(tmp_path, max_epochs=7, limit_train_batches=1).fit(model, MNISTDataModule())
    assert seen == [0.0, 0.5, 1.0, 0.0, 0.5, 1.0, 0.0]
    with pytest.raises(
        ValueError, match=r"cycle_epochs=2 must be at least 2 and needs model\.warmup_epochs from 1 to as many, not 3"
    ):
        vae(warmup_epochs=3, cycle_epochs=2)


@pytest.mark.parametrize(
    ("warmup", "cycle", "weights"),
    [
        (2, 2, [0, 1, 0, 1, 0, 1]),
        (3, 3, [0, 0.5, 1, 0, 0.5, 1]),
        (1, 2, [0, 1, 0, 1, 0, 1]),
        (1, 3, [0, 1, 1, 0, 1, 1]),
        (1, 0, [0, 1, 1, 1, 1, 1]),
    ],
)
def test_every_cycle_reaches_the_full_weight(
    warmup: int, cycle: int, weights: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = vae(beta=4.0, warmup_epochs=warmup, cycle_epochs=cycle)
    found = []
    for epoch in range(6):
        monkeypatch.setattr(VAE, "current_epoch", epoch)
        found.append(model.kl_weight() / 4)
    assert found == weights


def test_a_training_that_ends_in_its_warm_up_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"model\.warmup_epochs=2 is not over after trainer\.max_epochs=2"):
        trainer(tmp_path, max_epochs=2, limit_train_batches=1).fit(vae(warmup_epochs=2), MNISTDataModule())


def test_a_learned_variance_becomes_the_mean_squared_error(tmp_path: Path) -> None:
    """It is the likeliest variance given the reconstructions (Rybkin et al. 2021)."""
    model = vae(likelihood="gaussian", variance=0.5, learn_variance=True, optimizer=lambda p: torch.optim.Adam(p, 0.02))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "pixel_log_variance")
    trainer(tmp_path, max_epochs=3, limit_train_batches=1.0).fit(model, MNISTDataModule())
    data = MNISTDataModule()
    data.setup("fit")
    images = data.train_set.images.float() / 255
    mean, log_variance = model.encoder.posterior(images)
    samples = model.decoder(mean + (0.5 * log_variance).exp() * torch.randn_like(mean))
    expected = (samples - images).square().mean().item()
    assert math.exp(float(model.pixel_log_variance)) == pytest.approx(expected, rel=0.05)
    assert "pixel_log_variance" in model.state_dict()
    assert "pixel_log_variance" not in vae(likelihood="gaussian").state_dict()
    with pytest.raises(ValueError, match=r"learn_variance needs model\.likelihood gaussian"):
        vae(learn_variance=True)


def test_the_estimate_of_the_likelihood_gets_tighter_with_more_samples() -> None:
    data, model = MNISTDataModule(), vae()
    data.setup("fit")
    images = data.val_set.images[:128].float() / 255
    with torch.no_grad():
        elbo = -float(model.validation_step((images, data.val_set.labels[:128]), 0)["loss"])
        bounds = [float(model.log_likelihood(images, count).mean()) for count in (1, 5, 25, 125)]
    assert elbo == pytest.approx(bounds[0], abs=0.3)  # the same in expectation
    assert bounds == sorted(bounds)
    assert bounds[-1] > elbo + 0.1


def test_the_estimate_of_the_likelihood_is_right_where_it_can_be_computed() -> None:
    """A decoder that ignores the code gives every image the likelihood of independent pixels."""
    model = vae()
    model.decoder = SigmoidDecoder(nn.Linear(4, 784), nn.Unflatten(1, (1, 28, 28)), nn.Sigmoid())
    assert isinstance(model.decoder[0], nn.Linear)
    nn.init.zeros_(model.decoder[0].weight)
    images = torch.rand(3, 1, 28, 28).round()
    exact = Independent(Bernoulli(logits=model.decoder[0].bias.view(1, 28, 28)), 3).log_prob(images)
    estimate = model.log_likelihood(images, 20_000)
    assert torch.allclose(estimate, exact, atol=0.05)


def test_active_units_are_those_whose_mean_varies() -> None:
    means = torch.randn(500, 6) * torch.tensor([1.0, 0.0, 0.5, 0.05, 0.2, 3.0]) + 7.0
    metric = ActiveUnits(6)
    for part in means.split(64):
        metric.update(part)
    assert float(metric.compute()) == (means.numpy().var(axis=0) > 0.01).sum() == 4


def test_it_learns_and_samples(tmp_path: Path) -> None:
    data, model = MNISTDataModule(batch_size=32), vae(optimizer=lambda p: torch.optim.Adam(p, lr=2e-3))
    run = trainer(tmp_path, max_epochs=3, limit_train_batches=1.0)
    (before,) = run.validate(model, data, verbose=False)
    run.fit(model, data)
    (after,) = run.validate(model, data, verbose=False)
    assert before["val/elbo"] < -450
    assert after["val/elbo"] > -230
    assert after["val/active_units"] >= 1
    images = model.sample(9)
    assert images.shape == (9, 1, 28, 28)
    assert images.min() >= 0 and images.max() <= 1
    assert model.reconstruct(images).equal(model(images))


def test_parts_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"must be a GaussianEncoder.*not MNISTEncoder"):
        VAE(MNISTEncoder(4), MNISTDecoder(4), latent_dim=4)
    with pytest.raises(ValueError, match="must end in a Sigmoid, not in Tanh"):
        VAE(MNISTGaussianEncoder(4), nn.Sequential(nn.Linear(4, 784), nn.Tanh()), latent_dim=4)
    with pytest.raises(ValueError, match="importance_weighted has no beta"):
        vae(beta=2.0, importance_weighted=True)
    with pytest.raises(
        ValueError, match=r"cycle_epochs=4 must be at least 2 and needs model\.warmup_epochs from 1 to as many, not 0"
    ):
        vae(cycle_epochs=4)
    with pytest.raises(ValueError, match="num_samples=0 must be at least 1"):
        vae(num_samples=0)
    with pytest.raises(ValueError, match=r"variance=0\.0 must be above 0"):
        vae(variance=0.0)


def test_predict_writes_mean_and_log_variance_in_the_order_of_the_data(run: Run) -> None:
    flags = ["--model=VAE", "--model.encoder=MNISTGaussianEncoder", "--model.decoder=MNISTDecoder"]
    flags += ["--model.latent_dim=12", "--trainer.callbacks=null"]
    run_dir = run("fit", *QUICK, *flags, "--test_after_fit") / "quickstart/version_0"
    assert values(run_dir, "test/elbo")[0] < 0
    run("predict", *QUICK, *flags, "--ckpt_path", "last")
    predictions = np.load(run_dir / "predictions.npz")
    model = VAE.load_from_checkpoint(run_dir / "checkpoints/last.ckpt", weights_only=True).eval()
    data = MNISTDataModule()
    data.setup("predict")
    with torch.no_grad():
        mean, log_variance = model.encoder.posterior(data.test_set.images.float() / 255)
    assert np.allclose(predictions["code"], mean, atol=1e-4)
    assert np.allclose(predictions["log_variance"], log_variance, atol=1e-4)
