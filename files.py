"""Files and folders that several parts write or read."""

import csv
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file beside its place and moves it there when it is on the disk, so that none is ever half-written.

    Args:
        path: The file to make or replace; its folder is made if need be.
        write: Called with the temporary path, which keeps the file's ending.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}-{path.name}")  # nodes that share the folder share process ids
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder to fill, which takes the place of another at the end, so that a killed build is never believed.

    Args:
        folder: The folder to make or replace; that above it is there.
    """
    shutil.rmtree(folder, ignore_errors=True)
    building = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    building.mkdir()
    try:
        yield building
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_name(folder: Path, config: Mapping[str, Any]) -> str:
    """Name of the experiment that a run directory belongs to: the config's, else that of the folder above."""
    return str(config.get("name") or folder.resolve().parent.name)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Reads a `metrics.csv`: one dictionary per row, without the cells that are empty."""
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
