import json
from pathlib import Path

import pytest

from callbacks import RunLogger
from callbacks.run_directory import read_metrics, write_atomically
from tests.conftest import QUICK, Run


def test_rows_are_appended_and_new_columns_found_room(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path / "run")
    with pytest.raises(FileNotFoundError):
        read_metrics(logger.path)
    (tmp_path / "run").mkdir()
    logger.log_metrics({"train/loss": 3.0, "epoch": 0}, step=9)
    logger.save()
    logger.log_metrics({"train/loss": 2.0, "epoch": 1}, step=19)
    logger.log_metrics({"val/loss": 2.5, "epoch": 1}, step=19)
    logger.finalize("success")
    again = RunLogger(tmp_path / "run")  # a resumed run
    again.log_metrics({"val/loss": 1.5, "epoch": 2}, step=29)
    again.save()
    assert read_metrics(logger.path) == [
        {"train/loss": 3.0, "epoch": 0, "step": 9},
        {"train/loss": 2.0, "epoch": 1, "step": 19},
        {"val/loss": 2.5, "epoch": 1, "step": 19},
        {"val/loss": 1.5, "epoch": 2, "step": 29},
    ]


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path)
    for step in (9, 19, 29):
        logger.log_metrics({"loss": step / 3}, step)
    assert logger.rows() == 3
    with logger.path.open("a") as file:
        file.write("1.2e")  # a row that a killed run could not finish
    again = RunLogger(tmp_path)
    again.keep(2)
    again.log_metrics({"loss": 0}, 29)
    again.save()
    assert read_metrics(logger.path) == [{"loss": 3, "step": 9}, {"loss": 19 / 3, "step": 19}, {"loss": 0, "step": 29}]


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    write_atomically(tmp_path / "file", lambda path: path.write_text("whole"))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "file", fail)
    assert (tmp_path / "file").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_classes_are_saved_in_their_order(run: Run) -> None:
    run_dir = run("fit", *QUICK) / "quickstart/version_0"
    assert json.loads((run_dir / "classes.json").read_text()) == [str(digit) for digit in range(10)]
