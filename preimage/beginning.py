"""How a command begins: which run it goes on with or makes, and how others are kept out of it."""

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_modules.checkpoints import load_checkpoint
from preimage.checks import check_inside
from preimage.locks import PATIENCE, Busy
from preimage.runs import LOCK, Run

_ANOTHER = "give another --run_dir"


def experiment_directory(config: Namespace) -> Path:
    """The folder of an experiment: `default_root_dir/name`."""
    name = config.name
    if name is None:
        name = Path(str(config.config[0])).stem if config.config else config.model.class_path.rsplit(".", 1)[-1]
    check_inside("--name", name)
    if config.model.get("init_args.encoder.init_args.weights") == "random":
        name += "_random"  # features of no trained network: nobody is to take them for those of one
    return Path(config.trainer.default_root_dir) / name


class Start(NamedTuple):
    """What a command begins with."""

    folder: str
    checkpoint: str | None = None
    finished: str = ""
    to_test: bool = False


class Beginning:
    """Finds or makes the run of a command, and keeps it from others until the command ends.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        config: The configuration of the command.
        text: What `config.yaml` is to hold.
        held: Takes what is to end with the command: the lock, and a folder in which nothing came to be.
    """

    def __init__(self, command: str, config: Namespace, text: str, held: ExitStack) -> None:
        self.command, self.config, self.text, self.held = command, config, text, held
        self.settings = yaml.safe_load(text)
        self.which = config.ckpt_path
        if self.which not in (None, "last", "best", "auto") and Path(self.which).is_dir():
            run = Run(self.which)
            self.which = str(run.checkpoint("last") if command == "fit" else run.kept)
        if self.which is None and command == "fit" and os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0"):
            self.which = "auto"

    def start(self) -> Start:
        """Chooses the run and locks it.

        Raises:
            FileNotFoundError: There is no such checkpoint, or no run of this configuration.
            FileExistsError: The run directory holds another run.
            Busy: Another process is at work on the run.
        """
        if self.which == "auto" and self.command != "fit":
            raise ValueError(f"--ckpt_path auto is for fit: give {self.command} last, best or a file")
        if self.config.run_dir == "":
            raise ValueError("--run_dir is empty: give a folder, or leave it out for the next version_N")
        experiment = experiment_directory(self.config)
        candidates = self._candidates(experiment)
        if self.settings["trainer"].get("fast_dev_run") or self.settings["trainer"].get("barebones"):  # writes nothing
            run = (candidates or [Run(experiment / "version_0")])[0]
            return Start(str(run.folder), self._checkpoint(run))
        busy = None
        for run, wait in [(run, wait) for wait in (0, PATIENCE) for run in candidates]:
            try:
                done = self._done(run)
                return done if done and not done.to_test else self._begin(run, wait)
            except Busy as error:
                busy = Busy(f"{run.folder}: {error}; wait for it, or {_ANOTHER}")
        if busy is not None:
            raise busy
        return self._begin(*_new(experiment))

    def _candidates(self, experiment: Path) -> list[Run]:
        """The runs that the command may go on with, the best one first; none where it needs a new one."""
        chosen = [Run(self.config.run_dir)] if self.config.run_dir else []
        if self.which is None:
            return chosen
        if self.which not in ("last", "best", "auto"):
            load_checkpoint(self.which)
            run = Run(Path(self.which).parent.parent)
            return chosen or [run] * (run.folder / "config.yaml").is_file()
        if self.which == "auto":
            return chosen or [run for run in _versions(experiment) if not self._unlike(run)]
        runs = [run for run in chosen or _versions(experiment) if run.folder.is_dir()]
        begun_anew = self.command == "fit" and self.which == "last"  # where it was killed before its first checkpoint
        for run in runs:
            if begun_anew and chosen and not run.holds_work:
                return [run]
            if (begun_anew or run.checkpoint(self.which).is_file()) and not self._unlike(run):
                return [run]
        other = next((run for run in runs if (run.config or run.holds_work) and self._unlike(run)), None)
        if other is None:
            where = self.config.run_dir or experiment / "version_*"
            text = f"there is no checkpoints/{self.which}.ckpt in {where}; train first"
        else:
            path = other.checkpoint(self.which)
            cure = f"to go on nevertheless: --ckpt_path {path}" if path.is_file() else f"it is {other.folder}"
            text = f"no run of this configuration; the newest has {self._unlike(other)}; {cure}"
        raise FileNotFoundError(f"--ckpt_path {self.which}: {text}")

    def _unlike(self, run: Run) -> str:
        return run.unlike(self.settings, self.command)

    def _checkpoint(self, run: Run) -> str | None:
        if self.which in ("last", "auto"):
            return str(run.checkpoint("last")) if run.checkpoint("last").is_file() else None
        return str(run.checkpoint("best")) if self.which == "best" else self.which

    def _done(self, run: Run) -> Start | None:
        """What to begin with where there is nothing left to train."""
        checkpoint = self._checkpoint(run)
        if self.command != "fit" or checkpoint is None or not run.folder.is_dir():
            return None
        if self.which in ("last", "best", "auto") and (unlike := self._unlike(run)):
            raise FileExistsError(
                f"{run.folder} holds another run, with {unlike}: {_ANOTHER}, or to go on nevertheless --ckpt_path"
                f" {checkpoint}"
            )
        if Path(checkpoint).absolute() != run.checkpoint("last").absolute():
            return None
        finished = run.finished(self.settings["trainer"])
        to_test = bool(self.config.test_after_fit) and not run.tested
        return Start(str(run.folder), checkpoint, finished, to_test) if finished else None

    def _begin(self, run: Run, wait: float = 0, made: Sequence[Path] = ()) -> Start:
        """Locks a run, and looks again, at what another process may have done in the meantime."""
        made = made or _missing(run.folder)
        run.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(run.lock(wait))
            stack.push(partial(_discard, run.folder, made))
            run = Run(run.folder)
            start = self._done(run) or Start(str(run.folder), self._checkpoint(run))
            if self.command == "fit" and start.checkpoint is None:
                self._clear(run)
            if made or (self.command == "fit" and start.checkpoint is None):
                run.write_config(self.text)
            self.held.enter_context(stack.pop_all())
        return start

    def _clear(self, run: Run) -> None:
        """Makes room for a run that begins; one that was to keep no checkpoints can only begin anew."""
        if run.checkpoint("last").is_file():
            raise FileExistsError(f"{run.folder} holds a run: resume it with --ckpt_path last, or {_ANOTHER}")
        if run.holds_work and not (self.which == "auto" and run.keeps_none):
            raise FileExistsError(f"{run.folder} holds a run without a checkpoints/last.ckpt to go on from: {_ANOTHER}")
        if "trainer" in run.config:  # else it was no run, and what lies there is the user's
            rank_zero_info(f"{run.folder} has no checkpoint to go on from: the run begins anew")
            (run.folder / "metrics.csv").unlink(missing_ok=True)


def _versions(experiment: Path) -> list[Run]:
    """The runs of an experiment, newest first."""
    runs = [path for path in experiment.glob("version_*") if re.fullmatch(r"version_[0-9]+", path.name)]
    return [Run(path) for path in sorted(runs, key=_number, reverse=True)]


def _number(folder: Path) -> int:
    return int(folder.name.removeprefix("version_"))


def _new(experiment: Path) -> tuple[Run, float, list[Path]]:
    """The next `version_N`, which no other process has: it is the one to make its folder."""
    number = next((_number(run.folder) + 1 for run in _versions(experiment)), 0)
    while True:
        folder = experiment / f"version_{number}"
        made = _missing(folder)
        try:
            folder.mkdir(parents=True)
            return Run(folder), 0, made
        except FileExistsError:
            if not folder.exists():  # a file is in the way above
                raise
            number += 1


def _missing(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _discard(folder: Path, made: Sequence[Path], failed: type[BaseException] | None, *_: Any) -> None:
    """Removes a folder that a command has made, which failed before its first number."""
    names = (LOCK, "config.yaml", "classes.json", "bad_images.json")
    if failed is None or folder not in made or set(os.listdir(folder)) - set(names):
        return
    with suppress(OSError):  # another process may have begun a run beside it
        for name in names:
            (folder / name).unlink(missing_ok=True)
        for path in made:
            path.rmdir()
