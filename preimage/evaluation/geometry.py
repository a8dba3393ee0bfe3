"""The shape of codes: how many directions they fill, what it takes to say where one lies, and whose is alike."""

import math
from collections.abc import Sequence

import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from lightning_modules.metrics import effective_rank

MOST = 10_000  # codes; more change no figure and take a while
_COLUMNS = 4096  # numbers of each code that are turned into float64 at a time


def measure_geometry(codes: Tensor) -> dict[str, float]:
    """Length, effective rank and intrinsic dimension of codes `(N, D)`, of the first 10,000 of them; no NaN."""
    some = codes[:MOST]
    shape = {"effective_rank": effective_rank(some), "intrinsic_dimension": intrinsic_dimension(some)}
    return {"numbers": codes.shape[1]} | {name: value for name, value in shape.items() if math.isfinite(value)}


def intrinsic_dimension(codes: Tensor) -> float:
    """TwoNN: the dimension by which the second neighbour is farther than the first (Facco et al. 2017, Sci. Rep. 7).

    The ratio of both distances has the distribution `1 - ratio ** -dimension` whatever the density; the line is fitted
    through the origin to all but the tenth with the largest ratios, as the authors do.

    Args:
        codes: Codes `(N, D)`; of those that occur more than once, one is taken.

    Returns:
        The dimension; NaN for fewer than three different codes.
    """
    codes = codes.double().unique(dim=0)
    if len(codes) < 3:
        return float("nan")
    distances, _ = NearestNeighbors(n_neighbors=3).fit(codes.numpy()).kneighbors()  # without the code itself
    logs = torch.from_numpy(distances[:, 1] / distances[:, 0]).log().sort().values
    shares = torch.arange(1, len(logs) + 1, dtype=torch.float64) / len(logs)
    kept = slice(0, max(2, int(0.9 * len(logs))))
    x, y = logs[kept], -torch.log1p(-shares[kept])
    return float((x @ y) / (x @ x))


def centred_gram(codes: Tensor) -> Tensor:
    """The Gram matrix of centred codes, of Frobenius norm 1: all that `cka_matrix` asks of a layer.

    Args:
        codes: Codes `(N, ...)`, of which no second copy is made, however many numbers each has.

    Returns:
        Matrix `(N, N)` in float64; zero where the code is the same for all images.
    """
    gram = torch.zeros(len(codes), len(codes), dtype=torch.float64, device=codes.device)
    squares = torch.zeros((), dtype=torch.float64, device=codes.device)
    for part in codes.flatten(1).split(_COLUMNS, dim=1):
        values = part.double()
        centred = values - values.mean(dim=0)
        gram += centred @ centred.T
        squares += values.square().sum()
    norm = gram.norm()
    return gram / norm if norm > 1e-12 * squares else torch.zeros_like(gram)  # what is less is rounding of float32


def cka_matrix(grams: Sequence[Tensor]) -> Tensor:
    """Linear CKA of layers: how alike the similarities of images are in two codes (Kornblith et al. 2019).

    It is 1 where one code is the other turned, reflected or scaled (arXiv 1905.00414). Of few images in many numbers
    it is large for any two codes: take thousands, and the same for all layers.

    Args:
        grams: The `centred_gram` of each layer, of the same N images in one order.

    Returns:
        Matrix `(L, L)` in [0, 1], 1 on its diagonal; 0 in row and column of a code that is the same for all images.
    """
    rows = [gram.flatten() for gram in grams]
    return torch.stack([torch.stack([first @ second for second in rows]) for first in rows]).clamp(0, 1)
