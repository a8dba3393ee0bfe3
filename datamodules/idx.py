"""The IDX format of the MNIST family, plain or gzipped."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


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
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): fetch it again") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
        raise ValueError(f"{path} is not an IDX file of bytes: fetch it again")
    shape = np.frombuffer(data, dtype=">u4", count=data[3], offset=4).tolist()
    start, size = 4 + 4 * data[3], int(np.prod(shape))
    if len(data) != start + size:
        raise ValueError(
            f"{path} is truncated or damaged: {len(data) - start} bytes of {size} are there, fetch it again"
        )
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).view(shape)
