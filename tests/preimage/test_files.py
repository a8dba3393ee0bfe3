import errno
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preimage import files
from preimage.files import clear_leftovers, reserve, whole_folder, write_atomically
from tests.conftest import fork, wait_for


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    write_atomically(tmp_path / "file", lambda path: path.write_text("whole"))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "file", fail)
    assert (tmp_path / "file").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_two_nodes_that_write_a_file_at_a_time_do_not_meet(tmp_path: Path) -> None:
    def write(path: Path) -> None:  # what the other node writes meanwhile, where process ids are given out alike
        path.write_text("first")
        write_atomically(tmp_path / "file", lambda other: other.write_text("second"))
        assert (tmp_path / "file").read_text() == "second"

    write_atomically(tmp_path / "file", write)
    assert (tmp_path / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Any]:
    """A process that is writing `file`, and has written half of it."""

    def write(path: Path) -> None:
        path.write_text("half")
        (tmp_path / "writes").touch()
        time.sleep(600)

    process = fork(lambda: write_atomically(tmp_path / "file", write))
    wait_for(tmp_path / "writes", process)
    yield process
    process.kill()
    process.join()


def hidden(folder: Path) -> list[Path]:
    return list(folder.rglob(".*"))


def test_what_a_killed_process_left_is_removed_but_not_what_a_living_one_writes(tmp_path: Path, writer: Any) -> None:
    (half,) = hidden(tmp_path)
    write_atomically(tmp_path / "file", lambda path: path.write_text("mine"))
    clear_leftovers(tmp_path.parent)
    assert hidden(tmp_path) == [half]
    writer.kill()
    writer.join()
    write_atomically(tmp_path / "other", lambda path: path.write_text("mine"))
    assert hidden(tmp_path) == [half]  # that of another file
    write_atomically(tmp_path / "file", lambda path: path.write_text("mine"))
    assert hidden(tmp_path) == []


def test_what_another_machine_may_be_writing_stays_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MACHINE", "@01234567")
    half, other = (tmp_path / name for name in (f".{files._new_mark()}-file", f"cache.{files._new_mark()}"))
    monkeypatch.undo()
    for age, left in ((0, True), (90_000, False)):
        half.touch()
        other.mkdir(exist_ok=True)
        for path in (half, other):
            os.utime(path, (time.time() - age,) * 2)
        clear_leftovers(tmp_path)
        with whole_folder(tmp_path / "cache"):
            assert other.exists() == half.exists() == left


def test_a_killed_build_is_removed_by_the_next_one_of_the_same_folder(tmp_path: Path) -> None:
    for name in ("cache", "other"):
        (tmp_path / f"{name}.{uuid.uuid4().hex}").mkdir()
    with whole_folder(tmp_path / "cache"):
        pass
    assert [path.name.split(".")[0] for path in sorted(tmp_path.iterdir())] == ["cache", "other"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` raises it: without a name

    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/file'"):
        write_atomically(tmp_path / "file", full)


@pytest.mark.parametrize("reason", [errno.EOPNOTSUPP, errno.EINVAL])
def test_room_is_reserved_also_where_the_file_system_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    def refuse(*args: int) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    reserve(tmp_path / "file", 3_000_000, "")
    stat = (tmp_path / "file").stat()
    assert (stat.st_size, stat.st_blocks * 512 >= 3_000_000) == (3_000_000, True)
    monkeypatch.delattr(os, "posix_fallocate")  # as on macOS
    reserve(tmp_path / "other", 10, "")
    assert (tmp_path / "other").stat().st_size == 10
