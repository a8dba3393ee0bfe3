"""Quantisers of codes, which make an image a number of bits."""

from typing import Any

from torch import Tensor, nn

from preimage.checks import check_range

from .precision import full
from .sources.base import extra


class FSQ(nn.Module):
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

    def indices(self, quantized: Tensor) -> Tensor:
        """Which level each number of quantised codes `(B, ...)` is at, int32 from 0 to L - 1, as `(B, D)`."""
        indices: Tensor = self.quantize.codes_to_indices(quantized.flatten(1).unsqueeze(-1))
        return indices
