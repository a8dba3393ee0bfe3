"""`preimage sweep`: runs the points of a W&B sweep file without a server, and tables their results."""

import argparse
import csv
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from errors import CommandParser
from files import read_metrics, write_atomically

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


def parse(args: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads the arguments; those that are not the sweep's own are for every point."""
    epilog = "All other flags go to the command of each point, for example --data.root DIR --trainer.accelerator cpu."
    parser = CommandParser("preimage sweep", description=__doc__, epilog=epilog)
    parser.add_argument("file", type=Path, help="a sweep as `wandb sweep` takes it, with method grid or random")
    parser.add_argument("--out", type=Path, help="folder of the sweep, by default runs/sweeps/FILE")
    parser.add_argument("--jobs", type=int, default=1, help="points at a time")
    parser.add_argument(
        "--index",
        type=int,
        default=os.environ.get("SLURM_ARRAY_TASK_ID"),
        help="run this point alone, counted from 0; in a SLURM array job by default that of the task",
    )
    parser.add_argument("--count", type=int, help="points at most, by default the file's run_cap")
    parser.add_argument("--seed", type=int, help="seed of a random sweep, by default the recorded one, at first 0")
    options, rest = parser.parse_known_args(args)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: give 1 or more")
    if options.count is not None and options.count < 1:
        parser.error(f"--count {options.count}: give 1 or more")
    options.out = options.out or Path("runs/sweeps") / options.file.stem
    return options, rest


def main(args: Sequence[str]) -> None:
    """Runs what is not finished, and writes `sweep.csv`.

    Args:
        args: The arguments after `sweep`.

    Raises:
        ChildProcessError: A point failed; the others have run.
        KeyboardInterrupt: The sweep was interrupted.
    """
    options, rest = parse(args)
    sweep = read_sweep(options.file)
    points = _record(options, sweep)
    if options.index is not None and not 0 <= options.index < len(points):
        raise ValueError(f"--index {options.index}: the sweep has the points 0 to {len(points) - 1}")
    chosen = range(len(points)) if options.index is None else [options.index]
    waiting = [index for index in chosen if _state(options.out, index).get("status") != "finished"]
    for index in sorted(set(chosen) - set(waiting)):
        print(f"{_name(index)}: done, {options.out / _name(index)}")
    try:
        _run(options, sweep, points, rest, waiting)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on") from None
    finally:
        _write_table(options.out, points, sweep.get("metric"))
    failed = [_name(index) for index in waiting if _state(options.out, index).get("status") != "finished"]
    if failed:
        logs = ", ".join(str(options.out / f"{name}.log") for name in failed)
        raise ChildProcessError(f"{len(failed)} of {len(chosen)} points failed, the same command tries again: {logs}")


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


def _record(options: argparse.Namespace, sweep: dict[str, Any]) -> list[Point]:
    """The points, written to `sweep.json` with the seed; more points than at the last time are welcome, others not."""
    path: Path = options.out / "sweep.json"
    recorded: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"seed": 0, "points": []}
    seed = recorded["seed"] if options.seed is None else options.seed
    count = options.count or sweep.get("run_cap")
    if sweep["method"] == "grid":
        points = grid(sweep["parameters"])[:count]
    else:
        count = count or len(recorded["points"])
        if not count:
            raise ValueError(f"{options.file} is a random sweep without run_cap: say how many points with --count N")
        generator = random.Random(seed)
        points = [draw(sweep["parameters"], generator) for _ in range(count)]
    before = recorded["points"]
    if before[: len(points)] != points[: len(before)]:
        raise ValueError(f"{options.out} holds another sweep: give its file and seed, or another --out")
    if len(points) > len(before):
        write_atomically(path, lambda file: file.write_text(json.dumps({"seed": seed, "points": points}, indent=1)))
    return points


def _command(sweep: dict[str, Any], point: Point) -> list[str]:
    """The command of a point, as W&B's agent would make it."""
    flags = [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in point.items()
    ]  # JSON is YAML, which the flags are read as
    macros = {"${env}": [], "${interpreter}": [sys.executable], "${program}": [sweep["program"]], "${args}": flags}
    command = sweep.get("command") or list(macros)
    for part in command:
        if re.fullmatch(r"\$\{.*\}", str(part)) and part not in macros:
            raise ValueError(f"the sweep's command has {part}; known here are {' '.join(macros)}")
    return [word for part in command for word in macros.get(part, [str(part)])]


def _start(options: argparse.Namespace, command: list[str], index: int) -> subprocess.Popen[bytes]:
    run_dir: Path = options.out / _name(index)
    last = run_dir / "checkpoints/last.ckpt"
    if run_dir.exists() and not last.is_file():
        shutil.rmtree(run_dir)  # interrupted before there was anything to go on from
    command = [*command, f"--run_dir={run_dir}", *([f"--ckpt_path={last}"] if last.is_file() else [])]
    environment = dict(os.environ)
    if options.jobs > 1:  # else their threads stall each other
        # macOS binds no process to cores.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // options.jobs)))
    print(f"{_name(index)}: {'goes on' if last.is_file() else 'starts'}, {options.out / _name(index)}.log", flush=True)
    with (options.out / f"{_name(index)}.log").open("ab") as log:
        # A session of its own, so that Ctrl-C reaches it once.
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=environment, start_new_session=True, **streams)


def _run(
    options: argparse.Namespace, sweep: dict[str, Any], points: list[Point], rest: list[str], waiting: list[int]
) -> None:
    """Runs points, some at a time; a signal goes on to those that run, which save their state."""

    def stop(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    commands = {index: [*_command(sweep, points[index]), *rest] for index in waiting}
    queue = list(waiting)
    running: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
    before = signal.signal(signal.SIGTERM, stop)
    try:
        while queue or running:
            while queue and len(running) < options.jobs:
                index = queue.pop(0)
                running[index] = _start(options, commands[index], index), time.monotonic()
            time.sleep(0.05)
            for index, (process, start) in list(running.items()):
                if process.poll() is not None:
                    del running[index]
                    _finish(options.out, index, process.returncode, (time.monotonic() - start) / 60)
    except BaseException as error:
        for process, _ in running.values():
            process.send_signal(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
        for process, _ in running.values():
            process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _finish(out: Path, index: int, code: int, minutes: float) -> None:
    """Notes how a point ended; its last line says why it failed."""
    run_dir = out / _name(index)
    minutes += _state(out, index).get("minutes", 0.0)
    state = {"status": "failed" if code else "finished", "minutes": minutes}
    write_atomically(run_dir / "point.json", lambda file: file.write_text(json.dumps(state)))
    lines = (out / f"{_name(index)}.log").read_text(errors="replace").strip().splitlines()
    print(f"{_name(index)}: {f'failed with code {code}: {(lines or [str()])[-1]}' if code else 'finished'}", flush=True)


def _name(index: int) -> str:
    return f"point_{index:03d}"


def _state(out: Path, index: int) -> dict[str, Any]:
    path = out / _name(index) / "point.json"
    state: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return state


def _flat(point: Point, prefix: str = "") -> Point:
    flat: Point = {}
    for name, value in point.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _result(run_dir: Path, metric: dict[str, Any]) -> float | None:
    """The best value of the metric that a run has logged."""
    path = run_dir / "metrics.csv"
    values = [row[metric["name"]] for row in read_metrics(path) if metric["name"] in row] if path.is_file() else []
    best = max if metric.get("goal") == "maximize" else min
    return best(values, default=None)


def _write_table(out: Path, points: list[Point], metric: dict[str, Any] | None) -> None:
    rows = []
    for index, point in enumerate(points):
        run_dir, state = out / _name(index), _state(out, index)
        status = state.get("status", "interrupted" if run_dir.exists() else "to do")
        row = {"point": _name(index), **_flat(point), "status": status, "minutes": round(state.get("minutes", 0), 2)}
        rows.append(row | ({metric["name"]: _result(run_dir, metric)} if metric else {}))

    def write(path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(out / "sweep.csv", write)
    print((out / "sweep.csv").read_text() + str(out / "sweep.csv"))
