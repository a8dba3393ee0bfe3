"""The IDX format of the MNIST family, plain or gzipped."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

LARGEST = 2**30  # bytes; MNIST's largest file holds a twentieth


def read_idx(path: Path) -> Tensor:
    """Reads an IDX file of unsigned bytes.

    Args:
        path: The file; a name that ends in `.gz` is unpacked on the way.

    Returns:
        A uint8 tensor of the shape in the file's header.

    Raises:
        ValueError: The file is truncated, damaged, or not an IDX file of bytes.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): fetch it again") from error
    if len(data) > LARGEST:
        raise ValueError(f"{path} is refused: it holds more than {LARGEST} bytes")
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
        raise ValueError(f"{path} is not an IDX file of bytes: fetch it again")
    shape = np.frombuffer(data, dtype=">u4", count=data[3], offset=4).tolist()
    start, size = 4 + 4 * data[3], int(np.prod(shape))
    if len(data) != start + size:
        raise ValueError(
            f"{path} is truncated or damaged: {len(data) - start} bytes of {size} are there, fetch it again"
        )
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).view(shape)
