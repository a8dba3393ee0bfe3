"""The terms and priors of autoencoders that papers name, each against what it is by definition."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn import functional as F

from lightning_modules import (
    L2,
    MMD,
    VAE,
    VQ,
    Autoencoder,
    Contractive,
    MNISTDecoder,
    MNISTEncoder,
    MNISTGaussianEncoder,
    VampPrior,
)
from lightning_modules.networks.priors import decompose_kl
from lightning_modules.networks.regularizers import mmd


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(1)).round()


def vae(**kwargs: Any) -> VAE:
    torch.manual_seed(0)
    return VAE(MNISTGaussianEncoder(4), MNISTDecoder(4), latent_dim=4, **kwargs)


def test_mmd_is_the_double_sum() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(5, 3), torch.randn(5, 3) + 1

    def kernel(one: Tensor, other: Tensor) -> float:
        square = float((one - other).square().sum())
        return sum(6 * s / (6 * s + square) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))

    within = [kernel(x[i], x[j]) for x in (first, second) for i in range(5) for j in range(5) if i != j]
    between = [kernel(a, b) for a in first for b in second]
    assert float(mmd(first, second)) == pytest.approx(sum(within) / 20 - 2 * sum(between) / 25, rel=1e-4)


def test_the_contractive_penalty_is_the_norm_of_the_jacobian(images: Tensor) -> None:
    torch.manual_seed(0)
    encoder, decoder = MNISTEncoder(3), MNISTDecoder(3)
    jacobian: Any = torch.autograd.functional.jacobian(lambda x: encoder(x[None])[0], images[0])
    estimate = Contractive(2.0, num_samples=800)(encoder(images[:1]), images[:1], encoder, decoder)
    assert float(estimate) == pytest.approx(2 * float(jacobian.square().sum()), rel=0.1)


def test_the_l2_penalty_is_of_codes_and_weights(images: Tensor) -> None:
    decoder, code = MNISTDecoder(2), torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    squares = sum(float((p**2).sum()) for p in decoder.parameters())
    expected = 2 * (25 / 4 + 0.1 * squares)
    assert float(L2(2.0, 0.1)(code, images, MNISTEncoder(2), decoder)) == pytest.approx(expected, rel=1e-5)


def test_the_terms_of_the_kl_add_up_and_a_correlation_is_measured() -> None:
    torch.manual_seed(0)
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    mean = torch.randn(4000, 2) @ torch.linalg.cholesky(covariance).T
    variance = 0.25
    codes = mean + math.sqrt(variance) * torch.randn_like(mean)
    information, correlation, dimensions = decompose_kl(codes, mean, torch.full_like(mean, math.log(variance)))
    ratio = Normal(mean, 0.5).log_prob(codes) - Normal(0.0, 1.0).log_prob(codes)
    assert float(information + correlation + dimensions) == pytest.approx(float(ratio.sum(dim=1).mean()), rel=1e-4)
    whole = covariance + variance * torch.eye(2)  # that of the aggregate, a Gaussian
    assert float(correlation) == pytest.approx(-0.5 * math.log(1 - (0.8 / 1.25) ** 2), abs=0.04)
    assert float(information) == pytest.approx(0.5 * math.log(float(whole.det()) / variance**2), abs=0.06)


def test_the_vamp_prior_is_a_mixture_and_its_bounds_are_by_it(images: Tensor) -> None:
    model = vae(prior=VampPrior(3), num_samples=2)
    assert model.prior is not None
    with torch.no_grad():
        parts, log_variance = model.encoder.posterior(model.prior.logits.sigmoid())
        mixture = MixtureSameFamily(
            Categorical(torch.ones(3)), Independent(Normal(parts, (0.5 * log_variance).exp()), 1)
        )
        mean, log_variance = model.encoder.posterior(images)
        posterior = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
        torch.manual_seed(7)
        loss = model.training_step((images, torch.zeros(6).long()), 0)
        torch.manual_seed(7)
        codes = mean + (0.5 * log_variance).exp() * torch.randn(2, 6, 4)
        ratios = torch.stack([mixture.log_prob(code) - posterior.log_prob(code) for code in codes])
        pixels = [F.binary_cross_entropy(model.decoder(code), images, reduction="sum") / 6 for code in codes]
    assert float(loss) == pytest.approx(float(torch.stack(pixels).mean() - ratios.mean()), rel=1e-5)
    assert float(model.train_metrics.compute()["train/kl"]) == pytest.approx(-float(ratios.mean()), abs=1e-4)
    assert model.sample(2).shape == (2, 1, 28, 28)


def test_the_effective_samples_are_those_of_the_weights(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vae()
    given = torch.randn(20, 6)
    parts = iter(given.split(10))
    monkeypatch.setattr(model, "_log_ratio", lambda *_: next(parts))
    monkeypatch.setattr(model, "_nll", lambda *_: torch.zeros(10, 6))
    bound, effective = model._importance(images, 20)
    weights = given.exp()
    assert torch.allclose(bound, weights.mean(dim=0).log(), atol=1e-5)
    assert torch.allclose(effective, weights.sum(dim=0) ** 2 / (weights**2).sum(dim=0), rtol=1e-4)


def test_vq_takes_the_nearest_entry() -> None:
    torch.manual_seed(0)
    quantizer = VQ(6, groups=3, size=8).eval()
    quantizer.quantize.codebook = torch.randn(8, 2)
    code = torch.randn(5, 6)
    book, quantized = quantizer.quantize.codebook, quantizer(code)
    nearest = [[min(range(8), key=lambda k: float((book[k] - p).norm())) for p in c.view(3, 2)] for c in code]
    assert torch.allclose(quantized, book[torch.tensor(nearest)].view(5, 6), atol=1e-6)
    assert quantizer.indices(quantized).tolist() == nearest
    assert quantizer.bits(quantized) == 9
    with pytest.raises(ValueError, match=r"VQ\.groups=4 must divide VQ\.in_features=6"):
        VQ(6, groups=4)


@pytest.mark.parametrize("part", [{"quantizer": VQ(4, groups=2)}, {"regularizer": MMD(0.1)}, {"noise": 0.5}])
def test_the_loss_is_the_error_and_the_term(images: Tensor, part: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = Autoencoder(MNISTEncoder(4), MNISTDecoder(4), **part)
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.training_step((images, torch.zeros(6).long()), 0).backward()
    values = {name: float(value) for name, value in model.train_metrics.compute().items()}
    if "noise" in part:
        assert torch.equal(seen[0], images * (seen[0] > 0))
        assert 0.4 < float(seen[0].sum() / images.sum()) < 0.6
        model.eval().validation_step((images, torch.zeros(6).long()), 0)
        assert torch.equal(seen[1], images)
    else:
        assert values["train/loss"] == pytest.approx(values["train/mse"] + values["train/regularizer"], rel=1e-5)
    assert all(p.grad is not None for p in model.encoder.parameters())
