"""Codes of a frozen encoder, computed once and kept in one file on disk that later runs map into memory."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from preimage.progress import Progress

from .cache import cached_array, mapped

BATCH = 64


def cache_codes(
    images: Tensor, encode: Callable[[Tensor], Tensor], key: str, cache_dir: Path, limit_gb: float
) -> Tensor:
    """Encodes images once; a second call with the same images and encoder maps what the first one wrote.

    A cache is believed only if it agrees with a few images that are encoded again.

    Args:
        images: uint8 images `(N, C, H, W)`.
        encode: Maps uint8 images `(B, C, H, W)` to codes `(B, ...)` on the CPU, the same at every call.
        key: What else the codes depend on: the encoder's weights and layer, the precision.
        cache_dir: Folder of all caches.
        limit_gb: Largest size on disk, in gigabytes.

    Returns:
        The codes `(N, ...)`, mapped into memory.

    Raises:
        ValueError: The codes would take more than `limit_gb`.
        OSError: The disk has no room for them.
    """
    some = torch.arange(0, len(images), max(1, len(images) // 8))
    sample = encode(images[some])
    shape, dtype = (len(images), *sample.shape[1:]), sample.dtype
    digest = hashlib.sha256(f"{key} {tuple(images.shape)} {shape} {dtype}".encode())
    digest.update(images.contiguous().numpy().data)  # their content: splits and transforms need no names
    folder, size = cache_dir / f"codes-{digest.hexdigest()[:32]}", math.prod(shape) * dtype.itemsize / 1e9

    def is_right(codes: Tensor) -> bool:
        close = torch.allclose(codes[some].float(), sample.float(), rtol=1e-2, atol=1e-2 * float(sample.float().std()))
        if not close:
            rank_zero_info(f"{folder} holds other codes than the encoder gives: it is made anew")
        return close

    def fill(path: Path) -> dict[str, str]:
        rank_zero_info(f"caching codes {shape} in {folder}, {size:.3f} GB")
        codes = mapped(path, shape, dtype, shared=True)
        for start in Progress(range(0, len(images), BATCH), desc="encoding", unit="batches"):
            codes[start : start + BATCH] = encode(images[start : start + BATCH])
        return {}

    if size > limit_gb and not folder.exists():  # what is there already takes no more
        raise ValueError(
            f"the codes would take {size:.2f} GB on disk, more than data.code_cache_limit_gb={limit_gb}: raise it,"
            " or set model.cache_codes false"
        )
    mend = "make room, set data.cache_dir to a folder on another disk, or model.cache_codes to false"
    return cached_array(folder / "codes", shape, dtype, fill, mend, is_right)[0]
