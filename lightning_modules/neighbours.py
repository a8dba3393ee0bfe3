"""Nearest neighbours among many codes, and what they vote for."""

import torch
from torch import Tensor

_NUMBERS = 2**25  # that are in memory at a time


def nearest(memory: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Euclidean distances `(M, k)` of each query's nearest codes, in order, and their indices `(M, k)`.

    Args:
        memory: Codes `(N, D)`, at least `k`, on the device that is to search.
        queries: Codes `(M, D)`, on any device.
        k: Number of neighbours.

    Raises:
        ValueError: A code is not finite.
    """
    if not (memory.isfinite().all() and queries.isfinite().all()):
        raise ValueError("codes that are not finite (NaN or infinite) have no neighbours")
    centre = memory.mean(0)  # far from the origin the search would lose digits
    centred = memory - centre
    half = centred.square().sum(1) / 2
    found = []
    for part in queries.split(max(1, _NUMBERS // max(len(memory), k * memory.shape[1]))):
        part = part.to(memory.device) - centre
        index = torch.addmm(half, part, centred.T, alpha=-1).topk(k, largest=False).indices
        # Without the cancellation of the search: 0 for what is the same, which outvotes all else.
        distances, order = (part[:, None] - centred[index]).norm(dim=2).sort(stable=True)
        found.append((distances, index.gather(1, order)))
    distances, index = map(torch.cat, zip(*found, strict=True))
    return distances, index


def vote(distances: Tensor, labels: Tensor) -> Tensor:
    """Class `(M,)` by neighbours that vote with the inverse of their distance, or alone where that is 0.

    Args:
        distances: Those of the neighbours, `(M, k)`.
        labels: Their classes `(M, k)`, from 0.
    """
    weights = 1 / distances.double()
    weights = torch.where(weights.isinf().any(1, keepdim=True), weights.isinf().double(), weights)
    votes = weights.new_zeros(len(labels), int(labels.max()) + 1).scatter_add_(1, labels, weights)
    return votes.argmax(1)
