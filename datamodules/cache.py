"""Arrays that are computed once, into a file on disk that later starts and other processes map into memory."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preimage.files import reserve, whole_folder, write_json
from preimage.locks import locked


def mapped(path: Path, shape: tuple[int, ...], dtype: torch.dtype, shared: bool = False) -> Tensor:
    """Maps a file into memory.

    Args:
        path: The file, of the array's size.
        shape: Shape of the array.
        dtype: Its type.
        shared: Write changes to the file, and do not keep them to this process.
    """
    return torch.from_file(str(path), shared=shared, size=math.prod(shape), dtype=dtype).view(shape)


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
