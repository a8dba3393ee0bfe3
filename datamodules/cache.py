"""Arrays that are computed once, into a file on disk that later starts and other processes map into memory."""

import hashlib
import json
import math
import mmap
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preimage.files import reserve, whole_folder, write_json
from preimage.locks import locked

#: Reserves no memory for the pages of a map that are written to: where any might be, Linux refuses one larger than all.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


def mapped(path: Path, shape: tuple[int, ...], dtype: torch.dtype, shared: bool = False) -> Tensor:
    """Maps a file into memory.

    Args:
        path: The file, of the array's size.
        shape: Shape of the array.
        dtype: Its type.
        shared: Write changes to the file, and do not keep them to this process.
    """
    flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE | _NO_RESERVE
    with path.open("r+b" if shared else "rb") as file:
        pages = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return torch.frombuffer(pages, dtype=dtype).view(shape)


class Rows:
    """Some rows of an array that is mapped into memory, of which no more is read than is asked for.

    Args:
        array: The whole array `(N, ...)`.
        index: Which of its rows, in this order `(M,)`.
        key: What tells the array from others, in place of its content.

    Attributes:
        shape: `(M, ...)`.
        key: What tells these rows from others.
    """

    def __init__(self, array: Tensor, index: Tensor, key: str) -> None:
        self.array = array
        self.index = index
        self.shape = torch.Size((len(index), *array.shape[1:]))
        self.key = f"{key} {hashlib.sha256(index.numpy().tobytes()).hexdigest()}"

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.index)

    def __getitem__(self, rows: int | slice | Tensor) -> Tensor:
        """Reads the row `(...)` of a number, or the rows `(K, ...)` of a slice, or of indices or a mask."""
        index = self.index[rows]
        return self.array.index_select(0, index) if index.ndim else self.array[index].clone()

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Reads rows `(K, ...)`, as a tensor does; `dim` is 0."""
        return self.array.index_select(dim, self.index[index])

    def split(self, size: int) -> Iterator[Tensor]:
        """Reads all rows in order, so many at a time."""
        return (self.array.index_select(0, index) for index in self.index.split(size))


def cached_array(
    path: Path,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    fill: Callable[[Path], dict[str, Any]],
    mend: str,
    is_right: Callable[[Tensor], bool] = lambda array: True,
) -> tuple[Tensor, dict[str, Any]]:
    """Fills an array once; a second call maps what the first one wrote.

    It is filled in a folder of its own, which is renamed when it is whole, so that a killed run leaves nothing that is
    later believed. Of several processes, also of other runs and nodes, one fills it and the others wait.

    Args:
        path: File of the array, alone in a folder whose name tells all that the array depends on.
        shape: Its shape, with at least one element.
        dtype: Its type.
        fill: Fills the array whose file, of zeros, it is given; returns what is to be kept beside it, as JSON can.
        mend: What to do where the disk has no room.
        is_right: Looks at an array that is there; one that is not right is made anew.

    Returns:
        The array, mapped into memory, and what is kept beside it.

    Raises:
        OSError: The disk has no room for it.
    """
    folder, done, size = path.parent, path.parent / "done.json", math.prod(shape) * dtype.itemsize
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{folder.name}.lock"), wait=math.inf):
        if done.is_file() and path.is_file() and path.stat().st_size == size:
            array = mapped(path, shape, dtype)
            if is_right(array):
                return array, json.loads(done.read_text())
        with whole_folder(folder) as building:
            reserve(building / path.name, size, mend)
            beside = fill(building / path.name)
            write_json(building / "done.json", beside)
    return mapped(path, shape, dtype), beside
