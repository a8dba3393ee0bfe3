from pathlib import Path

import pytest

from files import write_atomically


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
