"""A run is a folder: how it is numbered, what it holds, and which one a command begins or goes on with."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from copy import deepcopy
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from lightning_modules.checkpoints import load_checkpoint
from lightning_modules.retired import renewed_config
from preimage.files import DATA_PLACES, check_inside, read_metrics, read_plain, run_name, write_text
from preimage.locks import PATIENCE, Busy, locked
from preimage.trainer_options import as_list

LOCK = ".lock"
#: What makes an experiment what it is, beside what of the trainer is learned by.
_EXPERIMENT = {"seed_everything", "name", "model", "data", "cpu_precision"}
#: What of the trainer is learned by, and not where, how long and how closely watched it trains.
_TRAINED = {"accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches"}
_TRAINED |= {"overfit_batches"}
#: What a callback searches before a training, so that `config.yaml` has another value than was asked for.
_SEARCHED = {"LearningRateFinder": ("model", "optimizer", "lr"), "BatchSizeFinder": ("data", "batch_size")}


class Run:
    """One training with all that comes of it."""

    def __init__(self, folder: str | Path, chosen: Path | None = None) -> None:
        """Looks at nothing yet.

        Args:
            folder: The run directory, whether there is one or not.
            chosen: The checkpoint that is meant, where that is not the best one.
        """
        self.folder = Path(folder)
        self.chosen = chosen

    @cached_property
    def config(self) -> dict[str, Any]:
        """What `config.yaml` holds, as this version has it; nothing where there is none, or none that can be read."""
        try:
            config = renewed_config(read_plain(self.folder / "config.yaml"))
        except (OSError, ValueError):
            return {}
        return config if isinstance(config, dict) else {}

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return run_name(self.folder, self.config)

    def checkpoint(self, name: str) -> Path:
        """Where the checkpoint `last` or `best` is, if there is one."""
        return self.folder / "checkpoints" / f"{name}.ckpt"

    @property
    def kept(self) -> Path:
        """The chosen checkpoint, else the best one, or the last one where there was no validation."""
        best = self.checkpoint("best")
        return self.chosen or (best if best.is_file() else self.checkpoint("last"))

    @property
    def keeps_none(self) -> bool:
        """Whether the run was told to keep no checkpoints."""
        return (self.config.get("trainer") or {}).get("enable_checkpointing") is False

    def logged(self) -> list[dict[str, float]]:
        """The rows of `metrics.csv`; none where it is missing or damaged."""
        try:
            return read_metrics(self.folder / "metrics.csv")
        except (OSError, ValueError):
            return []

    @property
    def holds_work(self) -> bool:
        """Whether there is more than what an attempt leaves that ended before its first `last.ckpt`."""
        rows = self.logged()
        begun = bool(rows) if self.keeps_none else any(row.get("epoch", 0) >= 1 for row in rows)
        return begun or self.checkpoint("last").is_file()

    @property
    def tested(self) -> bool:
        """Whether it was tested since it was last trained."""
        kinds = [kind for row in self.logged() if (kind := {key.split("/")[0] for key in row} & {"train", "test"})]
        return bool(kinds) and "test" in kinds[-1]

    def finished(self, trainer: Mapping[str, Any]) -> str:
        """Why there is nothing left to train, and how to train on; empty where there is something left.

        Args:
            trainer: The configuration of the trainer that would go on.
        """
        last = self.checkpoint("last")
        if not last.is_file():
            return ""
        saved = load_checkpoint(last)
        epoch, step = saved.get("epoch", 0), saved.get("global_step", 0)
        if type(epoch) is not int or type(step) is not int:
            return ""  # a damaged checkpoint, which is refused later
        most_epochs, most_steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
        if most_epochs is None and most_steps == -1 and trainer.get("max_time") is None:
            most_epochs = 1000  # as Lightning has it
        if -1 < (-1 if most_epochs is None else most_epochs) <= epoch:
            why, cure = f"trainer.max_epochs={most_epochs}", "raise it"
        elif -1 < most_steps <= step:
            why, cure = f"trainer.max_steps={most_steps}", "raise it"
        elif saved.get("run_state", {}).get("stopped") == stoppers(trainer):
            limit = trainer.get("max_time")
            why, cure = ("it was stopped early", "give EarlyStopping more patience, or leave it out")
            if limit is not None:
                why, cure = f"{why}, or trainer.max_time={limit} is over", f"{cure}, or raise the time"
        else:
            return ""
        return f"{self.folder} is finished after {epoch} epochs and {step} steps ({why}); to train on, {cure}"

    def unlike(self, config: Mapping[str, Any], command: str) -> str:
        """The first option in which the run was another experiment than a configuration, in words; empty for none.

        Args:
            config: The configuration.
            command: `fit`, for which it matters how the run was trained, or another.
        """
        if not self.config:
            return "no config.yaml that can be read"
        found = _difference(_compared(self.config, command), _compared(config, command))
        return f"{found[0]}={_short(found[1])}, not {_short(found[2])}" if found else ""

    def lock(self, wait: float = 0, shared: bool = False) -> AbstractContextManager[int]:
        """Keeps other processes out, see `locks.locked`."""
        return locked(self.folder / LOCK, wait, shared)

    def write_config(self, text: str, command: str = "fit") -> None:
        """Writes `config.yaml`; that of another experiment, which this run goes on from, is kept as `config_N.yaml`."""
        path = self.folder / "config.yaml"
        if path.is_file() and Run(self.folder).unlike(yaml.safe_load(text), command):
            path.rename(next(place for n in count() if not (place := path.with_name(f"config_{n}.yaml")).exists()))
        write_text(path, text)


def stoppers(trainer: Mapping[str, Any]) -> str:
    """What may end a training before its last epoch, as text: the time, and callbacks that are not known to watch only.

    Args:
        trainer: The configuration of the trainer.
    """
    watching = re.compile(r"callbacks\.|lightning\.(?!.*\.(EarlyStopping|Timer)$)")
    chosen = [part for name, part in _callbacks(trainer) if not watching.match(name)]
    limits = [trainer.get(key) for key in ("max_time", "min_epochs", "min_steps")]
    return json.dumps([limits, chosen], sort_keys=True, default=str)


def _callbacks(trainer: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Class and configuration of the callbacks."""
    parts = as_list(trainer.get("callbacks"))
    return [(str(part.get("class_path", "")), part) for part in parts if isinstance(part, dict)]


def _compared(config: Mapping[str, Any], command: str) -> dict[str, Any]:
    """The options that make an experiment what it is."""
    parts = {key: value for key, value in deepcopy(dict(config)).items() if key in _EXPERIMENT}
    trainer = config.get("trainer") or {}
    for name in {name.rpartition(".")[2] for name, _ in _callbacks(trainer)} & set(_SEARCHED):
        *path, option = _SEARCHED[name]
        part: Any = parts
        for key in path:
            part = (part.get(key) or {}).get("init_args") or {}
        part.pop(option, None)
    encoder = ((parts.get("model") or {}).get("init_args") or {}).get("encoder")
    features = (encoder.get("init_args") or {}) if isinstance(encoder, dict) else {}
    if features.get("image_size") == "own" and str(features.get("network")).isidentifier():
        features["image_size"] = 224  # of torchvision's networks; earlier versions wrote the number
    if command == "fit":
        parts["trainer"] = {key: trainer[key] for key in sorted(_TRAINED & set(trainer))}
        learning = re.compile("Averag|Finetun|Prun|Accumul")
        parts["trainer"]["callbacks"] = [name for name, _ in _callbacks(trainer) if learning.search(name)]
    return parts


def _difference(there: Any, here: Any, option: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(there, dict) and isinstance(here, dict):
        # An option that only one of the two knows is one that came or went with a version of this project.
        for key in (key for key in here if key in there and key not in DATA_PLACES):
            name = option if key in ("class_path", "init_args") else f"{option}.{key}".removeprefix(".")
            if found := _difference(there[key], here[key], name):
                return found
        return None
    if option.rsplit(".", 1)[-1] in ("root", "encoder_checkpoint") and isinstance(there, str) and isinstance(here, str):
        there, here = os.path.realpath(there), os.path.realpath(here)
    return None if there == here else (option, there, here)


def claimed(folder: Path) -> AbstractContextManager[int]:
    """Keeps other processes out of what becomes of a folder, from before its run begins until its figures are written.

    Args:
        folder: The run directory, beside which the lock is; that above it is made if need be.

    Raises:
        Busy: Another process is at work on it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if getattr(rank_zero_only, "rank", 0):  # a process that Lightning has started for this one runs the same command
        return nullcontext(-1)
    return locked(folder.with_name(f".{folder.name}.lock"))


def experiment_directory(config: Namespace) -> Path:
    """The folder of an experiment: `default_root_dir/name`."""
    name = config.name
    if name is None:
        name = Path(str(config.config[0])).stem if config.config else config.model.class_path.rsplit(".", 1)[-1]
    check_inside("--name", name)
    if config.model.get("init_args.encoder.init_args.weights") == "random":
        name += "_random"  # features of no trained network: nobody is to take them for those of one
    return Path(config.trainer.default_root_dir) / name


def versions(folder: Path) -> list[Run]:
    """The runs of an experiment, newest first."""
    runs = [path for path in folder.glob("version_*") if re.fullmatch(r"version_[0-9]+", path.name)]
    return [Run(path) for path in sorted(runs, key=_number, reverse=True)]


def _number(path: Path) -> int:
    return int(path.name.removeprefix("version_"))


class Start(NamedTuple):
    """What a command begins with."""

    folder: str
    checkpoint: str | None = None
    finished: str = ""
    to_test: bool = False


class Beginning:
    """Finds or makes the run of a command, and keeps it from others until the command ends."""

    def __init__(self, command: str, config: Namespace, text: str, held: ExitStack) -> None:
        """Looks at nothing yet.

        Args:
            command: `fit`, `validate`, `test` or `predict`.
            config: The configuration of the command.
            text: What `config.yaml` is to hold.
            held: Takes what is to end with the command: the lock, and a folder in which nothing came to be.
        """
        self.command, self.config, self.text, self.held = command, config, text, held
        self.settings = yaml.safe_load(text)
        self.which = config.ckpt_path
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
        for wait in (0, PATIENCE) if candidates else ():
            for run in candidates:
                try:
                    done = self._done(run)
                    return done if done and not done.to_test else self._begin(run, wait)
                except Busy as error:
                    busy = Busy(f"{run.folder}: {error}; wait for it, or give another --run_dir")
        if busy is not None:
            raise busy
        return self._begin(*_new(experiment))

    def _candidates(self, experiment: Path) -> list[Run]:
        """The runs that the command may go on with, the best one first; none where it needs a new one."""
        given = [Run(self.config.run_dir)] if self.config.run_dir else []
        if self.which is None:
            return given
        if self.which not in ("last", "best", "auto"):
            load_checkpoint(self.which)
            run = Run(Path(self.which).parent.parent)
            return given or [run] * (run.folder / "config.yaml").is_file()
        if self.which == "auto":
            return given or [run for run in versions(experiment) if not run.unlike(self.settings, self.command)]
        runs = [run for run in given or versions(experiment) if run.folder.is_dir()]
        begun_anew = self.command == "fit" and self.which == "last"  # where it was killed before its first checkpoint
        for run in runs:
            if begun_anew and given and not run.holds_work:
                return [run]
            there = begun_anew or run.checkpoint(self.which).is_file()
            if there and not run.unlike(self.settings, self.command):
                return [run]
        raise self._none(
            given or [Run(experiment / "version_*")], [run for run in runs if run.config or run.holds_work]
        )

    def _none(self, where: list[Run], others: list[Run]) -> FileNotFoundError:
        """Says that there is no run to go on with, and what is there instead."""
        for run in others:
            if unlike := run.unlike(self.settings, self.command):
                path = run.checkpoint(str(self.which))
                cure = f"to go on nevertheless: --ckpt_path {path}" if path.is_file() else f"it is {run.folder}"
                return FileNotFoundError(
                    f"--ckpt_path {self.which}: no run of this configuration; the newest has {unlike}; {cure}"
                )
        name, place = f"{self.which}.ckpt", where[0].folder
        return FileNotFoundError(f"--ckpt_path {self.which}: there is no checkpoints/{name} in {place}; train first")

    def _checkpoint(self, run: Run) -> str | None:
        if self.which in ("last", "auto"):
            return str(run.checkpoint("last")) if run.checkpoint("last").is_file() else None
        return str(run.checkpoint("best")) if self.which == "best" else self.which

    def _done(self, run: Run) -> Start | None:
        """What to begin with where there is nothing left to train."""
        checkpoint = self._checkpoint(run)
        if self.command != "fit" or checkpoint is None or not run.folder.is_dir():
            return None
        unlike = self.which in ("last", "best", "auto") and run.unlike(self.settings, self.command)
        if unlike:
            raise FileExistsError(
                f"{run.folder} holds another run, with {unlike}: give another --run_dir, or to go on nevertheless"
                f" --ckpt_path {checkpoint}"
            )
        if Path(checkpoint).absolute() != run.checkpoint("last").absolute():
            return None
        finished = run.finished(self.settings["trainer"])
        to_test = bool(self.config.test_after_fit) and not run.tested
        return Start(str(run.folder), checkpoint, finished, to_test) if finished else None

    def _begin(self, run: Run, wait: float = 0, made: Sequence[Path] = ()) -> Start:
        """Locks a run, and looks again, at what another process may have done in the meantime."""
        made = made or [path for path in (run.folder, *run.folder.parents) if not path.exists()]
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
            raise FileExistsError(
                f"{run.folder} holds a run: resume it with --ckpt_path last, or give another --run_dir"
            )
        if run.holds_work and not (self.which == "auto" and run.keeps_none):
            raise FileExistsError(
                f"{run.folder} holds a run without a checkpoints/last.ckpt to go on from: give another --run_dir"
            )
        if "trainer" in run.config:  # else it was no run, and what lies there is the user's
            rank_zero_info(f"{run.folder} has no checkpoint to go on from: the run begins anew")
            (run.folder / "metrics.csv").unlink(missing_ok=True)


def _new(experiment: Path) -> tuple[Run, float, list[Path]]:
    """The next `version_N`, which no other process has: it is the one to make its folder."""
    number = next((_number(run.folder) + 1 for run in versions(experiment)), 0)
    while True:
        folder = experiment / f"version_{number}"
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.exists():  # a file is in the way above
                raise
            number += 1
        else:
            return Run(folder), 0, made


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


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 30 else f"{text[:27]}..."
