"""Sweep files in W&B's format: what they may hold, their points, and the command of each."""

import itertools
import json
import math
import random
import re
import sys
from pathlib import Path
from typing import Any

import yaml

Point = dict[str, Any]

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
    sweep = yaml.safe_load(path.read_text())
    if not isinstance(sweep, dict) or not {"program", "method", "parameters"} <= set(sweep):
        raise ValueError(f"{path} is no sweep: it needs the keys program, method and parameters")
    if sweep["method"] not in ("grid", "random") or "early_terminate" in sweep:
        raise ValueError(f"{path}: here is method grid or random without early_terminate; more needs `wandb sweep`")
    if unknown := set(sweep) - _TOP:
        raise ValueError(f"{path}: W&B's sweeps know no {', '.join(sorted(unknown))}")
    cap, metric = sweep.get("run_cap", 1), sweep.get("metric", {"name": ""})
    if type(cap) is not int or cap < 1 or not isinstance(metric, dict) or "name" not in metric:
        raise ValueError(f"{path}: run_cap must be a whole number from 1 up, and metric have a name")
    sweep["parameters"] = _checked(path, "", sweep["parameters"])
    return sweep


def _checked(path: Path, above: str, parameters: Any) -> dict[str, Any]:
    if not isinstance(parameters, dict) or not parameters:
        raise ValueError(f"{path}: the parameters{above and ' of '}{above} must be a mapping, and not {parameters}")
    checked: dict[str, Any] = {}
    for key, given in parameters.items():
        name = f"{above}.{key}" if above else str(key)
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


def grid(parameters: dict[str, Any]) -> list[Point]:
    """All combinations, the last parameter changing fastest.

    Args:
        parameters: The parameters of `read_sweep`.

    Raises:
        ValueError: A parameter is continuous.
    """
    choices: list[list[Any]] = []
    for name, given in parameters.items():
        if "parameters" in given:
            choices.append(grid(given["parameters"]))
        elif given["distribution"] == "constant":
            choices.append([given["value"]])
        elif given["distribution"].startswith("categorical"):
            choices.append(given["values"])
        elif given["distribution"] == "int_uniform":
            choices.append(list(range(given["min"], given["max"] + 1)))
        else:
            raise ValueError(
                f"a grid needs values for {name}, not {given['distribution']}: give some, or method random"
            )
    return [dict(zip(parameters, values, strict=True)) for values in itertools.product(*choices)]


def draw(parameters: dict[str, Any], generator: random.Random) -> Point:
    """A random point.

    Args:
        parameters: The parameters of `read_sweep`.
        generator: Where chance comes from.
    """
    return {
        name: draw(given["parameters"], generator) if "parameters" in given else _draw(given, generator)
        for name, given in parameters.items()
    }


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
        ValueError: It has a macro that is not known here.
    """
    flags = [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in point.items()
    ]  # JSON is YAML, which the flags are read as
    macros = {"${env}": [], "${interpreter}": [sys.executable], "${program}": [sweep["program"]], "${args}": flags}
    command = sweep.get("command") or list(macros)
    for part in command:
        if re.fullmatch(r"\$\{.*\}", str(part)) and part not in macros:
            raise ValueError(f"the sweep's command has {part}; known here are {' '.join(macros)}")
    return [word for part in command for word in macros.get(part, [str(part)])]
