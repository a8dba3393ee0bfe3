"""Priors of codes that are learned, and what the divergence from a prior consists of."""

import math

import torch
from torch import Tensor, nn

from preimage.checks import check_range

from .gaussian import GaussianEncoder


class VampPrior(nn.Module):
    """Mixture of the posteriors of K learned images (Tomczak and Welling 2018, arXiv 1705.07120).

    `p(z) = 1/K sum_k q(z | u_k)`, where the u_k are sigmoids of what is learned. Batch norm in the encoder sees them as
    a batch of their own.

    Args:
        components: The number K.
        channels: Channels of the images.
        image_size: Height and width of the images.
    """

    def __init__(self, components: int = 100, channels: int = 1, image_size: int = 28) -> None:
        super().__init__()
        check_range("VampPrior", "[1, inf)", components=components, channels=channels, image_size=image_size)
        self.logits = nn.Parameter(torch.randn(components, channels, image_size, image_size))

    def log_prob(self, codes: Tensor, encoder: GaussianEncoder) -> Tensor:
        """`log p(z)` of codes `(S, B, D)`, in nats `(S, B)`."""
        mean, log_variance = encoder.posterior(self.logits.sigmoid())
        densities = gaussian_log_density(codes[:, :, None], mean, log_variance).sum(dim=-1)
        return densities.logsumexp(dim=-1) - math.log(len(mean))

    def sample(self, count: int, encoder: GaussianEncoder) -> Tensor:
        """Draws codes `(count, D)`."""
        mean, log_variance = encoder.posterior(self.logits.sigmoid())
        chosen = torch.randint(len(mean), (count,), device=mean.device)
        return mean[chosen] + (0.5 * log_variance[chosen]).exp() * torch.randn_like(mean[chosen])


def gaussian_log_density(codes: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log-density of each number, in nats, broadcast."""
    return -0.5 * ((codes - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi))


def decompose_kl(codes: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mutual information, total correlation and dimension-wise KL of drawn codes `(B, D)`, in nats `()`.

    `E log q(z|x)/q(z)`, `E log q(z)/prod q(z_d)` and `sum E log q(z_d)/p(z_d)` add up to the KL divergence from the
    standard normal (Chen et al. 2018, arXiv 1802.04942). q(z) is the mixture of the batch's posteriors: the paper's
    minibatch-weighted estimate without the number of all images, a constant that has no gradient. So the mutual
    information is at most log B.
    """
    each = gaussian_log_density(codes[:, None], mean, log_variance)  # (B, B, D)
    count = math.log(len(codes))
    joint = each.sum(dim=2).logsumexp(dim=1) - count
    marginals = (each.logsumexp(dim=1) - count).sum(dim=1)
    given = each.diagonal().sum(dim=0)
    prior = gaussian_log_density(codes, torch.zeros_like(codes), torch.zeros_like(codes)).sum(dim=1)
    return (given - joint).mean(), (joint - marginals).mean(), (marginals - prior).mean()
