import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from lightning_modules.losses import bernoulli_nll, gaussian_log_density, gaussian_nll, kl_from_standard_normal


def test_kl_is_that_of_torch_distributions() -> None:
    mean, log_variance = torch.randn(5, 7), torch.randn(5, 7)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0))
    assert torch.allclose(kl_from_standard_normal(mean, log_variance), expected, atol=1e-5)
    assert kl_from_standard_normal(torch.zeros(3), torch.zeros(3)).tolist() == [0, 0, 0]


def test_likelihoods_are_those_of_torch_distributions_summed_over_pixels() -> None:
    logits, images = torch.randn(2, 4, 3, 8, 8), torch.rand(2, 4, 3, 8, 8)
    bernoulli = Independent(Bernoulli(logits=logits), 3)
    assert torch.allclose(bernoulli_nll(logits, images.round()), -bernoulli.log_prob(images.round()), rtol=1e-5)
    gaussian = Independent(Normal(logits, 0.3), 3)
    assert torch.allclose(gaussian_nll(logits, images, torch.tensor(0.09).log()), -gaussian.log_prob(images), rtol=1e-4)
    assert bernoulli_nll(logits, images).shape == (2, 4)


def test_gaussian_log_density() -> None:
    value, mean, log_variance = torch.randn(3, 6, 4).unbind(0)[0], torch.randn(6, 4), torch.randn(6, 4)
    expected = Independent(Normal(mean, (0.5 * log_variance).exp()), 1).log_prob(value)
    assert torch.allclose(gaussian_log_density(value, mean, log_variance), expected, atol=1e-4)
