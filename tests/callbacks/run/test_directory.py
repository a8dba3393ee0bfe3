import errno
import json
import os
import resource
from pathlib import Path

import pytest
from PIL import Image

from lightning_modules.checkpoints import load_checkpoint
from preimage.files import read_metrics
from preimage.loggers import RunLogger
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


def test_classes_are_saved_in_their_order(run: Run) -> None:
    run_dir = run("fit", *QUICK) / "quickstart/version_0"
    assert json.loads((run_dir / "classes.json").read_text()) == [str(digit) for digit in range(10)]


def test_rows_on_a_full_disk_are_kept_for_later(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path)
    logger.log_metrics({"loss": 1.0}, 9)
    logger.save()
    logger.log_metrics({"loss": 2.0}, 19)
    limit, (soft, hard) = logger.path.stat().st_size + 3, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.warns(UserWarning, match=r"1 rows could not be written to .*metrics\.csv yet: .*File too large"):
            logger.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_metrics(logger.path) == [{"loss": 1.0, "step": 9}]
    logger.save()
    assert read_metrics(logger.path) == [{"loss": 1.0, "step": 9}, {"loss": 2.0, "step": 19}]


def test_a_disk_that_is_full_for_numbers_and_pictures_does_not_end_the_training(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RunLogger, "_write", full)
    monkeypatch.setattr(Image.Image, "save", full)
    flags = ["--trainer.callbacks", "[{class_path: ReconstructionGrid, init_args: {every_n_epochs: 1}}]"]
    with pytest.warns(UserWarning, match=r"images/reconstructions/.* could not be written: .*No space left"):
        run_dir = run("fit", *QUICK, *flags) / "quickstart/version_0"
    assert load_checkpoint(run_dir / "checkpoints/last.ckpt")["global_step"] == 3
    assert not (run_dir / "metrics.csv").exists()
