"""The run's own numbers, TensorBoard and W&B: what they cannot do costs a warning and never the run."""

import csv
import inspect
import os
import socket
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger, rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from numpy.typing import NDArray

from preimage.files import git_commit, write_rows
from preimage.private_api import guard_publishing

__all__ = ["TensorBoardRunLogger", "WandbRunLogger"]


class Reporter:
    """What a logger may take beside numbers, on rank 0: nothing, where it does not say otherwise."""

    @property
    def wandb_id(self) -> str | None:
        """Id of the W&B run, which a resumed run continues."""
        return None

    def log_picture(self, key: str, image: NDArray[np.uint8], step: int) -> None:
        """Takes a picture `(H, W)` or `(H, W, 3)`."""

    def log_table(self, key: str, columns: list[str], data: list[list[Any]], *, step: int | None = None) -> None:
        """Takes a table, row by row."""

    def log_lines(self, key: str, title: str, lines: Mapping[str, Sequence[tuple[float, float]]], x_name: str) -> None:
        """Takes a chart of lines: the points of each by its name."""

    def log_config(self, text: str) -> None:
        """Takes the resolved configuration, as YAML."""

    def close(self, exit_code: int) -> None:
        """Ends, as the command does."""


class _Foreign(Reporter):
    """A logger that is none of ours, as Lightning's own that a user gives in Python: it takes pictures if it can."""

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def log_picture(self, key: str, image: NDArray[np.uint8], step: int) -> None:
        if isinstance(self.logger, WandbLogger):
            self.logger.log_image(key, [image], step=step)
        elif isinstance(self.logger, TensorBoardLogger):
            self.logger.experiment.add_image(key, image, step, dataformats="HWC"[: image.ndim])


def reporters(trainer: Trainer) -> list[Reporter]:
    """The loggers of a trainer, as what takes pictures, tables and configurations."""
    return [logger if isinstance(logger, Reporter) else _Foreign(logger) for logger in trainer.loggers]


def run_logger(trainer: Trainer) -> "RunLogger | None":
    """The logger of the run's own numbers, if there is one."""
    return next((logger for logger in trainer.loggers if isinstance(logger, RunLogger)), None)


def run_directory(trainer: Trainer) -> Path | None:
    """The run directory, or None where nothing is to be written: off rank 0, and without a RunLogger.

    `trainer.log_dir` would be a broadcast, which hangs where only rank 0 asks.
    """
    logger = run_logger(trainer) if trainer.is_global_zero else None
    return None if logger is None else logger.path.parent


class GuardedLogger(Logger):
    """Mixin: the first exception of a logger is warned of, the others are dropped, and the run goes on."""

    _failed = False
    _stand_in: Any = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Guards every public method."""
        super().__init_subclass__(**kwargs)
        for name in dir(cls):
            if not name.startswith("_") and inspect.isfunction(method := getattr(cls, name)):
                setattr(cls, name, _guarded(method))

    def _attempt(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            if not self._failed:
                self._failed = True
                text = " ".join(str(error).split())
                rank_zero_warn(f"{type(self).__name__} failed, the run goes on: {type(error).__name__}: {text}")
            return None

    def _open(self) -> Any:
        return super().experiment  # type: ignore[misc]

    @property
    def experiment(self) -> Any:
        """The logger's own object, or, once that could not be had, one that takes any call and does nothing."""
        if self._stand_in is None:
            own = self._attempt(self._open)
            if own is not None:
                return own
            self._stand_in = DummyLogger().experiment
        return self._stand_in


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: GuardedLogger, *args: Any, **kwargs: Any) -> Any:
        return self._attempt(method, self, *args, **kwargs)

    return call


class TensorBoardRunLogger(GuardedLogger, Reporter, TensorBoardLogger):
    """Lightning's TensorBoardLogger, which never stops a run."""

    def log_picture(self, key: str, image: NDArray[np.uint8], step: int) -> None:
        """Adds a picture."""
        _Foreign(self).log_picture(key, image, step)


class WandbRunLogger(GuardedLogger, WandbLogger, Reporter):
    """Lightning's WandbLogger, which never asks, never hangs and never stops a run.

    Args:
        project: W&B's project.
        name: Name of the run, by default the experiment and the version.
        group: Group of the run, by default the name of the experiment.
        job_type: Type of the run, by default the command.
        tags: Tags of the run, by default the classes of the model and of the data.
        offline: Log offline also where there is an account; `WANDB_MODE=offline` does the same.
        init_timeout: Wait this many seconds for the server, then go on offline.
        finish_timeout: Upload for this many seconds at the end; the rest stays on disk for `wandb sync`.
        max_pictures: Send so many pictures of a key, then every second one to twice that number, and so on.
        kwargs: The other arguments of Lightning's WandbLogger.
    """

    def __init__(
        self,
        project: str = "preimage",
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
        offline: bool = False,
        init_timeout: float = 20.0,
        finish_timeout: float = 300.0,
        max_pictures: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(project=project, name=name, group=group, job_type=job_type, tags=tags, **kwargs)
        # The CLI hands on every argument of wandb.init, and a None would undo Lightning's `resume="allow"`.
        given = {key: value for key, value in self._wandb_init.items() if value is not None}
        self._wandb_init = {"resume": "allow"} | given
        if offline:
            self._wandb_init["mode"] = "offline"
        self._timeouts: dict[str, Any] = {"init_timeout": init_timeout, "finish_timeout": finish_timeout}
        self._max_pictures = max_pictures
        self._pictures: Counter[str] = Counter()
        self._validated: dict[str, float] = {}

    @property
    def wandb_id(self) -> str | None:
        """Id of the run, where it is open or was given."""
        return self.version

    @rank_zero_experiment
    def _open(self) -> Any:
        """W&B's run, opened at the first look; offline where there is no key, or no answer from the server."""
        if self._experiment is None:
            import wandb

            settings = wandb.Settings(git_root=str(Path(__file__).parent), **self._timeouts)
            self._wandb_init.setdefault("settings", settings)
            mode = self._wandb_init.get("mode", os.environ.get("WANDB_MODE", "online"))
            try:
                if mode == "online":
                    _look_for_server(wandb.setup().settings.base_url, self._timeouts["init_timeout"])
                    if not wandb.login(prompt=False, verify=False):
                        raise ConnectionError("there is no API key")
                super()._open()
            except Exception as error:
                if mode != "online":
                    raise
                rank_zero_warn(f"W&B: this run is logged offline, since {' '.join(str(error).split())}")
                self._wandb_init["mode"] = "offline"
        run = super()._open()
        guard_publishing(run, self._attempt)  # imports and `config` go to its service process without this logger
        return run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs numbers over `trainer/global_step`, those of the test also as a table."""
        super().log_metrics(metrics, step)
        numbers = {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}
        self._validated |= {key: value for key, value in numbers.items() if key.startswith("val/")}
        tested = [[key, value] for key, value in numbers.items() if key.startswith("test/")]
        if tested:
            self.log_table("test_results", ["metric", "value"], tested, step=step)

    @rank_zero_only
    def log_picture(self, key: str, image: NDArray[np.uint8], step: int) -> None:
        """Logs a picture, the rarer the more of them there were."""
        count = self._pictures[key]
        self._pictures[key] += 1
        if count % (1 << (count // self._max_pictures).bit_length()) == 0:
            self.log_image(key, [image], step)

    @rank_zero_only
    def log_lines(self, key: str, title: str, lines: Mapping[str, Sequence[tuple[float, float]]], x_name: str) -> None:
        """Logs a custom chart, whose lines the page of the run tells apart and names under the mouse."""
        import wandb

        xs, ys = ([[point[axis] for point in points] for points in lines.values()] for axis in (0, 1))
        self.experiment.log({key: wandb.plot.line_series(xs, ys, list(lines), title, x_name)})

    @rank_zero_only
    def log_config(self, text: str) -> None:
        """Puts the resolved configuration and the commit of this code into the run."""
        values = yaml.safe_load(text) | {"git_commit": git_commit()}
        self.experiment.config.update(values, allow_val_change=True)
        (Path(self.experiment.dir) / "experiment.yaml").write_text(text)  # config.yaml is W&B's own

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Notes the best metrics, and keeps the best checkpoint as an artifact if `log_model` asks for it."""
        monitor, score = checkpoint_callback.monitor, checkpoint_callback.best_model_score
        if monitor is None or score is None:
            return  # last.ckpt
        if checkpoint_callback.current_score == score:
            best = self._validated | {monitor: float(score)}
            self.experiment.summary.update({f"best/{key}": value for key, value in best.items()})
        super().after_save_checkpoint(checkpoint_callback)

    @rank_zero_only
    def close(self, exit_code: int) -> None:
        """Ends the run, so that the next one of this process is another; W&B says how to sync one that is offline."""
        if self._experiment is None:
            return
        import wandb

        try:
            self._experiment.finish(exit_code)
        finally:
            # Else W&B's service ends when the process does, where an error of its cannot be caught.
            with suppress(SystemExit):  # the service's own end
                wandb.teardown(exit_code)


def _look_for_server(url: str, timeout: float) -> None:
    """Raises an OSError where nothing answers at a URL: W&B itself takes far longer than its timeouts to find out."""
    if getproxies():
        return  # the way leads over another machine
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port or parts.scheme), min(timeout, 5.0)).close()
    except OSError as error:
        raise ConnectionError(f"{url} does not answer: {error}") from error


class RunLogger(Reporter, Logger):
    """Writes metrics to `metrics.csv` in the run directory, and continues that file when a run is resumed.

    Lightning's CSVLogger deletes the file of the run it resumes.

    Args:
        run_dir: The run directory.
    """

    name = version = ""  # the run directory is `save_dir` itself

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.path = run_dir / "metrics.csv"
        self._columns: list[str] = []
        self._pending: list[dict[str, float]] = []

    @property
    def save_dir(self) -> str:
        """The run directory."""
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: `config.yaml` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds a row, which `save` writes."""
        self._pending.append({"step": step or 0} | dict(metrics))

    @rank_zero_only
    def save(self) -> None:
        """Appends the new rows to the file, or rewrites it if they bring a new column.

        Rows that cannot be written, as on a full disk, cost a warning and are kept for the next time.
        """
        if not self._pending:
            return
        try:
            self._write()
        except OSError as error:
            rank_zero_warn(f"{len(self._pending)} rows could not be written to {self.path} yet: {error}")
        else:
            self._pending = []

    def _write(self) -> None:
        columns = self._columns or self._read()[0]
        new = sorted({key for row in self._pending for key in row} - set(columns))
        if new:
            write_rows(self.path, [*self._read()[1], *self._pending], [*columns, *new])
        else:
            size = self.path.stat().st_size
            try:
                with self.path.open("a", newline="") as file:
                    csv.DictWriter(file, columns).writerows(self._pending)
            except OSError:
                os.truncate(self.path, size)  # half a row
                raise
        self._columns = [*columns, *new]

    def rows(self) -> int:
        """Writes what is pending, and counts the rows of the file."""
        self.save()
        return len(self._read()[1])

    @rank_zero_only
    def keep(self, count: int) -> None:
        """Keeps the first rows: a killed run wrote the others after the checkpoint from which it is resumed."""
        self._columns, rows = self._read()
        if self._columns:
            write_rows(self.path, rows[:count], self._columns)

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        """Columns, and rows as they are written, of which a killed run may have left half a last one."""
        if not self.path.is_file():
            return [], []
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows = list(reader)
            return list(reader.fieldnames or ()), rows
