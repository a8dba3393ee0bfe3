"""The atlas: who does what of it, and what comes out."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from preimage.errors import explain
from preimage.files import write_json
from preimage.locks import Busy
from preimage.reporting.atlas import draw, log_atlas
from preimage.runs import claimed

from ..runs import left_to_others
from .plan import Plan
from .points import file_name, label_of
from .tables import write_tables

CONFIG = Path(__file__).parents[3] / "configs/tiny_imagenet/atlas.yaml"


def draw_atlas(options: argparse.Namespace, rest: list[str]) -> None:
    """Trains and measures what is missing, and writes the tables and figures.

    Several processes may share an atlas: what one of them is at work on is left to it.

    Args:
        options: The arguments of the command.
        rest: Flags for the fit of each decoder.

    Raises:
        ValueError: Some parts failed; they are named after the tables of the others.
    """
    labels = [label_of(network) for network in options.networks]
    options.out = options.out or Path("runs/atlas") / (file_name(labels[0]) if len(labels) == 1 else "plane")
    options.config = options.config or [str(CONFIG)]
    plan, failed = Plan(options, rest), dict[str, Exception]()
    with _workers(options):
        _work(plan, failed)
    if options.jobs > 1 and not options.worker:
        _work(plan, failed)  # what another process failed at; now it is seen why
    if not options.worker:
        write_tables(plan)
        print((options.out / "atlas.md").read_text(), options.out / "atlas.csv", *draw(options.out), sep="\n")
        if options.wandb:
            log_atlas(options.out, options.wandb)
    if failed:
        told = "; ".join(f"{name}: {explain(error)}" for name, error in failed.items())
        raise ValueError(f"{told}; the same command tries again") from next(iter(failed.values()))


def _work(plan: Plan, failed: dict[str, Exception]) -> None:
    """Does all that no other process has done or is doing; what fails, or has before, is noted and left out."""
    for work in plan.works:
        work.done()  # other settings end it before anything begins
    for work in (work for work in plan.works if work.name not in failed):
        if work.needs and not work.needs.is_file():
            print(f"{work.name}: waits for {work.needs}, left out here", flush=True)
            continue
        with left_to_others(work.name), claimed(work.file):
            if work.done():
                print(f"{work.name}: done, {work.file}", flush=True)
            else:
                print(f"{work.name}: starts", flush=True)
                try:
                    write_json(work.file, work.do() | {"settings": work.settings})
                except Busy:
                    raise
                except Exception as error:  # the others are done all the same
                    failed[work.name] = error
                    print(f"{work.name}: failed: {explain(error)}", flush=True)


@contextmanager
def _workers(options: argparse.Namespace) -> Iterator[None]:
    """Starts the other processes of `--jobs`; a signal goes on to them, and they save their state."""
    if options.worker or options.jobs == 1:
        yield
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // options.jobs)  # else they stall each other
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    command = [sys.executable, "-m", "preimage", "atlas", *options.args, "--worker"]
    options.out.mkdir(parents=True, exist_ok=True)
    processes = []
    for number in range(1, options.jobs):
        with (options.out / f"job_{number}.log").open("ab") as log:
            processes.append(
                subprocess.Popen(
                    command,
                    env={"OMP_NUM_THREADS": str(threads)} | os.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # so that Ctrl-C reaches it once
                )
            )
    try:
        yield
    except BaseException as error:
        for process in processes:
            process.send_signal(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
        raise
    finally:
        for process in processes:
            process.wait()
