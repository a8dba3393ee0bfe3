"""Noise for evaluation: random numbers that depend on an image alone."""

import math

import torch
from torch import Tensor

# The step and the multipliers of splitmix64 (Steele, Lea and Flood 2014), as signed integers.
_STEP, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685


def fixed_noise(inputs: Tensor, count: int, length: int, start: int = 0) -> Tensor:
    """Draws standard normal noise `(count, B, length)` by a hash of each image `(B, ...)`, or of what stands for it.

    So its bound is the same in any batch and process: numbers from a generator would change with the size of the
    batches, and with the processes that share a split. Images that agree in some 4,000 places get equal noise. With
    `start`, the first draws are left out.
    """
    some = inputs.detach().flatten(1)
    bits = some[:, :: max(1, some.shape[1] // 4096)].float().contiguous().view(torch.int32).long()
    index = torch.arange(bits.shape[1], device=bits.device)
    key = _mix((bits * _mix(index * _STEP + _STEP)).sum(dim=1) + _STEP)  # integers of 64 bits that wrap around
    counter = torch.arange(start * length, (start + count) * length, device=bits.device)
    numbers = _mix(key[:, None] + counter * _STEP)
    # 23 bits: with 24, half a step below 1 rounds to 1 in float32, of which the normal number is infinite.
    uniform = (((numbers >> 41) & (2**23 - 1)).float() + 0.5) / 2**23
    normal = math.sqrt(2) * torch.erfinv(2 * uniform - 1)
    return normal.view(len(inputs), count, length).transpose(0, 1)


def noise_like(mean: Tensor, count: int, fixed_by: Tensor | None) -> Tensor:
    """Standard normal noise `(count, B, D)` for means `(B, D)`: drawn anew, or that of `fixed_noise` for a tensor."""
    if fixed_by is not None:
        return fixed_noise(fixed_by, count, mean.shape[1])
    return torch.randn(count, *mean.shape, device=mean.device, dtype=mean.dtype)


def _mix(value: Tensor) -> Tensor:
    value = (value ^ ((value >> 30) & (2**34 - 1))) * _FIRST
    value = (value ^ ((value >> 27) & (2**37 - 1))) * _SECOND
    return value ^ ((value >> 31) & (2**33 - 1))
