"""Losses that torch lacks, per image and in nats: summed over pixels and latent dimensions."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def kl_from_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of diagonal Gaussians from the standard normal (Kingma and Welling 2014, arXiv 1312.6114).

    Args:
        mean: Means `(..., D)`.
        log_variance: Logarithms of the variances `(..., D)`.

    Returns:
        KL divergences `(..., D)` in nats, one per dimension; their sum over D is that of the whole.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def bernoulli_nll(logits: Tensor, images: Tensor) -> Tensor:
    """Negative log-likelihood of images under independent Bernoulli pixels.

    Args:
        logits: Logits `(..., C, H, W)` of the probability that a pixel is one.
        images: Images `(..., C, H, W)` in [0, 1]; values between give a cross-entropy, which is no likelihood.

    Returns:
        Nats per image `(...)`.
    """
    return F.binary_cross_entropy_with_logits(logits, images, reduction="none").sum(dim=(-3, -2, -1))


def gaussian_nll(mean: Tensor, images: Tensor, log_variance: Tensor) -> Tensor:
    """Negative log-likelihood of images under independent Gaussian pixels of one variance.

    Args:
        mean: Means `(..., C, H, W)`.
        images: Images `(..., C, H, W)`.
        log_variance: Logarithm of the variance of a pixel `()`, for images in [0, 1].

    Returns:
        Nats per image `(...)`.
    """
    squares = (mean - images).square().sum(dim=(-3, -2, -1)) * torch.exp(-log_variance)
    return 0.5 * (squares + (log_variance + math.log(2 * math.pi)) * math.prod(mean.shape[-3:]))


def gaussian_log_density(value: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log-density of diagonal Gaussians.

    Args:
        value: Points `(..., D)`.
        mean: Means `(..., D)`.
        log_variance: Logarithms of the variances `(..., D)`.

    Returns:
        Log-densities `(...)` in nats.
    """
    squares = (value - mean).square() * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi)
    return -0.5 * squares.sum(dim=-1)
