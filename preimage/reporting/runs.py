"""Run directories: where they are, what they hold and lack, and which are seeds of one experiment."""

import csv
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from preimage.files import DATA_PLACES, read_metrics, read_plain, run_name

from .tables import figures

# What makes an experiment what it is; other options watch it, and come and go with versions of this project.
_EXPERIMENT = ("model", "data", "trainer", "checkpoint")
# What says where and how a run went, not what it trained.
_PLACES = {"default_root_dir", "logger", "enable_progress_bar", "enable_model_summary", *DATA_PLACES}
# What a repetition of an experiment draws anew; other seeds, as of the split, say what is measured.
_SEEDS = {"seed_everything", "label_seed"}


@dataclass
class Run:
    """One run directory, as far as it can be read."""

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, float]] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @cached_property
    def values(self) -> dict[str, float]:
        """The run's figures by name, such as `reconstruction/psnr` and `test/accuracy`.

        FID and KID carry the name of the network that they were measured with, so that no two are ever averaged. The
        errors of the run's own test stand in for those of an evaluation that it does not have.
        """
        values = figures(self.evaluation)
        tested = {key: value for row in self.metrics for key, value in row.items() if key.startswith("test/")}
        rebuilt = any(key.startswith("reconstruction/") for key in values)
        for key, value in tested.items():
            metric = key.removeprefix("test/")
            if metric not in ("mse", "psnr", "ssim"):
                values[key] = value
            elif not rebuilt:
                values[f"reconstruction/{metric}"] = value
        if "test/active_units" in values:
            values.setdefault("active_units", values["test/active_units"])
        return values

    @property
    def seed(self) -> Any:
        """The seed of the run."""
        return self.config.get("seed_everything", "")

    @property
    def epochs(self) -> int:
        """Epochs that have a row of metrics."""
        return len({row["epoch"] for row in self.metrics if "epoch" in row and any("train/" in key for key in row)})

    def picture(self, kind: str) -> Path | None:
        """The newest picture in a folder below `images/`: that of the test, else of the last epoch."""
        folder = self.path / "images" / kind
        test = folder / "test.png"
        return test if test.is_file() else max(folder.glob("*.png"), default=None)


@dataclass
class Group:
    """The runs of one config, which differ in their seeds."""

    name: str
    model: str
    data: str
    runs: list[Run]
    label: str = ""

    @property
    def short_label(self) -> str:
        """The label for where the data set is told anyway."""
        return self.name if self.label == _on_data(self) else self.label

    def samples(self, key: str) -> list[float]:
        """The values of a figure, of those runs that have it."""
        return [run.values[key] for run in self.runs if key in run.values]

    def picture(self, kind: str) -> Path | None:
        """The picture of the first run that has it."""
        return next((path for run in self.runs if (path := run.picture(kind))), None)


@dataclass
class Table:
    """A CSV file of an atlas, a sweep or a measurement over label counts."""

    path: Path
    rows: list[dict[str, str]]


@dataclass
class Findings:
    """All that lies below the given folders."""

    runs: list[Run]
    groups: list[Group]
    atlases: list[Table]
    sweeps: list[Table]
    label_efficiency: list[Table]
    unread: list[Path] = field(default_factory=list)  # tables that hold none


def read_findings(folders: Sequence[Path]) -> Findings:
    """Reads run directories and what lies beside them.

    Args:
        folders: Run directories, or folders above them.

    Raises:
        ValueError: There is no run, no atlas and no table of label efficiency.
    """
    found: dict[str, list[Path]] = {"run": [], "atlas.csv": [], "sweep.csv": [], "label_efficiency.csv": []}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}: give run directories or folders above them")
        for where, below, files in os.walk(folder):
            path = Path(where)
            for name in set(found) & set(files):
                found[name].append(path / name)
            if {"config.yaml", "metrics.csv"} & set(files):
                found["run"].append(path)
            if {"config.yaml", "metrics.csv", "atlas.csv"} & set(files):
                below.clear()  # a run holds no runs, and those of an atlas are rows of its table
            if "label_efficiency.csv" in files and "fits" in below:
                below.remove("fits")  # so are these
    paths = {name: _unique(paths) for name, paths in found.items()}
    if not any(paths[name] for name in ("run", "atlas.csv", "label_efficiency.csv")):
        where = ", ".join(map(str, folders))
        raise ValueError(
            f"there is no run in {where}: a run directory has a config.yaml and a metrics.csv; train first"
        )
    runs = [read_run(path) for path in paths["run"]]
    names = [name for name in found if name != "run"]
    tables = {name: [table for path in paths[name] if (table := _read_table(path))] for name in names}
    read = {table.path for found in tables.values() for table in found}
    unread = [path for name in names for path in paths[name] if path not in read]
    return Findings(
        runs, group_runs(runs), tables["atlas.csv"], tables["sweep.csv"], tables["label_efficiency.csv"], unread
    )


def read_run(path: Path) -> Run:
    """Reads a run directory; `missing` says what is not there or cannot be read."""
    run = Run(path)

    def read(name: str, kind: type, empty: Any) -> Any:
        if not (path / name).is_file():
            run.missing.append(f"no {name}")
            return empty
        try:
            content = read_metrics(path / name) or None if name.endswith(".csv") else read_plain(path / name)
        except (OSError, ValueError):
            content = None
        if not isinstance(content, kind):
            run.missing.append(f"{name} cannot be read")
            return empty
        return content

    run.config = read("config.yaml", dict, {})
    run.metrics = read("metrics.csv", list, [])
    run.evaluation = read("evaluation.json", dict, {})
    run.classes = read("classes.json", list, [])
    if run.metrics and not any(key.startswith("test/") for row in run.metrics for key in row):
        run.missing.append("no test figures in metrics.csv")
    return run


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Puts runs of one config together: those that differ in nothing but seeds, places and loggers."""
    groups: dict[str, Group] = {}
    for run in runs:
        if not run.config:
            continue
        name = run_name(run.path, run.config)
        key = json.dumps([name, _experiment(run)], sort_keys=True, default=str)
        group = groups.setdefault(key, Group(name, _class_name(run.config.get("model")), _data_name(run), []))
        group.runs.append(run)
    names: dict[str, list[Group]] = {}
    for group in groups.values():
        names.setdefault(group.name, []).append(group)
    for name, same in names.items():
        for group, label in zip(same, _labels(name, same), strict=True):
            group.label = label
    return list(groups.values())


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation, which a single value has none of."""
    mean = fmean(values)
    if len(values) == 1:
        return mean, None
    return mean, stdev(values) if math.isfinite(mean) else math.nan  # stdev refuses NaN and infinity


def _unique(paths: Sequence[Path]) -> list[Path]:
    """Each folder once, `version_2` before `version_10`."""
    resolved = {path.resolve(): path for path in paths}
    parts = {path: re.split(r"(\d+)", str(path)) for path in resolved.values()}
    return sorted(resolved.values(), key=lambda path: [int(part) if part.isdigit() else part for part in parts[path]])


def _read_table(path: Path) -> Table | None:
    try:
        with path.open(newline="") as file:
            rows = [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error):
        return None
    return Table(path, rows) if rows else None


def _experiment(run: Run) -> Any:
    return _comparable({key: run.config.get(key) for key in _EXPERIMENT})


def _comparable(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {str(key): _comparable(value) for key, value in tree.items() if key not in _PLACES | _SEEDS}
    if isinstance(tree, list):
        return [_comparable(value) for value in tree]
    return re.sub(r"version_\d+", "version_*", tree) if isinstance(tree, str) else tree


def _class_name(part: Any) -> str:
    return str(part.get("class_path", "")).rsplit(".", 1)[-1] if isinstance(part, dict) else ""


def _data_name(run: Run) -> str:
    """The data set: its name or that of its folder, else the class that reads it."""
    part = run.config.get("data")
    arguments = part.get("init_args") if isinstance(part, dict) else None
    arguments = arguments if isinstance(arguments, dict) else {}
    folder = Path(str(arguments.get("root") or "")).stem
    return str(arguments.get("dataset") or folder or _class_name(part))


def _leaves(tree: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(tree, dict):
        return {prefix: tree if isinstance(tree, str) else json.dumps(tree, sort_keys=True, default=str)}
    return {key: leaf for name, value in tree.items() for key, leaf in _leaves(value, f"{prefix}.{name}").items()}


def _on_data(group: Group) -> str:
    return f"{group.name} ({group.data})"


def _labels(name: str, groups: Sequence[Group]) -> list[str]:
    """The name, and for groups that share it what tells them apart: the data set, else the settings that differ."""
    if len(groups) == 1:
        return [name]
    if len({group.data for group in groups}) == len(groups):
        return [_on_data(group) for group in groups]
    leaves = [_leaves(_experiment(group.runs[0])) for group in groups]
    keys = sorted({key for part in leaves for key in part}, key=lambda key: (not key.startswith(".data"), key))
    differing = [key for key in keys if len({part.get(key) for part in leaves}) > 1]
    labels = []
    for part in leaves:
        settings = [f"{key.rsplit('.', 1)[-1]} {part[key][:30]}" for key in differing if key in part]
        labels.append(f"{name} ({', '.join(settings[:2])}{', ...' if len(settings) > 2 else ''})")
    return [f"{label} #{place + 1}" if labels.count(label) > 1 else label for place, label in enumerate(labels)]
