"""Codes of a frozen encoder, computed once and kept in one file on disk that later runs map into memory.

All processes that want the same codes share the work, be they ranks of one run on one machine or on several, or other
runs: each encodes a block that no other is at, and none waits for another but by looking at the disk. What a killed
process has encoded stays, and a block that it was at is taken up by another.
"""

import hashlib
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only
from torch import Tensor

from preimage.files import reserve, write_atomically
from preimage.locks import Busy, locked
from preimage.progress import Progress

from .cache import Rows, mapped

BATCH = 64
_BLOCKS = 256  # at the most: each is put on the disk before it is believed, which takes some milliseconds
_POLL = 0.2  # seconds
Encode = Callable[[Tensor], Tensor]


def cache_codes(images: Tensor | Rows, encode: Encode, key: str, cache_dir: Path, limit_gb: float) -> Tensor:
    """Encodes images once; a second call with the same images and encoder maps what the first one wrote.

    A cache is believed, whole or half-written, only if it agrees with a few images that are encoded again.

    Args:
        images: uint8 images `(N, C, H, W)`; those in memory are told from others by their content.
        encode: Maps uint8 images `(B, C, H, W)` to codes `(B, ...)` on the CPU, the same at every call.
        key: What else the codes depend on: the encoder's weights and layer, the precision.
        cache_dir: Folder of all caches.
        limit_gb: Largest size on disk, in gigabytes.

    Returns:
        The codes `(N, ...)`, mapped into memory.

    Raises:
        ValueError: The codes would take more than `limit_gb`.
        OSError: The disk has no room for them, or another process has thrown them away as wrong.
    """
    some = torch.arange(0, len(images), max(1, len(images) // 8))
    sample = encode(images[some])
    shape, dtype = (len(images), *sample.shape[1:]), sample.dtype
    digest = hashlib.sha256(f"{key} {tuple(images.shape)} {shape} {dtype}".encode())
    digest.update(images.key.encode() if isinstance(images, Rows) else images.contiguous().numpy().data)
    folder, size = cache_dir / f"codes-{digest.hexdigest()[:32]}", math.prod(shape) * dtype.itemsize
    lock = folder.with_name(f"{folder.name}.lock")

    cache_dir.mkdir(parents=True, exist_ok=True)
    with locked(lock, wait=math.inf):
        if _agrees(folder, shape, some, sample):  # what is there takes no more room
            return mapped(folder / "codes", shape, dtype)
        shutil.rmtree(folder, ignore_errors=True)
        building = next(cache_dir.glob(f"{folder.name}.part-*"), folder.with_name("none"))
        if not _agrees(building, shape, some, sample):
            shutil.rmtree(building, ignore_errors=True)
            # Of a name of its own, so that whoever is still at the old one does not get into it.
            building = folder.with_name(f"{folder.name}.part-{uuid.uuid4().hex[:8]}")
            _begin(building, size, limit_gb)
            rank_zero_info(f"caching codes {shape} in {folder}, {size / 1e9:.3f} GB")
            write_atomically(building / "sample", lambda file: file.write_bytes(_bytes(sample)))
        held = (building / "codes").open("rb")  # and so known again, whatever becomes of its name
    path = folder / "codes"
    with held:
        _fill(building, images, encode)
        with locked(lock, wait=math.inf):
            _finish(building, folder, len(images))
            if not path.is_file() or not os.path.samestat(os.fstat(held.fileno()), path.stat()):
                raise OSError(f"{building} was thrown away by a process whose encoder gives other codes: start again")
    return mapped(path, shape, dtype)


def _agrees(folder: Path, shape: tuple[int, ...], some: Tensor, sample: Tensor) -> bool:
    """Whether a folder has codes of a shape, and some of them are the sample."""
    path, size = folder / "codes", math.prod(shape) * sample.dtype.itemsize
    if not path.is_file() or path.stat().st_size != size:
        return False
    beside = folder / "sample"  # of the same batch, and so rounded alike; an older cache has none
    there = mapped(beside, sample.shape, sample.dtype) if beside.is_file() else mapped(path, shape, sample.dtype)[some]
    scale = float(sample.float().nan_to_num(0, 0, 0).std(correction=0))
    close = torch.allclose(there.float(), sample.float(), rtol=1e-2, atol=1e-2 * scale, equal_nan=True)
    if not close:
        rank_zero_info(f"{folder} holds other codes than the encoder gives")
    return close


def _begin(building: Path, size: int, limit_gb: float) -> None:
    """Makes the folder with a file of zeros, or nothing where it is too large or the disk has no room for it."""
    if size > limit_gb * 1e9:
        raise ValueError(
            f"the codes would take {size / 1e9:.2f} GB on disk, more than data.code_cache_limit_gb={limit_gb}: raise"
            " it, or set model.cache_codes false"
        )
    building.mkdir()
    try:
        mend = "make room, set data.cache_dir to a folder on another disk, or model.cache_codes to false"
        reserve(building / "codes", size, mend)
    except OSError:
        shutil.rmtree(building)
        raise


def _finish(building: Path, folder: Path, count: int) -> None:
    """Gives the folder its name, unless another process was first."""
    if building.is_dir() and not _missing(building, count):
        building.rename(folder)
        for mark in (*folder.glob("*.done"), *folder.glob("*.lock")):
            mark.unlink(missing_ok=True)


def _write(building: Path, parts: Iterable[tuple[int, Tensor]]) -> None:
    """Puts codes `(B, ...)` on the disk, each from a row on.

    Written, and not mapped: where two machines write to one page of a map, either may undo what the other has done.
    """
    with (building / "codes").open("r+b") as file:
        for first, codes in parts:
            rows = _bytes(codes)
            file.seek(first * (len(rows) // len(codes)))
            file.write(rows)
        file.flush()
        os.fsync(file)


def _bytes(codes: Tensor) -> bytes:
    return codes.contiguous().view(torch.uint8).numpy().tobytes()


def _missing(building: Path, count: int) -> list[range]:
    """The blocks of so many images that nobody has encoded yet, by the marks in the folder."""
    step = BATCH * math.ceil(count / (BATCH * _BLOCKS))
    done = {int(mark.stem) for mark in building.glob("*.done")}
    return [range(start, min(start + step, count)) for start in range(0, count, step) if start not in done]


def _fill(building: Path, images: Tensor | Rows, encode: Encode) -> None:
    """Encodes, beside all others that do, until every block is done or the folder is gone."""

    def does(block: range) -> bool:
        """Encodes a block, unless another process has done it or is at it."""
        mark = building / f"{block.start}.done"
        with suppress(Busy), locked(building / f"{block.start}.lock"):
            if not mark.exists():
                firsts = block[::BATCH]
                _write(building, ((first, encode(images[first : first + BATCH])) for first in firsts))
                mark.touch()
                return True
        return False

    first = getattr(rank_zero_only, "rank", 0) == 0  # the bar counts what all have done
    bar = Progress(total=len(images), desc="encoding", unit="images") if first else nullcontext()
    with bar as shown:
        try:
            while building.is_dir():
                missing = _missing(building, len(images))
                if shown:
                    shown.update(len(images) - sum(map(len, missing)) - shown.n)
                if not missing:
                    break
                if not any(map(does, missing)):
                    time.sleep(_POLL)
        except FileNotFoundError:
            if building.is_dir():  # it is something else that is not there
                raise
