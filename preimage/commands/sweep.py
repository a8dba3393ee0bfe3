"""`preimage sweep`: runs the points of a W&B sweep file without a server, and tables their results."""

import argparse
import math
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preimage.errors import CommandParser, at_least
from preimage.files import read_metrics, read_plain, write_json, write_rows
from preimage.locks import PATIENCE, Busy, locked
from preimage.sweep_file import Point, command_of, points_of, read_sweep

#: What a point's test says of the bits of a code, which makes a figure of the sweep.
_RATE = "test/bits_per_image"


def _parse(args: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads the arguments; those that are not the sweep's own are for every point."""
    epilog = (
        "All other flags go to the command of each point, for example --data.root DIR --trainer.accelerator cpu; it"
        " also gets --run_dir and --ckpt_path auto. Several processes may share a sweep: a point that one of them runs"
        " is left to it."
    )
    parser = CommandParser("preimage sweep", description=__doc__, epilog=epilog)
    parser.add_argument("file", type=Path, help="a sweep as `wandb sweep` takes it, with method grid or random")
    parser.add_argument("--out", type=Path, help="folder of the sweep, by default runs/sweeps/FILE")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="points at a time")
    index_help = "run this point alone, counted from 0; in a SLURM array job by default that of the task"
    parser.add_argument("--index", type=at_least(0), default=os.environ.get("SLURM_ARRAY_TASK_ID"), help=index_help)
    parser.add_argument("--count", type=at_least(1), help="points at most, by default the file's run_cap")
    parser.add_argument("--seed", type=int, help="seed of a random sweep, by default the recorded one, at first 0")
    options, rest = parser.parse_known_args(args)
    options.out = options.out or Path("runs/sweeps") / options.file.stem
    return options, rest


@dataclass
class _Job:
    """A point, its files, and the process at work on it."""

    point: Point
    folder: Path
    command: list[str]
    log: Path
    elsewhere: bool = False  # another process runs it
    process: subprocess.Popen[bytes] = field(init=False)
    started: float = field(init=False)
    held: ExitStack = field(init=False, default_factory=ExitStack)

    @property
    def state(self) -> dict[str, Any]:
        """How it has ended so far; where that cannot be read, it goes on, which a finished run ends at once."""
        try:
            state = read_plain(self.folder / "point.json")
            return {"status": str(state["status"]), "minutes": float(state["minutes"])}
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return {"status": "interrupted" if self.folder.exists() else "to do", "minutes": 0.0}

    @property
    def finished(self) -> bool:
        return self.state["status"] == "finished"

    def say(self, what: str) -> None:
        print(f"{self.folder.name}: {what}", flush=True)

    def start(self, jobs: int) -> bool:
        """Starts it, as one of so many, unless it is finished or another process is at work on it."""
        if not self.finished:
            try:
                lock = self.held.enter_context(locked(self.folder.with_name(f".{self.folder.name}.lock")))
            except Busy as error:
                self.say(str(error))
                self.elsewhere = True
                return False
        if self.finished:  # also by another process in the meantime
            self.held.close()
            self.say(f"done, {self.folder}")
            return False
        environment = dict(os.environ)
        if jobs > 1:  # else their threads stall each other; macOS binds no process to cores
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // jobs)))
        self.say(f"{'goes on' if self.folder.exists() else 'starts'}, {self.log}")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches it once
                pass_fds=[lock] if lock >= 0 else [],  # which is held while either of the two lives
            )
        self.started = time.monotonic()
        return True

    def end(self) -> None:
        """Notes how it has ended; its last line says why it failed."""
        code, minutes = self.process.returncode, self.state["minutes"] + (time.monotonic() - self.started) / 60
        state = {"status": "failed" if code else "finished", "minutes": minutes}
        write_json(self.folder / "point.json", state)
        lines = self.log.read_text(errors="replace").strip().splitlines() or [""]
        self.say(f"failed with code {code}: {lines[-1]}" if code else "finished")
        self.held.close()

    def row(self, metric: dict[str, Any] | None) -> dict[str, Any]:
        """Its line of the table."""
        state = self.state | ({"status": "running"} if self.elsewhere else {})
        row = {"point": self.folder.name, **_flat(self.point), **state, "minutes": round(state["minutes"], 2)}
        logged = self._logged()
        best = max if (metric or {}).get("goal") == "maximize" else min
        row |= {metric["name"]: best(logged.get(metric["name"], ()), default=None)} if metric else {}
        return row | ({_RATE: logged[_RATE][-1]} if _RATE in logged else {})

    def _logged(self) -> dict[str, list[float]]:
        """The values of each metric."""
        path = self.folder / "metrics.csv"
        values = defaultdict[str, list[float]](list)
        try:
            for row in read_metrics(path) if path.is_file() else []:
                for name, value in row.items():
                    values[name] += [] if math.isnan(value) else [value]
        except ValueError as error:
            print(error)
        return {name: numbers for name, numbers in values.items() if numbers}


def main(args: Sequence[str]) -> None:
    """Runs what is not finished, and writes `sweep.csv`.

    Args:
        args: The arguments after `sweep`.

    Raises:
        ChildProcessError: A point failed; the others have run.
        KeyboardInterrupt: The sweep was interrupted.
    """
    options, rest = _parse(args)
    sweep = read_sweep(options.file)
    points = _recorded(options, sweep)
    if options.index is not None and options.index >= len(points):
        raise ValueError(f"--index {options.index}: the sweep has the points 0 to {len(points) - 1}")
    all_jobs = []
    for index, point in enumerate(points):
        folder = options.out / f"point_{index:03d}"
        command = [*command_of(sweep, point), *rest, f"--run_dir={folder}"]
        if not any(word.startswith("--ckpt_path") for word in command):
            command.append("--ckpt_path=auto")
        all_jobs.append(_Job(point, folder, command, folder.with_suffix(".log")))
    chosen = all_jobs if options.index is None else [all_jobs[options.index]]
    try:
        _run(chosen, options.jobs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on") from None
    finally:
        table = options.out / "sweep.csv"
        rows = [job.row(sweep.get("metric")) for job in all_jobs]
        write_rows(table, rows)
        print(table.read_text() + str(table))
    if any(_RATE in row for row in rows):
        from preimage.reporting.report import draw_rates  # no sooner, since it takes seconds

        draw_rates(options.out)
    others = [job.folder.name for job in chosen if job.elsewhere]
    if others:
        print(f"{len(others)} of {len(chosen)} points are left to other processes: {', '.join(others)};", end=" ")
        print("the same command tables them")
    failed = [str(job.log) for job in chosen if not (job.elsewhere or job.finished)]
    if failed:
        raise ChildProcessError(
            f"{len(failed)} of {len(chosen)} points failed, the same command tries again: {', '.join(failed)}"
        )


def _recorded(options: argparse.Namespace, sweep: dict[str, Any]) -> list[Point]:
    """The points, written to `sweep.json` with the seed; more points than at the last time are welcome, others not."""
    path: Path = options.out / "sweep.json"
    before, recorded_seed = _record(path)
    seed = recorded_seed if options.seed is None else options.seed
    count = options.count or sweep.get("run_cap")
    if count is None and sweep["method"] == "random":
        count = len(before) or None
    points = points_of(sweep, count, seed)
    if before[: len(points)] != points[: len(before)]:
        raise ValueError(f"{options.out} holds another sweep: give its file and seed, or another --out")
    if len(points) <= len(before):
        return points
    options.out.mkdir(parents=True, exist_ok=True)
    with locked(options.out / ".sweep.lock", PATIENCE):
        if _record(path) == (before, recorded_seed):
            write_json(path, {"seed": seed, "points": points})
            return points
    return _recorded(options, sweep)  # another process has written it in the meantime


def _record(path: Path) -> tuple[list[Point], int]:
    """The points and the seed of the last start; no points at the first one."""
    match read_plain(path) if path.is_file() else {"seed": 0, "points": []}:
        case {"seed": int(seed), "points": list(points)} if all(isinstance(point, dict) for point in points):
            return points, seed
    raise ValueError(f"{path} has no seed and points: remove it to draw them anew, or give another --out")


def _run(chosen: Sequence[_Job], jobs: int) -> None:
    """Runs points, some at a time; a signal goes on to those that run, which save their state."""
    queue, running = list(chosen), list[_Job]()
    try:
        while queue or running:
            while queue and len(running) < jobs:
                job = queue.pop(0)
                if job.start(jobs):
                    running.append(job)
            time.sleep(0.05)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                job.end()
    except BaseException as error:
        for job in running:
            job.process.send_signal(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
        for job in running:
            job.process.wait()
            job.held.close()
        raise


def _flat(point: Point, prefix: str = "") -> Point:
    flat: Point = {}
    for name, value in point.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
