"""Sweep files in W&B's format: what they may hold, their points, and the command of each."""

import json
import math
import os
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from inspect import signature
from itertools import islice, product
from pathlib import Path
from typing import Any

from preimage.files import read_plain

Point = dict[str, Any]

#: Points of a sweep at most: its record and its table hold all of them.
_LIMIT = 100_000
_KEYS = {"program", "method", "metric", "parameters", "command", "name", "description", "project", "entity", "run_cap"}


def _log_uniform(generator: random.Random, min: float, max: float) -> float:
    return math.exp(generator.uniform(math.log(min), math.log(max)))


def _rounded(value: float, step: float) -> float:
    rounded = round(value / step) * step
    return rounded if isinstance(step, int) else float(f"{rounded:.12g}")


#: How W&B's distributions are drawn, from what they are given in a file.
_DISTRIBUTIONS: dict[str, Callable[..., Any]] = {
    "constant": lambda generator, value: value,
    "categorical": lambda generator, values: generator.choices(values)[0],
    "int_uniform": lambda generator, min, max: generator.choice(range(min, max + 1)),
    "uniform": lambda generator, min, max: generator.uniform(min, max),
    "q_uniform": lambda generator, min, max, q=1: _rounded(generator.uniform(min, max), q),
    "log_uniform_values": _log_uniform,
    "q_log_uniform_values": lambda generator, min, max, q=1: _rounded(_log_uniform(generator, min, max), q),
    "normal": lambda generator, mu=0.0, sigma=1.0: generator.gauss(mu, sigma),
}


def read_sweep(path: Path) -> dict[str, Any]:
    """Reads a sweep file and checks it.

    Returns:
        Its content; `parameters` has those of nested ones too, by all names on the way to them.

    Raises:
        ValueError: Something is missing, unknown, or needs W&B's server.
    """
    sweep = read_plain(path)
    if not isinstance(sweep, dict) or not {"program", "method", "parameters"} <= set(sweep):
        raise ValueError(f"{path} is no sweep: it needs the keys program, method and parameters")
    if unknown := ", ".join(sorted(map(str, set(sweep) - _KEYS))):
        raise ValueError(f"{path}: a sweep without W&B's server knows no {unknown}, but {', '.join(sorted(_KEYS))}")
    cap, metric, command = sweep.get("run_cap", 1), sweep.get("metric", {"name": "metric"}), sweep.get("command", [])
    named = isinstance(metric, dict) and isinstance(metric.get("name"), str) and metric["name"]
    checks = {
        "program": (isinstance(sweep["program"], str), "a file"),
        "method": (sweep["method"] in ("grid", "random"), "grid or random, since others need `wandb sweep`"),
        "metric": (
            named and metric.get("goal", "minimize") in ("minimize", "maximize"),
            "as {name: val/loss, goal: minimize}, or maximize",
        ),
        "command": (
            isinstance(command, list) and not any(isinstance(word, dict | list | None) for word in command),
            "a list of words such as [${interpreter}, ${program}]",
        ),
        "run_cap": (type(cap) is int and cap > 0, "a whole number from 1 up"),
    }
    for key, (fits, must_be) in checks.items():
        if not fits:
            raise ValueError(f"{path}: {key} must be {must_be}, not {sweep[key]}")
    try:
        return sweep | {"parameters": dict(_flat(sweep["parameters"]))}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _flat(parameters: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every parameter with its names; a distribution that is not said is inferred as W&B does."""
    if not isinstance(parameters, dict) or not parameters or any(type(key) is not str for key in parameters):
        of = f" of {'.'.join(above)}" if above else ""
        raise ValueError(f"the parameters{of} must be a mapping from names, numbers in quotes, and not {parameters}")
    for key, content in parameters.items():
        names = (*above, key)
        if isinstance(content, dict) and set(content) == {"parameters"}:
            yield from _flat(content["parameters"], names)
            continue
        if isinstance(content, dict):
            ends = type(content.get("min")), type(content.get("max"))
            kind = {(int, int): "int_uniform", (float, float): "uniform"}.get(ends)
            kind = "categorical" if "values" in content else "constant" if "value" in content else kind
            content = {"distribution": kind} | content
        _draw(names, content, random.Random(0))  # which says what is wrong with it
        yield names, content


def _draw(names: tuple[str, ...], content: Any, generator: random.Random) -> Any:
    try:
        arguments = dict(content)
        value = _DISTRIBUTIONS[arguments.pop("distribution")](generator, **arguments)
        json.dumps([content, value], allow_nan=False)
        if arguments.get("min", 0) > arguments.get("max", 0) or not isinstance(arguments.get("values", []), list):
            raise ValueError
        return value
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        known = {kind: ", ".join([*signature(draw).parameters][1:]) for kind, draw in _DISTRIBUTIONS.items()}
        raise ValueError(
            f"the parameter {'.'.join(names)} is {content}; known are"
            f" {', '.join(f'{kind} ({keys})' for kind, keys in known.items())}, of finite numbers that fit"
        ) from error


def points_of(sweep: dict[str, Any], count: int | None, seed: int) -> list[Point]:
    """The points of a sweep: of a grid the first or all, the last parameter changing fastest, else random ones.

    Raises:
        ValueError: There are too many, a grid has a continuous parameter, or a random sweep has no count.
    """
    parameters, is_grid = sweep["parameters"], sweep["method"] == "grid"
    if is_grid:
        choices = [_choices(names, content) for names, content in parameters.items()]
        size = math.prod(map(len, choices))
        count = size if count is None else min(count, size)
    if count is None:
        raise ValueError("a random sweep without run_cap: say how many points with --count N")
    if count > _LIMIT:
        raise ValueError(f"{count:,} points, more than {_LIMIT:,}: give fewer values, or take the first with --count N")
    if is_grid:
        # The first points have none but the first values; a range may have billions more.
        points: Iterable[Iterable[Any]] = islice(product(*(values[:count] for values in choices)), count)
    else:
        generator = random.Random(seed)
        points = ([_draw(names, content, generator) for names, content in parameters.items()] for _ in range(count))
    return [_nested(parameters, values) for values in points]


def _choices(names: tuple[str, ...], content: dict[str, Any]) -> Sequence[Any]:
    if content["distribution"] == "int_uniform":
        return range(content["min"], content["max"] + 1)
    if content["distribution"] not in ("constant", "categorical"):
        raise ValueError(
            f"a grid needs values for {'.'.join(names)}, not {content['distribution']}: give some, or method random"
        )
    return content["values"] if "values" in content else [content["value"]]


def _nested(parameters: Iterable[tuple[str, ...]], values: Iterable[Any]) -> Point:
    point: Point = {}
    for (*above, key), value in zip(parameters, values, strict=True):
        reduce(lambda part, name: part.setdefault(name, {}), above, point)[key] = value
    return point


def command_of(sweep: dict[str, Any], point: Point) -> list[str]:
    """The command of a point, as W&B's agent would make it.

    Raises:
        ValueError: It has a macro that is not known here, or that of an environment variable that is not set.
    """
    # JSON is YAML, which the flags are read as.
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in point.items()}
    words = {name: f"{name}={text}" for name, text in texts.items()}
    switches = {name: name if point[name] is True else word for name, word in words.items() if point[name] is not False}
    macros = {
        "${env}": [],
        "${interpreter}": [sys.executable],
        "${program}": [sweep["program"]],
        "${args}": [f"--{word}" for word in words.values()],
        "${args_no_hyphens}": list(words.values()),
        "${args_no_boolean_flags}": [f"--{word}" for word in switches.values()],
    }
    command: list[str] = []
    for part in map(str, sweep.get("command") or ["${env}", "${interpreter}", "${program}", "${args}"]):
        part = re.sub(r"\$\{envvar:(\w+)\}", lambda macro: os.environ.get(macro[1], macro[0]), part)
        if part not in macros and re.search(r"^\$\{.*\}$|\$\{envvar:", part):
            known = " ".join([*macros, "${envvar:NAME}"])
            raise ValueError(f"the sweep's command has {part}; known here are {known}, where NAME is exported")
        command += macros.get(part, [part])
    return command
