"""The run directory: everything a run writes lies in one folder, and deleting the folder deletes the run."""

import csv
import json
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn

from files import clear_leftovers, write_atomically
from runs import Run

from .loggers import WandbRunLogger
from .tuning import BatchSizeSearch, LearningRateSearch


class RunLogger(Logger):
    """Writes metrics to `metrics.csv` in the run directory, and continues that file when a run is resumed.

    Lightning's CSVLogger deletes the file of the run it resumes.
    """

    def __init__(self, run_dir: Path) -> None:
        """Opens nothing yet: a run that fails before its first number leaves no file behind.

        Args:
            run_dir: The run directory.
        """
        super().__init__()
        self.path = run_dir / "metrics.csv"
        self._columns: list[str] = []
        self._pending: list[dict[str, float]] = []

    @property
    def name(self) -> str:
        """Empty, since the run directory is `save_dir` itself."""
        return ""

    @property
    def version(self) -> str:
        """Empty, since the run directory is `save_dir` itself."""
        return ""

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
        if not self._columns and self.path.is_file():
            self._columns = self._header()
        new = sorted({key for row in self._pending for key in row} - set(self._columns))
        if new:
            rows = self._rows() if self.path.is_file() else []
            columns = self._columns + new
            self._rewrite([*rows, *self._pending], columns)
            self._columns = columns
            return
        size = self.path.stat().st_size
        try:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerows(self._pending)
        except OSError:
            os.truncate(self.path, size)  # half a row
            raise

    def rows(self) -> int:
        """Writes what is pending, and counts the rows of the file."""
        self.save()
        return len(self._rows()) if self.path.is_file() else 0

    @rank_zero_only
    def keep(self, count: int) -> None:
        """Keeps the first rows: a killed run wrote the others after the checkpoint from which it is resumed."""
        if self.path.is_file():
            self._columns = self._header()
            self._rewrite(self._rows()[:count], self._columns)

    def _header(self) -> list[str]:
        with self.path.open(newline="") as file:
            return next(csv.reader(file), [])

    def _rows(self) -> list[dict[str, str]]:
        """The rows as they are written, of which a killed run may have left half a last one."""
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file, restval=""))

    def _rewrite(self, rows: Sequence[Mapping[str, float | str]], columns: list[str]) -> None:
        def write(path: Path) -> None:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(self.path, write)


class RunDirectory(Callback):
    """Writes `config.yaml` and `classes.json` when a run starts."""

    def __init__(self, config: str) -> None:
        """Takes what is to be written.

        Args:
            config: The resolved configuration, as YAML.
        """
        self.config = config

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the files and removes a killed process's half ones; an evaluation leaves the training's config."""
        run_dir = run_directory(trainer)
        if run_dir is None:
            return
        clear_leftovers(run_dir)
        if stage == "fit" or not (run_dir / "config.yaml").exists():
            Run(run_dir).write_config(self.config)
        data = getattr(trainer, "datamodule", None)
        classes, bad = run_dir / "classes.json", getattr(data, "bad_images", None)
        if (names := getattr(data, "class_names", None)) is not None:
            if getattr(pl_module, "num_classes", None) is not None:
                _check_order(classes, names)
            if stage == "fit" or not classes.exists():
                write_atomically(classes, partial(Path.write_text, data=json.dumps(names, indent=2)))
        if bad:
            write_atomically(run_dir / "bad_images.json", partial(Path.write_text, data=json.dumps(bad, indent=2)))
        for logger in trainer.loggers:
            if isinstance(logger, WandbRunLogger):
                logger.log_config(self.config)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes what was searched in place of what was asked for, when the search is over."""
        searches: list[Any] = [
            callback
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if isinstance(callback, LearningRateSearch | BatchSizeSearch)
        ]
        run_dir = run_directory(trainer)
        if not searches or run_dir is None:
            return
        config = yaml.safe_load(self.config)
        for search in searches:
            search.record(trainer, config)
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        write_atomically(run_dir / "config.yaml", lambda file: file.write_text(text))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the id of the W&B run, which a resumed run continues."""
        for logger in trainer.loggers:
            if isinstance(logger, WandbRunLogger) and logger.version is not None:
                checkpoint["wandb_id"] = logger.version


def _check_order(path: Path, names: list[str]) -> None:
    """Compares the order of the classes with that of the training, in which the model counts them.

    Raises:
        ValueError: The data has the same classes in another order.
    """
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        return
    if before != names and isinstance(before, list) and sorted(map(str, before)) == sorted(names):
        first = next(place for place, pair in enumerate(zip(before, names, strict=True)) if len(set(pair)) > 1)
        raise ValueError(
            f"class {first} is {before[first]} in {path} and {names[first]} in the data: train anew, or rename the"
            " classes so that they come in the order of that file"
        )


def run_directory(trainer: Trainer) -> Path | None:
    """The run directory, or None where nothing is to be written: off rank 0, and without a RunLogger.

    `trainer.log_dir` would be a broadcast, which hangs where only rank 0 asks.
    """
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                return Path(logger.save_dir)
    return None
