"""`preimage sweep`: runs the points of a W&B sweep file without a server, and tables their results."""

import argparse
import math
import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from preimage.errors import CommandParser
from preimage.files import read_metrics, read_plain, write_json, write_rows
from preimage.locks import PATIENCE, Busy, locked
from preimage.sweep_file import LIMIT, Point, command_of, draw, grid, read_record, read_sweep


def parse(args: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads the arguments; those that are not the sweep's own are for every point."""
    epilog = (
        "All other flags go to the command of each point, for example --data.root DIR --trainer.accelerator cpu; it"
        " also gets --run_dir and --ckpt_path auto. Several processes may share a sweep: a point that one of them runs"
        " is left to it."
    )
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
    if options.count is not None and not 1 <= options.count <= LIMIT:
        parser.error(f"--count {options.count}: give 1 or more, at most {LIMIT:,}")
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
    others: list[int] = []
    try:
        _run(options, sweep, points, rest, waiting, others)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on") from None
    finally:
        _write_table(options.out, points, sweep.get("metric"), others)
    if others:
        names = ", ".join(map(_name, others))
        print(
            f"{len(others)} of {len(chosen)} points are left to other processes: {names}; the same command tables them"
        )
    ended = [index for index in waiting if index not in others]
    failed = [_name(index) for index in ended if _state(options.out, index).get("status") != "finished"]
    if failed:
        logs = ", ".join(str(options.out / f"{name}.log") for name in failed)
        raise ChildProcessError(f"{len(failed)} of {len(chosen)} points failed, the same command tries again: {logs}")


def _record(options: argparse.Namespace, sweep: dict[str, Any]) -> list[Point]:
    """The points, written to `sweep.json` with the seed; more points than at the last time are welcome, others not."""
    path: Path = options.out / "sweep.json"
    recorded = read_record(path)
    seed = recorded["seed"] if options.seed is None else options.seed
    count = options.count or sweep.get("run_cap")
    if sweep["method"] == "grid":
        points = grid(sweep["parameters"], count)
    else:
        count = count or len(recorded["points"])
        if not count:
            raise ValueError(f"{options.file} is a random sweep without run_cap: say how many points with --count N")
        generator = random.Random(seed)
        points = [draw(sweep["parameters"], generator) for _ in range(count)]
    before = recorded["points"]
    if before[: len(points)] != points[: len(before)]:
        raise ValueError(f"{options.out} holds another sweep: give its file and seed, or another --out")
    if len(points) <= len(before):
        return points
    options.out.mkdir(parents=True, exist_ok=True)
    with locked(options.out / ".sweep.lock", PATIENCE):
        if read_record(path) == recorded:
            write_json(path, {"seed": seed, "points": points})
            return points
    return _record(options, sweep)  # another process has written it in the meantime


def _start(options: argparse.Namespace, command: list[str], index: int, lock: int) -> subprocess.Popen[bytes]:
    run_dir: Path = options.out / _name(index)
    goes_on = run_dir.exists()
    command = [*command, f"--run_dir={run_dir}"]
    if not any(word.startswith("--ckpt_path") for word in command):
        command.append("--ckpt_path=auto")
    environment = dict(os.environ)
    if options.jobs > 1:  # else their threads stall each other
        # macOS binds no process to cores.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // options.jobs)))
    print(f"{_name(index)}: {'goes on' if goes_on else 'starts'}, {options.out / _name(index)}.log", flush=True)
    with (options.out / f"{_name(index)}.log").open("ab") as log:
        # A session of its own, so that Ctrl-C reaches it once.
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        # The lock is the point's too: it holds while either of the two lives.
        locks = [lock] if lock >= 0 else []
        return subprocess.Popen(command, env=environment, start_new_session=True, pass_fds=locks, **streams)


def _run(
    options: argparse.Namespace,
    sweep: dict[str, Any],
    points: list[Point],
    rest: list[str],
    waiting: list[int],
    others: list[int],
) -> None:
    """Runs points, some at a time; a signal goes on to those that run, which save their state.

    Those that another process runs are added to `others`.
    """

    def stop(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    commands = {index: [*command_of(sweep, points[index]), *rest] for index in waiting}
    queue = list(waiting)
    running: dict[int, tuple[subprocess.Popen[bytes], float, ExitStack]] = {}
    before = signal.signal(signal.SIGTERM, stop)
    try:
        while queue or running:
            while queue and len(running) < options.jobs:
                index, held = queue.pop(0), ExitStack()
                try:
                    lock = held.enter_context(locked(options.out / f".{_name(index)}.lock"))
                except Busy as error:
                    print(f"{_name(index)}: {error}", flush=True)
                    others.append(index)
                    continue
                if _state(options.out, index).get("status") == "finished":  # by another in the meantime
                    held.close()
                    continue
                running[index] = _start(options, commands[index], index, lock), time.monotonic(), held
            time.sleep(0.05)
            for index, (process, start, held) in list(running.items()):
                if process.poll() is not None:
                    del running[index]
                    _finish(options.out, index, process.returncode, (time.monotonic() - start) / 60)
                    held.close()
    except BaseException as error:
        for process, _, _ in running.values():
            process.send_signal(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
        for process, _, held in running.values():
            process.wait()
            held.close()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _finish(out: Path, index: int, code: int, minutes: float) -> None:
    """Notes how a point ended; its last line says why it failed."""
    run_dir = out / _name(index)
    minutes += _state(out, index).get("minutes", 0.0)
    state = {"status": "failed" if code else "finished", "minutes": minutes}
    write_json(run_dir / "point.json", state)
    lines = (out / f"{_name(index)}.log").read_text(errors="replace").strip().splitlines()
    print(f"{_name(index)}: {f'failed with code {code}: {(lines or [str()])[-1]}' if code else 'finished'}", flush=True)


def _name(index: int) -> str:
    return f"point_{index:03d}"


def _state(out: Path, index: int) -> dict[str, Any]:
    """How a point has ended so far; where that cannot be read, it goes on, which a finished run ends at once."""
    path = out / _name(index) / "point.json"
    state: Any = {}
    try:
        state = read_plain(path) if path.is_file() else {}
    except ValueError:
        state = None
    known = isinstance(state, dict) and isinstance(state.get("minutes", 0.0), int | float)
    return state if known else {"status": "unknown"}


def _flat(point: Point, prefix: str = "") -> Point:
    flat: Point = {}
    for name, value in point.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _result(run_dir: Path, metric: dict[str, Any]) -> float | None:
    """The best value of the metric that a run has logged."""
    path = run_dir / "metrics.csv"
    try:
        rows = read_metrics(path) if path.is_file() else []
    except ValueError as error:
        print(error)
        return None
    values = [value for row in rows if not math.isnan(value := row.get(metric["name"], math.nan))]
    best = max if metric.get("goal") == "maximize" else min
    return best(values, default=None)


def _write_table(out: Path, points: list[Point], metric: dict[str, Any] | None, others: Sequence[int]) -> None:
    rows = []
    for index, point in enumerate(points):
        run_dir, state = out / _name(index), _state(out, index)
        begun = "running" if index in others else "interrupted" if run_dir.exists() else "to do"
        status = begun if index in others else state.get("status", begun)
        row = {"point": _name(index), **_flat(point), "status": status, "minutes": round(state.get("minutes", 0), 2)}
        rows.append(row | ({metric["name"]: _result(run_dir, metric)} if metric else {}))
    write_rows(out / "sweep.csv", rows)
    print((out / "sweep.csv").read_text() + str(out / "sweep.csv"))
