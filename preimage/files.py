"""Files and folders that several parts write or read."""

import csv
import errno
import fcntl
import glob
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar

import yaml

from preimage.locks import PATIENCE, locked

#: Ends the name of what is being written: locks on some shared disks do not hold between machines.
_MACHINE = f"@{zlib.crc32(socket.gethostname().encode()):08x}"
#: Options of data that say how it is had, and not what it is.
DATA_PLACES = {"download", "cache_dir", "num_workers", "code_cache_limit_gb"}
_MARK = "[0-9a-f]" * 32
_DAY = 86400


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file beside its place and moves it there when it is on the disk, so that none is ever half-written.

    What a killed process left of the same file is removed.

    Args:
        path: The file to make or replace; its folder is made if need be.
        write: Called with the temporary path, which keeps the file's ending.

    Raises:
        OSError: The file could not be written; it is named, and is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(path.parent, path.name)
    temporary = path.with_name(f".{_new_mark()}-{path.name}")
    try:
        with locked(temporary, PATIENCE) as file:
            write(temporary)
            os.fsync(file)
            temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk has no name by itself
    finally:
        temporary.unlink(missing_ok=True)


def kept_checkpoint(run: Path) -> Path:
    """Where the best checkpoint of a run directory is, or the last one where there was no validation."""
    best, last = (run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    return best if best.is_file() else last


def write_text(path: Path, text: str) -> None:
    """Writes a text file as `write_atomically` does."""
    write_atomically(path, lambda file: file.write_bytes(text.encode()))


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file as `write_atomically` does."""
    write_text(path, json.dumps(content, indent=2))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Writes a CSV file as `write_atomically` does.

    Args:
        path: The file.
        rows: Values by column; those that a row lacks stay empty.
        columns: The columns, by default all that the rows have, in their order.
    """
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns or list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())


def clear_leftovers(folder: Path, name: str | None = None) -> None:
    """Removes what killed processes left half-written in a folder and below, but nothing that a living one is writing.

    Args:
        folder: The folder.
        name: Look at what was to become this file in it, and nothing else.
    """
    pattern = f".{_MARK}*-{'*' if name is None else glob.escape(name)}"
    for path in folder.rglob(pattern) if name is None else folder.glob(pattern):
        with suppress(OSError), path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its writer holds it
            if not _is_foreign(path):
                path.unlink()


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder to fill, which takes this one's place at the end, so that a killed build is never believed.

    What a killed build left is removed. The folder above is there, and the caller holds a lock of this one.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for other in folder.parent.glob(f"{folder.name}.{_MARK}*"):
        if not _is_foreign(other):
            shutil.rmtree(other, ignore_errors=True)
    building = folder.with_name(f"{folder.name}.{_new_mark()}")
    building.mkdir()
    try:
        yield building
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def reserve(path: Path, size: int, mend: str) -> None:
    """Makes a file that has its room on the disk: to write into a map of one that has not ends in SIGBUS.

    Args:
        path: The file to make.
        size: Its size, in bytes.
        mend: What to do where there is no room.

    Raises:
        OSError: There is no room; the folder, the size and what is free are named.
    """
    try:
        with path.open("wb", buffering=0) as file:
            _allocate(file, size)
    except OSError as error:
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"{path.parent.parent} has {free / 1e6:,.1f} MB free, and {size / 1e6:,.1f} MB are wanted"
            f" ({error.strerror}): {mend}"
        ) from error


def _allocate(file: FileIO, size: int) -> None:
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (AttributeError, OSError) as error:  # macOS, and file systems that cannot
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        for start in range(0, size, 1 << 20):
            file.write(bytes(min(1 << 20, size - start)))
        os.fsync(file)


def _new_mark() -> str:
    return f"{uuid.uuid4().hex}{_MACHINE}"  # nodes that share the folder share process ids


def _is_foreign(path: Path) -> bool:
    """Whether another machine may be writing it: it has touched it within a day."""
    return "@" in path.name and _MACHINE not in path.name and time.time() - path.stat().st_mtime < _DAY


def natural(name: str | Path) -> list[str | int]:
    """A key to sort by, which puts `version_2` before `version_10`."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", str(name)))]


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_commit() -> str | None:
    """The commit of this code, with `-dirty` after it where files were changed; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Reads a `metrics.csv`: one dictionary per row, without the cells that are empty.

    Raises:
        ValueError: It is no table of numbers.
    """
    try:
        with path.open(newline="") as file:
            return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def read_plain(path: Path) -> Any:
    """Reads a JSON or YAML file of nested mappings, lists, texts and numbers; `1e-4` is a number, a date is a text.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, nested too deep or within itself, or holds what is none of these; file and reason are
            named.
    """
    try:
        text = path.read_text()
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, _PlainLoader)
        _check_plain(content)
    except (ValueError, TypeError, OverflowError, RecursionError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        if isinstance(error, RecursionError):
            why = "it is nested too deep"
        elif isinstance(error, yaml.MarkedYAMLError):
            mark = error.problem_mark or error.context_mark
            why = f"{f'line {mark.line + 1}: ' if mark else ''}{error.problem or error.context}"
        raise ValueError(f"{path} cannot be read: {why}") from error
    return content


class _PlainLoader(yaml.SafeLoader):
    """YAML whose numbers are those of YAML 1.2, and whose dates are texts."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(("timestamp", "float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def _check_plain(content: Any) -> None:
    parts, count = [(content, 0)], 0
    while parts:
        part, depth = parts.pop()
        count += 1
        if depth > 100 or count > 1_000_000:  # counted as often as it is named: aliases can make much of little
            raise ValueError("it is nested too deep, or within itself" if depth > 100 else "it holds too much")
        if isinstance(part, dict):
            parts += [(value, depth + 1) for value in (*part, *part.values())]
        elif isinstance(part, list):
            parts += [(value, depth + 1) for value in part]
        elif isinstance(part, int):
            float(part)  # what is too large for it ends as an error wherever it is used
        elif isinstance(part, str):
            part.encode()  # half a surrogate pair cannot be written anywhere
        elif not isinstance(part, float | None):
            raise ValueError(f"it holds a {type(part).__name__}")
