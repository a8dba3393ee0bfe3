"""Quantisers of codes, which make an image a number of bits."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from preimage.checks import check_range

from .precision import full
from .sources.base import extra


class Quantizer(nn.Module):
    """Makes of the numbers of codes `(B, D)`, or maps `(B, C, h, w)`, those that are stored.

    Attributes:
        commitment: Weight in the loss of the squared distance of codes from what they become; 0 for none.
    """

    commitment = 0.0

    def bits(self, quantized: Tensor) -> float:
        """Bits that one of the quantised codes `(B, ...)` takes."""
        raise NotImplementedError

    def indices(self, quantized: Tensor) -> Tensor:
        """Which level, or entry of a codebook, each part of quantised codes `(B, ...)` is at, from 0, as `(B, N)`."""
        raise NotImplementedError


class FSQ(Quantizer):
    """Finite scalar quantisation: a number becomes one of L levels (Mentzer et al. 2023, arXiv 2309.15505).

    A number z becomes `2 / (L - 1) * floor((L - 1) * (tanh(z) + 1) / 2 + 1 / 2) - 1`, whose gradient is that without
    the floor: for an odd L as in the paper, for an even one symmetric about 0 (Parker et al. 2024, arXiv 2411.19842,
    section 3.2). So D numbers take D log2 L bits. A batch norm before it gives each number, or channel of a map, mean 0
    and variance 1: without, those of a new encoder differ by less than a level, and stay on one. It needs the package
    vector-quantize-pytorch, and computes in float32 under mixed precision too.

    Maps codes `(B, D)`, or maps `(B, C, h, w)`, to their like in [-1, 1].

    Args:
        in_features: Length of the codes, or channels of the maps.
        levels: The number L of levels.
        features: Length or channels after a linear layer before the levels, which is trained also behind a frozen
            encoder; null for no such layer.
    """

    def __init__(self, in_features: int = 12, levels: int = 8, features: int | None = None) -> None:
        super().__init__()
        check_range("FSQ", "[1, inf)", in_features=in_features, features=features)
        check_range("FSQ", "[2, 65536]", levels=levels)
        self.levels = levels
        self.project = nn.Identity() if features is None else nn.Linear(in_features, features)
        self.normalize = nn.BatchNorm1d(features or in_features, affine=False)
        package = extra("vector_quantize_pytorch", "quantize")
        self.quantize = package.FSQ([levels], preserve_symmetry=True, return_indices=False)

    def forward(self, code: Tensor) -> Tensor:
        """Quantises codes `(B, in_features, ...)`."""
        numbers = self.project(code.movedim(1, -1)).movedim(-1, 1)
        statistics: Any = self.normalize.running_mean  # under mixed precision they alone are float32
        normal = full(self.normalize(numbers.reshape(*numbers.shape[:2], -1).to(statistics.dtype)))
        quantized: Tensor = self.quantize(normal.reshape(len(normal), -1, 1))[0]
        return quantized.view(numbers.shape)

    def bits(self, quantized: Tensor) -> float:
        """log2 L for each number."""
        return quantized[0].numel() * math.log2(self.levels)

    def indices(self, quantized: Tensor) -> Tensor:
        """Which level each number of quantised codes `(B, ...)` is at, int32 from 0 to L - 1, as `(B, D)`."""
        indices: Tensor = self.quantize.codes_to_indices(quantized.flatten(1).unsqueeze(-1))
        return indices


class VQ(Quantizer):
    """Vector quantisation: parts of a code become the nearest entries of a codebook (VQ-VAE, arXiv 1711.00937).

    The loss has `commitment * |z - e|^2`, a mean over numbers, with no gradient to the entries e: those follow the mean
    of the codes that become theirs (appendix A.1), and an entry that hardly any code becomes is put on a code of the
    batch. The gradient passes to z as if nothing had been done. It needs the package vector-quantize-pytorch.

    Args:
        in_features: Length of the codes, or channels of the maps.
        groups: Parts of a code, or of each position of a map, which share the codebook; a divisor of `in_features`.
        size: Entries of the codebook: a part takes log2 of it in bits.
        commitment: Weight of the distance in the loss.
        decay: Share of an entry's mean that stays at a batch.
    """

    def __init__(
        self, in_features: int = 12, groups: int = 6, size: int = 64, commitment: float = 0.25, decay: float = 0.99
    ) -> None:
        super().__init__()
        check_range("VQ", "[1, inf)", in_features=in_features, groups=groups)
        check_range("VQ", "[2, 65536]", size=size)
        check_range("VQ", "[0, inf)", commitment=commitment)
        check_range("VQ", "(0, 1)", decay=decay)
        if in_features % groups:
            raise ValueError(f"VQ.groups={groups} must divide VQ.in_features={in_features}")
        self.in_features, self.width, self.size, self.commitment = in_features, in_features // groups, size, commitment
        package = extra("vector_quantize_pytorch", "quantize")
        self.quantize = package.VectorQuantize(
            self.width, size, decay=decay, threshold_ema_dead_code=1, rotation_trick=False
        )

    def forward(self, code: Tensor) -> Tensor:
        """Quantises codes `(B, in_features, ...)`."""
        if code.shape[1] != self.in_features:
            raise ValueError(f"VQ.in_features={self.in_features} is not the {code.shape[1]} of the codes")
        if code.is_meta:  # a check of shapes alone, which the codebook would follow
            return code
        last = full(code.movedim(1, -1))
        quantized: Tensor = self.quantize(last.reshape(len(code), -1, self.width))[0]
        return quantized.view(last.shape).movedim(-1, 1)

    def bits(self, quantized: Tensor) -> float:
        """log2 of the codebook's size for each part."""
        return quantized[0].numel() / self.width * math.log2(self.size)

    def indices(self, quantized: Tensor) -> Tensor:
        """Which entry each part of quantised codes `(B, ...)` is, from 0 to size - 1, as `(B, N)`."""
        parts = quantized.movedim(1, -1).reshape(len(quantized), -1, self.width)
        return torch.cdist(full(parts), self.quantize.codebook).argmin(dim=-1).int()
