"""Which runs and tables lie below folders, and which runs are seeds of one experiment."""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from preimage.files import DATA_PLACES, natural, read_plain
from preimage.runs import Run, as_list, by_run

from .tables import figures

_TABLES = ("atlas.csv", "sweep.csv", "label_efficiency.csv")
_RUN = {"config.yaml", "metrics.csv"}
# What makes an experiment what it is; other options watch it, and come and go with versions of this project.
_EXPERIMENT = ("model", "data", "trainer", "checkpoint")
# What says where and how a run went, not what it trained.
_PLACES = {"default_root_dir", "logger", "enable_progress_bar", "enable_model_summary", *DATA_PLACES}
# What a repetition of an experiment draws anew; other seeds, as of the split, say what is measured.
_SEEDS = {"seed_everything", "label_seed"}
_WATCHING = re.compile(r"callbacks\.(?!.*(Averag|Search))")


@dataclass
class Group:
    """The runs of one config, which differ in their seeds."""

    name: str
    config: dict[str, Any]
    runs: list[Run] = field(default_factory=list)
    values: list[dict[str, float]] = field(default_factory=list)  # the figures of each run
    label: str = ""  # the name, and what tells it from groups of the same name
    short_label: str = ""  # the same for where the data set is told anyway

    @property
    def model(self) -> str:
        """Class of the model."""
        return _class_name(self.config.get("model"))

    @cached_property
    def data(self) -> str:
        """The data set: its name or that of its folder, else the class that reads it."""
        part = self.config.get("data")
        arguments = _mapping(_mapping(part).get("init_args"))
        return str(arguments.get("dataset") or Path(str(arguments.get("root") or "")).stem or _class_name(part))

    @property
    def measured(self) -> list[Run]:
        """The runs that have figures."""
        return [run for run, values in zip(self.runs, self.values, strict=True) if values]

    @cached_property
    def figures(self) -> pd.DataFrame:
        """`mean`, `sd` and `count` over the seeds, by the name of the figure."""
        values = [item for values in self.values for item in values.items()]
        return over_seeds(pd.DataFrame(values, columns=["key", "value"]), ["key"])


@dataclass
class Findings:
    """All that lies below the given folders."""

    runs: list[Run] = field(default_factory=list)  # those that have figures, or are damaged
    unfinished: list[Run] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    tables: dict[Path, pd.DataFrame] = field(default_factory=dict)  # CSV files, as texts
    lacking: dict[Path, str] = field(default_factory=dict)  # what runs and tables lack

    @property
    def measured(self) -> list[Group]:
        """The groups that have figures."""
        return [group for group in self.groups if group.measured]

    @property
    def without_results(self) -> str:
        """Names the runs that have none, in one line; empty where all have some."""
        paths = ", ".join(str(run.folder) for run in self.unfinished)
        return f"Without results, and in no table: {paths}." if paths else ""

    def tables_named(self, name: str) -> dict[Path, pd.DataFrame]:
        """The tables of a kind."""
        return {path: rows for path, rows in self.tables.items() if path.name == name}


def read_findings(folders: Sequence[Path]) -> Findings:
    """Reads run directories and what lies beside them.

    Args:
        folders: Run directories, or folders above them.

    Raises:
        ValueError: There is no run, and no table.
    """
    runs, tables = _look_below(folders)
    if not runs and not tables:
        where = ", ".join(map(str, folders))
        raise ValueError(
            f"there is no run in {where}: a run directory has a config.yaml and a metrics.csv; train first"
        )
    findings = Findings()
    groups: dict[str, Group] = {}
    for run in map(Run, runs):
        values, lacking = _figures_of(run), _lacking(run)
        if values or "cannot be read" in lacking:
            findings.runs.append(run)
            findings.lacking |= {run.folder: lacking} if lacking else {}
        else:
            findings.unfinished.append(run)
        if run.config and (values or run.logged()):
            key = json.dumps([run.name, _experiment(run.config)], sort_keys=True, default=str)
            group = groups.setdefault(key, Group(run.name, run.config))
            group.runs.append(run)
            group.values.append(values)
    findings.groups = list(groups.values())
    for name in {group.name for group in findings.groups}:
        _tell_apart([group for group in findings.groups if group.name == name])
    for path in tables:
        try:
            rows = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False).fillna("")
        except (OSError, ValueError):
            rows = pd.DataFrame()
        if len(rows):
            findings.tables[path] = rows
        else:
            findings.lacking[path] = "cannot be read"
    return findings


def over_seeds(values: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """`mean`, sample standard deviation `sd` (NaN of a single one) and `count` of the column `value`, by other columns.

    What is not finite is no gap: it makes mean and deviation NaN or infinite.
    """
    return values.groupby(by, sort=False)["value"].agg(
        mean=lambda part: part.mean(skipna=False), sd=lambda part: part.std(skipna=False), count="size"
    )


def _look_below(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Run directories, and tables that are not those of a run, each once, `version_2` before `version_10`."""
    runs: dict[Path, Path] = {}
    tables: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}: give run directories or folders above them")
        for where, below, files in os.walk(folder):
            path = Path(where)
            tables |= {(path / name).resolve(): path / name for name in _TABLES if name in files}
            if _RUN & set(files):
                runs[path.resolve()] = path
            if (_RUN | {"atlas.csv"}) & set(files):
                below.clear()  # a run holds no runs, and those of an atlas are rows of its table
            if "label_efficiency.csv" in files and "fits" in below:
                below.remove("fits")  # so are these
    return sorted(runs.values(), key=natural), sorted(tables.values(), key=natural)


def _figures_of(run: Run) -> dict[str, float]:
    """The run's figures by name, such as `reconstruction/psnr` and `test/accuracy`.

    The errors of the run's own test stand in for those of an evaluation that it does not have.
    """
    values = figures(run.evaluation)
    rebuilt = any(key.startswith("reconstruction/") for key in values)
    for key, value in (item for row in run.logged() for item in row.items() if item[0].startswith("test/")):
        metric = key.removeprefix("test/")
        if metric not in ("mse", "psnr", "ssim"):
            values[key] = value
        elif not rebuilt:
            values[f"reconstruction/{metric}"] = value
    if "test/active_units" in values:
        values.setdefault("active_units", values["test/active_units"])
    return values


def _lacking(run: Run) -> str:
    """What is not there or cannot be read."""
    rows = run.logged()
    try:
        classes = read_plain(run.folder / "classes.json")
    except (OSError, ValueError):
        classes = None
    readable = {"config.yaml": bool(run.config), "metrics.csv": bool(rows), "evaluation.json": bool(run.evaluation)}
    readable |= {"classes.json": isinstance(classes, list)}
    there = {name: (run.folder / name).is_file() for name in readable}
    parts = [f"{name} cannot be read" if there[name] else f"no {name}" for name in readable if not readable[name]]
    if rows and not any(key.startswith("test/") for row in rows for key in row):
        parts.append("no test figures in metrics.csv")
    return ", ".join(parts)


def _mapping(part: Any) -> dict[Any, Any]:
    return part if isinstance(part, dict) else {}


def _class_name(part: Any) -> str:
    return str(_mapping(part).get("class_path", "")).rsplit(".", 1)[-1]


def _experiment(config: dict[str, Any]) -> Any:
    """The options that make an experiment what it is."""
    parts = {key: config.get(key) for key in _EXPERIMENT}
    if isinstance(trainer := parts["trainer"], dict):
        callbacks = [(str(_mapping(part).get("class_path")), part) for part in as_list(trainer.get("callbacks"))]
        learning = [part for name, part in callbacks if not _WATCHING.match(name)]
        parts["trainer"] = trainer | {"callbacks": learning}
    return _comparable(parts)


def _comparable(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {str(key): _comparable(value) for key, value in tree.items() if key not in _PLACES | _SEEDS}
    if isinstance(tree, list):
        return [_comparable(value) for value in tree]
    return re.sub(r"version_\d+", "version_*", by_run(tree)) if isinstance(tree, str) else tree


def _tell_apart(groups: Sequence[Group]) -> None:
    """Labels groups of one name by the fewest settings that tell them apart, after the data set."""
    options = pd.DataFrame([_options(_experiment(group.config)) for group in groups]).fillna("")
    # What a person sets stands high up in a config, and what follows from it further down.
    differing = [path for path in options.columns[options.nunique() > 1] if _last(path) not in ("dataset", "root")]
    paths = sorted(differing, key=lambda path: (path.count("."), path))
    options[""] = [group.data for group in groups]
    several = options[""].nunique() > 1
    chosen = [""]

    def told_apart(path: str) -> int:
        return len(options[[*chosen, path]].drop_duplicates())

    while paths and told_apart(best := max(paths, key=told_apart)) > told_apart(""):
        chosen.append(best)
    words = Counter(_last(path) for path in chosen)
    others = {_last(path) for path in paths if path.count(".") == 1} - set(words)
    alike = options.duplicated(chosen, keep=False)
    for i, (group, texts) in enumerate(zip(groups, options.to_dict("records"), strict=True)):
        settings = []
        for path in (path for path in chosen[1:] if texts[path]):
            word = _last(path) if words[_last(path)] == 1 else " ".join(path.split(".")[-2:])
            settings.append(word if word == texts[path] else f"{word} {texts[path]}")
        settings += ["..."] * bool(settings and others)
        settings += [f"#{i + 1}"] * bool(alike[i])  # they differ in what no few words say
        group.short_label = _named(group.name, settings)
        group.label = _named(group.name, [group.data] * several + settings)


def _options(tree: Any, path: str = "") -> dict[str, str]:
    """What options are set to in a few words, by their path."""
    if isinstance(tree, dict):
        ends = {"class_path": path, "init_args": path}
        parts = [_options(value, ends.get(key, f"{path}.{key}".strip("."))) for key, value in tree.items()]
    elif isinstance(tree, list):
        parts = [_options(part, f"{path}.{_class_name(part)}") for part in tree if isinstance(part, dict)]
        names = [_class_name(part) or None if isinstance(part, dict) else _options(part).get("") for part in tree]
        parts += [{path: _short(" ".join(filter(None, names))) or "none"}] if None not in names else []
    elif isinstance(tree, str):
        folders = [part for part in tree.split("/") if not re.fullmatch(r"version_\*|checkpoints|\w+\.ckpt|", part)]
        name = folders[-1] if folders else ""
        parts = [{path: _short(_last(name) if re.fullmatch(r"([a-z_]\w*\.)+[A-Z]\w*", name) else name)}]
    else:
        parts = [{path: f"{tree:g}" if isinstance(tree, float) else json.dumps(tree)}]
    return {key: text for part in parts for key, text in part.items()}


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _short(text: str) -> str:
    return " ".join(text.split())[:30]


def _named(name: str, settings: Sequence[str]) -> str:
    return f"{name} ({', '.join(settings)})" if settings else name
