"""Sweep files in W&B's format: what they may hold, their points, and the command of each."""

import json
import math
import os
import random
import re
import sys
from pathlib import Path
from typing import Any

from preimage.files import read_plain

Point = dict[str, Any]

#: Points of a sweep at most: its record and its table hold all of them.
LIMIT = 100_000

_TOP = {"program", "method", "metric", "parameters", "command", "name", "description", "project", "entity", "run_cap"}
_RANGES = ("int_uniform", "uniform", "log_uniform", "log_uniform_values", "inv_log_uniform", "inv_log_uniform_values")
#: What a parameter of each distribution may hold, as in the schema of sweeps that W&B publishes.
_KEYS = {
    "constant": {"value"},
    "categorical": {"values"},
    "categorical_w_probabilities": {"values", "probabilities"},
    "normal": {"mu", "sigma"},
    "log_normal": {"mu", "sigma"},
    "beta": {"a", "b"},
} | {kind: {"min", "max"} for kind in _RANGES}
_QUANTIZED = ("uniform", "log_uniform", "log_uniform_values", "normal", "log_normal", "beta")
_KEYS |= {f"q_{kind}": _KEYS[kind] | {"q"} for kind in _QUANTIZED}
_DEFAULTED = {"q", "mu", "sigma", "a", "b"}


def read_sweep(path: Path) -> dict[str, Any]:
    """Reads a sweep file and checks it as far as W&B documents the format.

    Args:
        path: The YAML file.

    Returns:
        Its content, where every parameter says its distribution.

    Raises:
        ValueError: Something is missing, unknown, or needs W&B's server.
    """
    sweep = read_plain(path)
    if not isinstance(sweep, dict) or not {"program", "method", "parameters"} <= set(sweep):
        raise ValueError(f"{path} is no sweep: it needs the keys program, method and parameters")
    if sweep["method"] not in ("grid", "random") or "early_terminate" in sweep:
        raise ValueError(f"{path}: here is method grid or random without early_terminate; more needs `wandb sweep`")
    if unknown := sorted(map(str, set(sweep) - _TOP)):
        raise ValueError(f"{path}: W&B's sweeps know no {', '.join(unknown)}")
    if wrong := _not_finite(sweep):
        raise ValueError(f"{path}: {wrong} is NaN or infinite: give a finite number")
    cap, metric = sweep.get("run_cap", 1), sweep.get("metric", {"name": "metric"})
    if type(cap) is not int or not 1 <= cap <= LIMIT:
        raise ValueError(f"{path}: run_cap must be a whole number from 1 up, at most {LIMIT:,}, not {cap}")
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str) or not metric["name"]:
        raise ValueError(f"{path}: let metric have a name, as {{name: val/loss, goal: minimize}}, not {metric}")
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        raise ValueError(f"{path}: the goal of the metric is minimize or maximize, not {metric['goal']}")
    command = sweep.get("command")
    if not isinstance(sweep["program"], str) or not isinstance(command, list | None):
        raise ValueError(f"{path}: program must be a file, and command a list such as [${{interpreter}}, ${{program}}]")
    if any(isinstance(word, dict | list | None) for word in command or []):
        raise ValueError(f"{path}: command must be a list of words, not {command}")
    sweep["parameters"] = _checked(path, "", sweep["parameters"])
    return sweep


def _not_finite(part: Any, name: str = "") -> str | None:
    """The name of the first number that is none."""
    if isinstance(part, float) and not math.isfinite(part):
        return name
    parts = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    return next((wrong for key, value in parts if (wrong := _not_finite(value, f"{name}.{key}".strip(".")))), None)


def _checked(path: Path, above: str, parameters: Any) -> dict[str, Any]:
    if not isinstance(parameters, dict) or not parameters:
        raise ValueError(f"{path}: the parameters{above and ' of '}{above} must be a mapping, and not {parameters}")
    checked: dict[str, Any] = {}
    for key, given in parameters.items():
        if not isinstance(key, str) or not key:
            raise ValueError(f"{path}: the name of a parameter must be a text, not {key}: put it in quotes")
        name = f"{above}.{key}" if above else key
        if isinstance(given, dict) and set(given) == {"parameters"}:
            checked[key] = {"parameters": _checked(path, name, given["parameters"])}
            continue
        kind = str(given.get("distribution") or _default_distribution(given)) if isinstance(given, dict) else ""
        if not _fits(kind, given):
            raise ValueError(
                f"{path}: the parameter {name} is none of W&B's: it has {given}, see W&B's sweep parameters"
            )
        checked[key] = given | {"distribution": kind}
    return checked


def _fits(kind: str, given: Any) -> bool:
    """Whether W&B knows the distribution with these arguments."""
    if kind not in _KEYS or not _KEYS[kind] - _DEFAULTED <= set(given) - {"distribution"} <= _KEYS[kind]:
        return False
    if kind == "constant":
        return True
    if kind.startswith("categorical"):
        values = given["values"]
        if not isinstance(values, list) or not values:
            return False
        odds = given.get("probabilities", [1] * len(values))
        whole = isinstance(odds, list) and len(odds) == len(values) and all(map(_is_number, odds))
        return whole and min(odds) >= 0 < sum(odds)
    numbers = {key: value for key, value in given.items() if key != "distribution"}
    if not all(type(value) is int if kind == "int_uniform" else _is_number(value) for value in numbers.values()):
        return False
    positive = {"q", "a", "b"} | ({"min"} if kind.endswith("_values") else set())
    ordered = numbers.get("min", 0) <= numbers.get("max", 0) and numbers.get("sigma", 0) >= 0
    return ordered and all(numbers.get(key, 1) > 0 for key in positive)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _default_distribution(given: dict[str, Any]) -> str | None:
    if "values" in given:
        return "categorical_w_probabilities" if "probabilities" in given else "categorical"
    if "value" in given:
        return "constant"
    kinds = {type(given.get("min")), type(given.get("max"))}
    return {int: "int_uniform", float: "uniform"}.get(kinds.pop()) if len(kinds) == 1 else None


def grid(parameters: dict[str, Any], count: int | None = None) -> list[Point]:
    """All combinations, the last parameter changing fastest.

    Args:
        parameters: The parameters of `read_sweep`.
        count: So many of them at most, the first ones.

    Raises:
        ValueError: A parameter is continuous, or there are too many points.
    """
    points = _size(parameters) if count is None else min(count, _size(parameters))
    if points > LIMIT:
        raise ValueError(
            f"the grid has {points:,} points, more than {LIMIT:,}: give fewer values, or take the first with --count N"
        )
    return [_point(parameters, index) for index in range(points)]


def _size(parameters: dict[str, Any]) -> int:
    return math.prod(_choices(name, given) for name, given in parameters.items())


def _choices(name: str, given: dict[str, Any]) -> int:
    if "parameters" in given:
        return _size(given["parameters"])
    if given["distribution"] == "int_uniform":
        return int(given["max"] - given["min"] + 1)
    if given["distribution"] == "constant" or given["distribution"].startswith("categorical"):
        return len(given.get("values", [None]))
    raise ValueError(f"a grid needs values for {name}, not {given['distribution']}: give some, or method random")


def _point(parameters: dict[str, Any], index: int) -> Point:
    """The point of an index, whose digits are the choices of the parameters."""
    point: Point = {}
    for name, given in reversed(parameters.items()):
        index, choice = divmod(index, _choices(name, given))
        if "parameters" in given:
            point[name] = _point(given["parameters"], choice)
        elif given["distribution"] == "int_uniform":
            point[name] = given["min"] + choice
        else:
            point[name] = given["values"][choice] if "values" in given else given["value"]
    return dict(reversed(point.items()))


def draw(parameters: dict[str, Any], generator: random.Random) -> Point:
    """A random point.

    Args:
        parameters: The parameters of `read_sweep`.
        generator: Where chance comes from.

    Raises:
        ValueError: A distribution reaches numbers that are too large.
    """
    point: Point = {}
    for name, given in parameters.items():
        try:
            point[name] = draw(given["parameters"], generator) if "parameters" in given else _draw(given, generator)
            if _not_finite(point[name], name):
                raise OverflowError
        except OverflowError as error:
            raise ValueError(f"the parameter {name} reaches numbers that are too large: it has {given}") from error
    return point


def _draw(given: dict[str, Any], generator: random.Random) -> Any:
    kind = given["distribution"]
    if kind == "constant":
        return given["value"]
    if kind.startswith("categorical"):
        return generator.choices(given["values"], given.get("probabilities"))[0]
    low, high = given.get("min", 0), given.get("max", 0)
    match kind.removeprefix("q_"):
        case "int_uniform":
            return generator.randint(low, high)
        case "uniform":
            value = generator.uniform(low, high)
        case "log_uniform":
            value = math.exp(generator.uniform(low, high))
        case "inv_log_uniform":
            value = math.exp(-generator.uniform(low, high))
        case "log_uniform_values" | "inv_log_uniform_values":
            value = math.exp(generator.uniform(math.log(low), math.log(high)))
        case "beta":
            value = generator.betavariate(given.get("a", 1), given.get("b", 1))
        case _:
            value = generator.gauss(given.get("mu", 0), given.get("sigma", 1))
            value = math.exp(value) if kind.endswith("log_normal") else value
    if not kind.startswith("q_"):
        return value
    step = given.get("q", 1)
    return round(value / step) * step if isinstance(step, int) else float(f"{round(value / step) * step:.12g}")


def command_of(sweep: dict[str, Any], point: Point) -> list[str]:
    """The command of a point, as W&B's agent would make it.

    Args:
        sweep: The content of the file, from `read_sweep`.
        point: The values of its parameters.

    Raises:
        ValueError: It has a macro that is not known here, or that of an environment variable that is not set.
    """
    # JSON is YAML, which the flags are read as.
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in point.items()}
    switches = [f"--{name}" if point[name] is True else f"--{name}={text}" for name, text in texts.items()]
    macros = {
        "${env}": [],
        "${interpreter}": [sys.executable],
        "${program}": [sweep["program"]],
        "${args}": [f"--{name}={text}" for name, text in texts.items()],
        "${args_no_hyphens}": [f"{name}={text}" for name, text in texts.items()],
        "${args_no_boolean_flags}": [
            flag for flag, value in zip(switches, point.values(), strict=True) if value is not False
        ],
    }
    words: list[str] = []
    for part in map(str, sweep.get("command") or ["${env}", "${interpreter}", "${program}", "${args}"]):
        part = re.sub(r"\$\{envvar:([A-Z0-9_]*)\}", _environment, part)
        if re.fullmatch(r"\$\{.*\}", part) and part not in macros:
            known = " ".join([*macros, "${envvar:NAME}"])
            raise ValueError(f"the sweep's command has {part}; known here are {known}")
        words += macros.get(part, [part])
    return words


def _environment(found: re.Match[str]) -> str:
    """The variable's value; W&B's agent would put the name in its place where it is not set."""
    if found[1] not in os.environ:
        raise ValueError(f"the sweep's command has {found[0]}, and the environment has no {found[1]}: export it")
    return os.environ[found[1]]


def read_record(path: Path) -> dict[str, Any]:
    """The seed and the points of the last start, as `sweep.json` has them; no points at the first one.

    Raises:
        ValueError: The file is damaged.
    """
    record = read_plain(path) if path.is_file() else {"seed": 0, "points": []}
    points = record.get("points") if isinstance(record, dict) else None
    if (
        not isinstance(points, list)
        or not all(isinstance(point, dict) for point in points)
        or type(record.get("seed")) is not int
    ):
        raise ValueError(f"{path} has no seed and points: remove it to draw them anew, or give another --out")
    return record
