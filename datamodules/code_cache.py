"""Codes of a frozen encoder, computed once and kept in one file on disk that later runs map into memory."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from preimage.files import reserve, whole_folder
from preimage.progress import Progress

BATCH = 64


def cache_codes(
    images: Tensor, encode: Callable[[Tensor], Tensor], key: str, cache_dir: Path, limit_gb: float
) -> Tensor:
    """Encodes images once; a second call with the same images and encoder maps what the first one wrote.

    A cache is written in a folder of its own, which is renamed when it is whole, so that a killed run leaves nothing
    that is later believed; and it is believed only if it agrees with a few images that are encoded again.

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
    folder = cache_dir / f"codes-{digest.hexdigest()[:32]}"
    cache_dir.mkdir(parents=True, exist_ok=True)
    # Of several processes, also of other runs and nodes, one encodes and the others wait.
    with FileLock(f"{folder}.lock"):
        if _is_whole(folder, shape, dtype):
            codes = _map(folder, shape, dtype)
            if torch.allclose(codes[some].float(), sample.float(), rtol=1e-2, atol=1e-2 * float(sample.float().std())):
                return codes
            rank_zero_info(f"{folder} holds other codes than the encoder gives: it is made anew")
        size = math.prod(shape) * dtype.itemsize / 1e9
        if size > limit_gb:
            raise ValueError(
                f"the codes would take {size:.2f} GB on disk, more than data.code_cache_limit_gb={limit_gb}: raise it,"
                " or set model.cache_codes false"
            )
        rank_zero_info(f"caching codes {shape} in {folder}, {size:.3f} GB")
        _build(folder, images, encode, shape, dtype)
    return _map(folder, shape, dtype)


def _build(
    folder: Path, images: Tensor, encode: Callable[[Tensor], Tensor], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    with whole_folder(folder) as building:
        mend = "make room, set data.cache_dir to a folder on another disk, or model.cache_codes to false"
        reserve(building / "codes", math.prod(shape) * dtype.itemsize, mend)
        codes = torch.from_file(str(building / "codes"), shared=True, size=math.prod(shape), dtype=dtype).view(shape)
        for start in Progress(range(0, len(images), BATCH), desc="encoding", unit="batches"):
            codes[start : start + BATCH] = encode(images[start : start + BATCH])
        (building / "done.json").write_text(json.dumps({"shape": shape, "dtype": str(dtype)}))


def _is_whole(folder: Path, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    done, codes = folder / "done.json", folder / "codes"
    if not (done.is_file() and codes.is_file() and codes.stat().st_size == math.prod(shape) * dtype.itemsize):
        return False
    return bool(json.loads(done.read_text()) == {"shape": list(shape), "dtype": str(dtype)})


def _map(folder: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.from_file(str(folder / "codes"), shared=False, size=math.prod(shape), dtype=dtype).view(shape)
