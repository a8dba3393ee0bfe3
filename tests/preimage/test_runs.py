"""Runs that are begun, killed, shared and gone on with: none is ever mixed with another."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback, Trainer

from preimage.__main__ import main
from preimage.beginning import _new
from preimage.checks import check_inside
from preimage.files import read_metrics
from preimage.locks import Busy, locked
from preimage.runs import LOCK
from tests.conftest import PLAIN, ROOT, Fails, Run, fork, wait_for

STOPS = [
    "--trainer.callbacks",
    "[{class_path: EarlyStopping, init_args: {monitor: val/loss, patience: 1, min_delta: 9}}]",
]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a folder, with its time."""
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def epochs(folder: Path) -> int:
    return sum("val/loss" in row for row in read_metrics(folder / "metrics.csv"))


class Killed(Callback):
    """Kills its process with signal 9 in its second step, or in its second epoch."""

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.current_epoch == self.epoch and trainer.global_step % 3 == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def kill(*flags: object, epoch: int = 0) -> None:
    """Runs a `fit` that is killed before its first checkpoint, or after it."""
    callback = f"{{class_path: {__name__}.Killed, init_args: {{epoch: {epoch}}}}}"
    process = fork(lambda: main(["fit", *PLAIN, *map(str, flags), "--trainer.callbacks", f"[{callback}]"]))
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


# Each run has its folder ----------------------------------------------------------------------------------------------


def test_three_fits_at_the_same_moment_have_three_runs(tmp_path: Path) -> None:
    root = ["--trainer.default_root_dir", str(tmp_path)]
    processes = [fork(lambda: main(["fit", *PLAIN, *root])) for _ in range(3)]
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    runs = sorted((tmp_path / "quickstart").iterdir())
    assert [run.name for run in runs] == ["version_0", "version_1", "version_2"]
    assert [epochs(run) for run in runs] == [1, 1, 1]
    assert not list(tmp_path.rglob(LOCK))


def test_no_number_is_given_twice(tmp_path: Path) -> None:
    start = multiprocessing.get_context("fork").Event()

    def make() -> None:
        start.wait()
        for _ in range(25):
            run, _, made = _new(tmp_path / "experiment")
            assert run.folder in made  # and so in nobody else's
            (run.folder / str(os.getpid())).touch()

    processes = [fork(make) for _ in range(4)]
    start.set()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    runs = list((tmp_path / "experiment").iterdir())
    assert {run.name for run in runs} == {f"version_{number}" for number in range(100)}
    assert all(len(list(run.iterdir())) == 1 for run in runs)


def test_a_file_where_a_folder_should_be_is_named(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    assert f"{tmp_path}/runs" in fails("fit", *PLAIN)


def test_what_fails_at_once_leaves_nothing_behind(run: Run, fails: Fails, tmp_path: Path) -> None:
    assert "learning rate: -1" in fails("fit", *PLAIN, "--model.optimizer.lr", -1, "--name", "a/b")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "mine/images").mkdir(parents=True)
    (tmp_path / "mine/images/cat.png").touch()
    fails("fit", *PLAIN, "--model.optimizer.lr", -1, "--run_dir", tmp_path / "mine")
    fails("fit", *PLAIN, "--model.optimizer.lr", -1, "--run_dir", tmp_path / "new/er")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    run("fit", *PLAIN, "--run_dir", tmp_path / "mine")  # nor does it remove anything
    assert (tmp_path / "mine/images/cat.png").exists()


OUTSIDE = [
    "../../escape",
    "/tmp/escape",
    "a/../../b",
    "a/..",
    "..",
    ".",
    "./a",
    "~/a",
    "a/",
    "a//b",
    "a\0b",
    "a\nb",
    "",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_leave_their_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"--name {name!r} must stay inside the folder")):
        check_inside("--name", name)


@pytest.mark.parametrize("option", ["--name", "--checkpoint.filename"])
def test_a_run_stays_inside_its_folder(fails: Fails, tmp_path: Path, option: str) -> None:
    for name in ("../../escape", ""):
        assert f"{option} {name!r} must stay inside the folder" in fails("fit", *PLAIN, f"{option}={name}")
    assert not list(tmp_path.iterdir())


def test_names_may_be_nested_and_not_endless(run: Run, fails: Fails, tmp_path: Path) -> None:
    for name in ("n" * 300, "a/" + "é" * 101):
        assert "is too long: give at most 200 bytes" in fails("fit", *PLAIN, "--name", name)
    run("fit", *PLAIN, "--name", "a b/ü", "--checkpoint.filename", "x/{epoch}")
    assert (tmp_path / "runs/a b/ü/version_0/checkpoints/x/0.ckpt").is_file()
    check_inside("--name", "..a/b..")


# Which run is gone on with --------------------------------------------------------------------------------------------


def test_last_is_the_newest_run_of_the_same_configuration(run: Run, fails: Fails) -> None:
    runs = run("fit", *PLAIN) / "quickstart"
    run("fit", *PLAIN, "--model.encoder.latent_dim", 5, "--model.decoder.latent_dim", 5)
    before = contents(runs / "version_1")
    may_change = ["--trainer.max_epochs", 2, "--data.cache_dir", runs / "cache"]
    run("fit", *PLAIN, "--ckpt_path", "last", *may_change)
    assert epochs(runs / "version_0") == 2
    for flags, difference in (
        (["--model.scheduler", "null"], "model.scheduler="),
        (["--seed_everything", 7], "seed_everything=0, not 7"),
        (["--data.batch_size", 64], "data.batch_size=32, not 64"),
        (["--model", "VAE", "--model.latent_dim", 12, "--model.encoder", "MNISTGaussianEncoder"], "model="),
        (["--trainer.accumulate_grad_batches", 2], "trainer.accumulate_grad_batches=1, not 2"),
    ):
        line = fails("fit", *PLAIN, "--ckpt_path", "last", *flags)
        other = runs / "version_1"
        assert "no run of this configuration; the newest has " in line
        assert f"--ckpt_path {other}/checkpoints/last.ckpt" in line
        assert difference in line or "model.encoder.latent_dim=5, not 12" in line
    assert contents(runs / "version_1") == before
    assert "latent_dim=12, not 3" in fails(
        "test", *PLAIN, "--model.encoder.latent_dim", 3, "--ckpt_path", "best", "--run_dir", runs / "version_0"
    )
    assert sorted(path.name for path in runs.iterdir()) == ["version_0", "version_1"]


def test_a_run_that_was_killed_before_its_first_checkpoint_is_no_dead_end(run: Run, tmp_path: Path) -> None:
    root = ["--trainer.default_root_dir", tmp_path / "runs", "--trainer.log_every_n_steps", 1]
    runs = run("fit", *PLAIN, "--model.encoder.latent_dim", 5, "--model.decoder.latent_dim", 5) / "quickstart"
    before = contents(runs / "version_0")
    for flags in (["--ckpt_path", "last"], ["--ckpt_path", "auto"], ["--run_dir", runs / "version_1"]):
        kill(*root, *(["--run_dir", runs / "version_1"]))
        assert not (runs / "version_1/checkpoints/last.ckpt").exists()
        run("fit", *PLAIN, *flags, "--trainer.log_every_n_steps", 1)
        steps = [row["step"] for row in read_metrics(runs / "version_1/metrics.csv") if "train/loss" in row]
        assert steps == sorted(set(steps))  # nothing is left of the first attempt
        assert epochs(runs / "version_1") == 1
        assert sorted(path.name for path in runs.iterdir()) == ["version_0", "version_1"]
        shutil.rmtree(runs / "version_1")
    assert contents(runs / "version_0") == before


def test_auto_goes_on_where_there_is_something_left(run: Run, fails: Fails, tmp_path: Path) -> None:
    root = ["--trainer.default_root_dir", tmp_path / "runs"]
    more = ["--trainer.max_epochs", 2]
    kill(*root, *more, "--ckpt_path", "auto", epoch=1)
    runs = run("fit", *PLAIN, *more, "--ckpt_path", "auto") / "quickstart"
    run("fit", *PLAIN, *more, "--ckpt_path", "auto", "--seed_everything", 1)
    assert {path.name: epochs(path) for path in runs.iterdir()} == {"version_0": 2, "version_1": 2}
    before = contents(runs)
    run("fit", *PLAIN, *more, "--ckpt_path", "auto")
    assert contents(runs) == before
    run("fit", *PLAIN, *more, "--ckpt_path", "auto", "--test_after_fit")  # of which the test is left
    assert "test/mse" in (runs / "version_0/metrics.csv").read_text()
    assert "another run, with seed_everything=1, not 0" in fails(
        "fit", *PLAIN, *more, "--ckpt_path", "auto", "--run_dir", runs / "version_1"
    )
    assert "--ckpt_path auto is for fit" in fails("test", *PLAIN, "--ckpt_path", "auto")


def test_what_cannot_be_gone_on_from_is_refused_or_trained_anew(run: Run, fails: Fails, tmp_path: Path) -> None:
    flags = ["--run_dir", tmp_path / "run", "--trainer.max_epochs", 2]
    run("fit", *PLAIN, *flags)
    (tmp_path / "run/checkpoints/last.ckpt").unlink()
    before = contents(tmp_path / "run")
    for which in ("last", "auto"):
        line = fails("fit", *PLAIN, *flags, "--ckpt_path", which)
        assert f"{tmp_path}/run holds a run without a checkpoints/last.ckpt to go on from" in line
    assert "the newest has model.optimizer.lr=0.008, not 1.0" in fails(
        "test", *PLAIN, *flags, "--model.optimizer.lr", 1, "--ckpt_path", "best"
    )
    assert contents(tmp_path / "run") == before
    unkept = [*flags, "--run_dir", tmp_path / "unkept", "--trainer.enable_checkpointing", "false"]
    run("fit", *PLAIN, *unkept)
    assert "holds a run without" in fails("fit", *PLAIN, *unkept)
    run("fit", *PLAIN, *unkept, "--ckpt_path", "auto")
    assert epochs(tmp_path / "unkept") == 2


def test_the_config_of_another_run_is_kept_where_its_checkpoint_is_named(run: Run) -> None:
    folder = run("fit", *PLAIN) / "quickstart/version_0"
    named = ["--ckpt_path", folder / "checkpoints/last.ckpt", "--trainer.max_epochs", 2]
    run("fit", *PLAIN, *named, "--model.optimizer.lr", 0.5)
    kept, written = (yaml.safe_load((folder / name).read_text()) for name in ("config_0.yaml", "config.yaml"))
    assert [part["model"]["init_args"]["optimizer"]["init_args"]["lr"] for part in (kept, written)] == [0.008, 0.5]


@pytest.mark.parametrize(
    ("flags", "reason", "cure"),
    [
        ([], "trainer.max_epochs=1", ["--trainer.max_epochs", 2]),
        (["--trainer.max_epochs", -1, "--trainer.max_steps", 4], "trainer.max_steps=4", ["--trainer.max_steps", 8]),
        (
            [*STOPS, "--trainer.max_epochs", 9],
            "it was stopped early",
            ["--trainer.callbacks", "null", "--trainer.max_epochs", 3],
        ),
        (
            ["--trainer.max_epochs", 900, "--trainer.max_time", "00:00:00:01"],
            "max_time",
            ["--trainer.max_time", "null", "--trainer.max_epochs", 1000],
        ),
    ],
)
def test_a_finished_run_says_so_and_stays_as_it_is(
    run: Run, caplog: pytest.LogCaptureFixture, flags: list[object], reason: str, cure: list[object]
) -> None:
    folder = run("fit", *PLAIN, *flags) / "quickstart/version_0"
    before = contents(folder)
    for which in ("last", "auto", folder / "checkpoints/last.ckpt"):
        with caplog.at_level("INFO"):
            caplog.clear()
            run("fit", *PLAIN, *flags, "--ckpt_path", which)
        (line,) = [record.getMessage() for record in caplog.records if " is finished after " in record.getMessage()]
        assert reason in line
        assert contents(folder) == before
    if "max_time" not in reason:
        run("fit", *PLAIN, *flags, *cure, "--ckpt_path", "last")
        assert contents(folder) != before


def test_a_run_that_was_trained_on_is_tested_again(run: Run) -> None:
    folder = run("fit", *PLAIN, "--test_after_fit") / "quickstart/version_0"
    more = [*PLAIN, "--trainer.max_epochs", 2, "--ckpt_path", "auto"]
    run("fit", *more)  # as if killed before the test; what was tested before is no longer so
    for flags, tests in (([], 0), (["--test_after_fit"], 1), (["--test_after_fit"], 1)):
        run("fit", *more, *flags)
        assert sum("test/loss" in row for row in read_metrics(folder / "metrics.csv")) == tests


def test_more_patience_trains_on(run: Run) -> None:
    folder = run("fit", *PLAIN, *STOPS, "--trainer.max_epochs", 9) / "quickstart/version_0"
    assert epochs(folder) == 2
    patient = [STOPS[0], STOPS[1].replace("patience: 1", "patience: 3")]
    run("fit", *PLAIN, *patient, "--trainer.max_epochs", 9, "--ckpt_path", "last")
    assert epochs(folder) == 4


def test_a_run_of_unknown_configuration_is_not_taken_for_another(run: Run, fails: Fails) -> None:
    folder = run("fit", *PLAIN) / "quickstart/version_0"
    for text in ("{[", "", "[1]"):
        (folder / "config.yaml").write_text(text)
        line = fails("fit", *PLAIN, "--ckpt_path", "last", "--trainer.max_epochs", 2)
        assert "the newest has no config.yaml that can be read" in line
    run("fit", *PLAIN, "--ckpt_path", folder / "checkpoints/last.ckpt", "--trainer.max_epochs", 2)
    assert epochs(folder) == 2


# Locks ----------------------------------------------------------------------------------------------------------------

HOLDER = """\
import subprocess, sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from preimage.locks import locked
with locked(Path(sys.argv[1])) as lock:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[lock])
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_a_lock_outlives_a_killed_parent_and_dies_with_its_last_child(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path), str(ROOT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        held = rf"process {parent.pid} on .* is at work on it"
        with pytest.raises(Busy, match=held), locked(path):
            pass
        parent.kill()
        parent.wait()
        with pytest.raises(Busy, match=held), locked(path):
            pass
        threading.Timer(0.3, os.kill, (child, signal.SIGKILL)).start()
        with locked(path, wait=30):
            assert path.read_text().startswith(f"process {os.getpid()} on ")
            with locked(path, shared=True):  # another process of the same run
                pass
    assert not path.exists()


def test_one_of_many_has_the_lock_at_a_time(tmp_path: Path) -> None:
    def work() -> None:
        for _ in range(30):
            with locked(tmp_path / "lock", wait=60):
                (tmp_path / "inside").mkdir()  # fails where another is inside
                (tmp_path / "inside").rmdir()

    processes = [fork(work) for _ in range(4)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


class Slow(Callback):
    """Says that the training has begun, and waits to be killed."""

    def on_train_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        Path(trainer.default_root_dir, "begun").touch()
        time.sleep(600)


def test_a_run_that_is_trained_is_left_to_its_process(
    run: Run, fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preimage.beginning.PATIENCE", 0.1)
    more = ["--trainer.max_epochs", 2, "--trainer.default_root_dir", str(tmp_path / "runs")]
    folder = run("fit", *PLAIN) / "quickstart/version_0"
    flags = ["--ckpt_path", "last", "--trainer.callbacks", f"{__name__}.Slow"]
    process = fork(lambda: main(["fit", *PLAIN, *map(str, more), *flags]))
    wait_for(tmp_path / "runs/begun", process)
    before = contents(folder)
    for command, which in (("fit", "last"), ("fit", "auto"), ("test", "best")):
        line = fails(command, *PLAIN, *more, "--ckpt_path", which)
        assert f"{folder}: process {process.pid} on " in line
        assert "is at work on it" in line
    assert contents(folder) == before
    process.kill()
    process.join(60)
    run("fit", *PLAIN, *more, "--ckpt_path", "last")
    assert epochs(folder) == 2
