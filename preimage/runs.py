"""A run is a folder: what it holds, and whether another configuration would be the same experiment.

Nothing here imports torch, which takes longer than a whole report, before a checkpoint is opened.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from preimage.files import DATA_PLACES, kept_checkpoint, read_metrics, read_plain, write_text
from preimage.locks import locked
from preimage.retired import renewed_config

LOCK = ".lock"
#: What makes an experiment what it is, beside what of the trainer is learned by.
_EXPERIMENT = {"seed_everything", "name", "model", "data", "cpu_precision"}
#: What of the trainer is learned by, and not where, how long and how closely watched it trains.
_TRAINED = {"accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches"}
_TRAINED |= {"overfit_batches"}
#: What a callback searches before a training, so that `config.yaml` has another value than was asked for.
_SEARCHED = {"LearningRateFinder": ("model", "optimizer", "lr"), "BatchSizeFinder": ("data", "batch_size")}


class Run:
    """One training with all that comes of it.

    Args:
        folder: The run directory, whether there is one or not.
        chosen: The checkpoint that is meant, where that is not the best one.
    """

    def __init__(self, folder: str | Path, chosen: Path | None = None) -> None:
        self.folder = Path(folder)
        self.chosen = chosen

    @cached_property
    def config(self) -> dict[str, Any]:
        """What `config.yaml` holds, as this version has it; nothing where there is none, or none that can be read."""
        return renewed_config(self._mapping("config.yaml"))

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """What `evaluation.json` holds; nothing where there is none, or none that can be read."""
        return self._mapping("evaluation.json")

    def _mapping(self, name: str) -> dict[str, Any]:
        try:
            content = read_plain(self.folder / name)
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def seed(self) -> Any:
        """The seed of the run."""
        return self.config.get("seed_everything", "")

    @property
    def name(self) -> str:
        """Name of the experiment: the configuration's, else that of the folder above; random weights are in both."""
        name = str(self.config.get("name") or self.folder.resolve().parent.name)
        random = _encoder_arguments(self.config).get("weights") == "random"
        return name.removesuffix("_random") + "_random" if random else name

    def checkpoint(self, name: str) -> Path:
        """Where the checkpoint `last` or `best` is, if there is one."""
        return self.folder / "checkpoints" / f"{name}.ckpt"

    @property
    def kept(self) -> Path:
        """The chosen checkpoint, else the best one, or the last one where there was no validation."""
        return self.chosen or kept_checkpoint(self.folder)

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
        from lightning_modules.checkpoints import load_checkpoint

        saved = load_checkpoint(last)
        epoch, step = saved.get("epoch", 0), saved.get("global_step", 0)
        if type(epoch) is not int or type(step) is not int:
            return ""  # a damaged checkpoint, which is refused later
        most_epochs, most_steps, time = (trainer.get(key) for key in ("max_epochs", "max_steps", "max_time"))
        if most_epochs is None and most_steps in (None, -1) and time is None:
            most_epochs = 1000  # as Lightning has it
        cure = "raise it"
        if most_epochs is not None and -1 < most_epochs <= epoch:
            why = f"trainer.max_epochs={most_epochs}"
        elif most_steps is not None and -1 < most_steps <= step:
            why = f"trainer.max_steps={most_steps}"
        elif saved.get("run_state", {}).get("stopped") == stoppers(trainer):
            why, cure = "it was stopped early", "give EarlyStopping more patience, or leave it out"
            if time is not None:
                why, cure = f"{why}, or trainer.max_time={time} is over", f"{cure}, or raise the time"
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
        return _difference(_compared(self.config, command), _compared(config, command))

    def lock(self, wait: float = 0, shared: bool = False) -> AbstractContextManager[int]:
        """Keeps other processes out, see `locks.locked`."""
        return locked(self.folder / LOCK, wait, shared)

    def write_config(self, text: str) -> None:
        """Writes `config.yaml`; that of another experiment, which this run goes on from, is kept as `config_N.yaml`."""
        path = self.folder / "config.yaml"
        if path.is_file() and path.read_bytes() == text.encode():
            return
        if path.is_file() and Run(self.folder).unlike(yaml.safe_load(text), "fit"):
            path.rename(next(free for n in count() if not (free := path.with_name(f"config_{n}.yaml")).exists()))
        write_text(path, text)


def by_run(checkpoint: str) -> str:
    """A checkpoint as the run whose best one it is, by which it is read; any other path stays."""
    return checkpoint.rstrip("/").removesuffix("/checkpoints/best.ckpt")


def stoppers(trainer: Mapping[str, Any]) -> str:
    """What may end a training before its last epoch, as text: the time, and callbacks that are not known to watch only.

    Args:
        trainer: The configuration of the trainer.
    """
    watching = re.compile(r"callbacks\.|lightning\.(?!.*\.(EarlyStopping|Timer)$)")
    chosen = [part for name, part in _callbacks(trainer) if not watching.match(name)]
    limits = [trainer.get(key) for key in ("max_time", "min_epochs", "min_steps")]
    return json.dumps([limits, chosen], sort_keys=True, default=str)


def as_list(option: Any) -> list[Any]:
    """What an option of the trainer gives of which a single one needs no list."""
    return option if isinstance(option, list) else [] if option is None else [option]


def _callbacks(trainer: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Class and configuration of the callbacks."""
    parts = as_list(trainer.get("callbacks"))
    return [(str(part.get("class_path", "")), part) for part in parts if isinstance(part, dict)]


def _encoder_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    part: Any = config
    for key in ("model", "init_args", "encoder", "init_args"):
        part = part.get(key) if isinstance(part, dict) else None
    return part if isinstance(part, dict) else {}


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
    features = _encoder_arguments(parts)
    if features.get("image_size") == "own" and str(features.get("network")).isidentifier():
        # The size of torchvision's networks, which earlier versions wrote: only torch knows those of all the others.
        features["image_size"] = 224
    if command == "fit":
        parts["trainer"] = {key: trainer[key] for key in sorted(_TRAINED & set(trainer))}
        learning = re.compile("Averag|Finetun|Prun|Accumul")
        parts["trainer"]["callbacks"] = [name for name, _ in _callbacks(trainer) if learning.search(name)]
    return parts


def _difference(there: Any, here: Any, option: str = "") -> str:
    if isinstance(there, dict) and isinstance(here, dict):
        # An option that only one of the two knows is one that came or went with a version of this project.
        for key in (key for key in here if key in there and key not in DATA_PLACES):
            name = option if key in ("class_path", "init_args") else f"{option}.{key}".removeprefix(".")
            if difference := _difference(there[key], here[key], name):
                return difference
        return ""
    if option.rsplit(".", 1)[-1] in ("root", "encoder_checkpoint") and isinstance(there, str) and isinstance(here, str):
        there, here = (os.path.realpath(by_run(path)) for path in (there, here))
    return "" if there == here else f"{option}={_short(there)}, not {_short(here)}"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 30 else f"{text[:27]}..."


def claimed(folder: Path) -> AbstractContextManager[int]:
    """Keeps other processes out of what becomes of a folder, from before its run begins until its figures are written.

    Args:
        folder: The run directory, beside which the lock is; that above it is made if need be.

    Raises:
        Busy: Another process is at work on it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    if getattr(rank_zero_only, "rank", 0):  # a process that Lightning has started for this one runs the same command
        return nullcontext(-1)
    return locked(folder.with_name(f".{folder.name}.lock"))
