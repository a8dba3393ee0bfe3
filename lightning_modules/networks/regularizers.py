"""What an autoencoder may pay for its codes, beside the error of its reconstructions."""

import torch
from torch import Tensor, nn

from preimage.checks import check_range

from ..noise import noise_like
from .precision import full


class CodeRegularizer(nn.Module):
    """A penalty on codes `(B, D)`, given the images `(B, C, H, W)` and networks that they come from and go to.

    Args:
        weight: Weight of the penalty in the loss, beside an error that is a mean over all pixels (Autoencoder) or nats
            per image (VAE).
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        check_range(type(self).__name__, "(0, inf)", weight=weight)
        self.weight = weight

    def forward(self, code: Tensor, images: Tensor, encoder: nn.Module, decoder: nn.Module) -> Tensor:
        """The weighted penalty `()`."""
        return self.weight * self.penalty(code, images, encoder, decoder)

    def penalty(self, code: Tensor, images: Tensor, encoder: nn.Module, decoder: nn.Module) -> Tensor:
        """The penalty `()` of a batch, without its weight."""
        raise NotImplementedError

    def _fixed_by(self, images: Tensor) -> Tensor | None:
        return None if self.training else images


class L2(CodeRegularizer):
    """RAE-L2 (Ghosh et al. 2020, arXiv 1903.12436): `|z|^2 / 2 + decoder_weight * |theta|^2`, theta the decoder's.

    Args:
        decoder_weight: Weight of the decoder's squared weights, relative to that of the codes.
    """

    def __init__(self, weight: float = 1e-4, decoder_weight: float = 1e-3) -> None:
        super().__init__(weight)
        check_range("L2", "[0, inf)", decoder_weight=decoder_weight)
        self.decoder_weight = decoder_weight

    def penalty(self, code: Tensor, images: Tensor, encoder: nn.Module, decoder: nn.Module) -> Tensor:
        """Half the squared length of a code, and the weighted one of the decoder's parameters."""
        squares = torch.stack([full(p).square().sum() for p in decoder.parameters()]).sum()
        return full(code).flatten(1).square().sum(dim=1).mean() / 2 + self.decoder_weight * squares


class Contractive(CodeRegularizer):
    """Squared Frobenius norm of the encoder's Jacobian, `|dz/dx|^2` (Rifai et al. 2011).

    It is estimated without bias as the mean of `|J v|^2` over standard normal v (Hutchinson 1990), by forward-mode
    differentiation. The encoder must treat each image alone: no batch norm in it.

    Args:
        num_samples: Directions v per image.
    """

    def __init__(self, weight: float = 1e-4, num_samples: int = 1) -> None:
        super().__init__(weight)
        check_range("Contractive", "[1, inf)", num_samples=num_samples)
        self.num_samples = num_samples

    def penalty(self, code: Tensor, images: Tensor, encoder: nn.Module, decoder: nn.Module) -> Tensor:
        """The estimate, a mean over the images."""
        directions = noise_like(images.flatten(1), self.num_samples, self._fixed_by(images))
        slopes = [torch.func.jvp(encoder, (images,), (v.view_as(images),))[1] for v in directions]
        return full(torch.stack(slopes)).flatten(2).square().sum(dim=2).mean()


class MMD(CodeRegularizer):
    """Maximum mean discrepancy of codes from a standard normal (WAE, Tolstikhin et al. 2018, arXiv 1711.01558).

    `E k(z, z') + E k(p, p') - 2 E k(z, p)` by the unbiased estimator over a batch, which may be below 0, of kernels
    `k(x, y) = sum_s c_s / (c_s + |x - y|^2)` with `c_s = 2 D s` for s of 0.1, 0.2, 0.5, 1, 2, 5, 10. On the drawn codes
    of a VAE, whose `beta` is then 1 - alpha, it is the term of InfoVAE (Zhao et al. 2017, arXiv 1706.02262).
    """

    def penalty(self, code: Tensor, images: Tensor, encoder: nn.Module, decoder: nn.Module) -> Tensor:
        """The estimate over the batch; 0 for one image, which has no pair."""
        code = full(code.flatten(1))
        return mmd(code, noise_like(code, 1, self._fixed_by(images))[0]) if len(code) > 1 else 0 * code.sum()


def mmd(first: Tensor, second: Tensor) -> Tensor:
    """The squared MMD of two samples `(N, D)`, by the unbiased estimator and the kernels of `MMD`."""
    count, scales = len(first), 2 * first.shape[1] * first.new_tensor([0.1, 0.2, 0.5, 1, 2, 5, 10])

    def similarities(one: Tensor, other: Tensor) -> Tensor:
        squares = (one[:, None] - other).square().sum(dim=2, keepdim=True)
        return (scales / (scales + squares)).sum(dim=2)

    within = similarities(first, first) + similarities(second, second)
    pairs = (within.sum() - 2 * len(scales) * count) / (count * (count - 1))  # each is alike to itself by 1 a kernel
    return pairs - 2 * similarities(first, second).mean()
