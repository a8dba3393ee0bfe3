"""One GPU in under ten minutes: speed and memory of every system, and of every way to train the largest one.

Run as `python benchmarks/gpu.py [TABLE.md]`. A row is a short training on random images by its config; beside it stands
a bare loop around the same steps. A row that fails says why, and the rest goes on. `--tiny` runs the same code on a CPU
in a few small steps, so that it is known to work: its figures say nothing.
"""

import gc
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clock import CONFIGS
from lightning.pytorch import Callback
from PIL import Image

from preimage.cli import PreimageCLI

TINY = "--tiny"
STEPS, WARM = 50, 10  # that are timed, and before them
FULL = "faces/real_fake_full.yaml"
#: Config by the name of a system, and flags of its own.
SYSTEMS = {
    "autoencoder": ("mnist/autoencoder.yaml", []),
    "VAE": ("mnist/vae.yaml", []),
    "classifier": ("mnist/classifier.yaml", []),
    "semi-supervised": ("mnist/classifier_100_semi.yaml", ["--model.encoder_checkpoint=null"]),
    "inversion": ("mnist/invert_classifier.yaml", ["--model.encoder_checkpoint=null"]),
    "real_fake": ("faces/real_fake.yaml", []),
    "real_fake_full": (FULL, []),
}
BF16, LAST = "--trainer.precision=bf16-mixed", "--trainer.callbacks+=ChannelsLast"
#: Flags by the name of a way to train the largest system.
WAYS = {
    "float32": ["--trainer.precision=32-true"],
    "bf16": [BF16],
    "bf16, channels_last": [BF16, LAST],
    "bf16, channels_last, compiled": [BF16, LAST, "--trainer.callbacks+=Compile"],
    "bf16, NCCL with one rank, SyncBatchNorm": [BF16, "--trainer.strategy=ddp", "--trainer.sync_batchnorm=true"],
    "bf16, FSDP on one device": [f"--config={CONFIGS / 'trainer/fsdp.yaml'}"],
}


class Clock(Callback):
    """Times the steps after the first ones, when all that was asked of the device is done."""

    seconds = torch.nan

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Starts after the first steps."""
        if trainer.global_step == trainer.max_steps // (1 + STEPS // WARM):
            self.start, self.first = finished(), trainer.global_step

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Stops."""
        self.seconds = (finished() - self.start) / (trainer.global_step - self.first)


def finished() -> float:
    """The time when the device has done what it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def faces(folder: Path, tiny: bool) -> Path:
    """A folder of two classes of images of noise."""
    random = np.random.default_rng(0)
    for index in range(16 if tiny else 256):
        path = folder / f"train/{('real', 'fake')[index % 2]}/{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(path)
    return folder


def flags_of(config: str, data: Path, tiny: bool) -> list[str]:
    """The command line of a short training by a config, without what draws, watches and validates."""
    flags = [f"--config={CONFIGS / config}", "--trainer.callbacks=null", "--curves=null", "--trainer.max_epochs=-1"]
    flags += [f"--trainer.max_steps={6 if tiny else WARM + STEPS}", "--trainer.limit_val_batches=0"]
    flags += ["--trainer.enable_model_summary=false", "--trainer.enable_progress_bar=false", "--trainer.devices=1"]
    if config.startswith("mnist"):
        flags += ["--data.dataset=digits5k"]
    else:
        flags += [f"--data.root={data}", f"--data.cache_dir={data}/cache", f"--data.batch_size={4 if tiny else 32}"]
        flags += ["--model.encoder.width=0.03125", "--model.decoder.width=0.03125"] if tiny else []
    return [*flags, "--trainer.accelerator=cpu", "--trainer.precision=32-true"] if tiny else flags


def bare(cli: Any, steps: int) -> float:
    """Seconds of a step in a loop without the Trainer, in bfloat16 on a GPU."""
    model, data, device = cli.model, cli.datamodule, cli.trainer.strategy.root_device
    model.to(device).train()
    optimizer = torch.optim.Adam(parameter for parameter in model.parameters() if parameter.requires_grad)
    done, start = 0, 0.0
    while done < steps:
        for batch in data.train_dataloader():
            if done == steps // (1 + STEPS // WARM):
                start, first = finished(), done
            moved = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = model.training_step(moved, done)
            loss.backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
    return (finished() - start) / (steps - first)


def measure(flags: list[str], folder: str, alone: bool) -> list[str]:
    """Images per second by the Trainer and, where it is `alone`, by the bare loop, their ratio, and the peak memory."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    flags += [f"--run_dir={folder}/run", "--trainer.callbacks+=gpu.Clock"]
    cli: Any = PreimageCLI(["fit", *flags])
    clock = next(callback for callback in cli.trainer.callbacks if type(callback).__name__ == "Clock")
    memory = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else torch.nan
    rate = cli.datamodule.batch_size / clock.seconds
    cells = [f"{rate:,.0f}", "", "", f"{memory:.2f}"]
    if not alone:
        loop = cli.datamodule.batch_size / bare(cli, cli.trainer.max_steps)
        cells[1:3] = f"{loop:,.0f}", f"{rate / loop:.2f}"
    return cells


def rows(data: Path, tiny: bool) -> Iterator[tuple[str, list[str], bool]]:
    """Name and flags of every row, and whether it stands alone, without a bare loop."""
    for name, (config, own) in SYSTEMS.items():
        yield name, [*flags_of(config, data, tiny), *own, *([] if tiny else [BF16])], False
    for name, way in WAYS.items():
        if not tiny:
            yield f"real_fake_full: {name}", [*flags_of(FULL, data, tiny), *way, "--trainer.devices=1"], True
        elif "FSDP" not in name:  # which Lightning has for GPUs only, as torch has SyncBatchNorm
            left = [flag for flag in way if flag != BF16 and "sync" not in flag]
            left += ["--trainer.callbacks.init_args.backend=eager"] if "compiled" in name else []
            yield f"real_fake_full: {name}", flags_of(FULL, data, tiny) + left, True


def main(args: list[str]) -> str:
    """Prints a Markdown table and writes it to a file if one is named."""
    tiny = TINY in args
    if not tiny and not torch.cuda.is_available():
        raise SystemExit("error: there is no GPU here; --tiny runs the same code on the CPU")
    device = "a CPU, in tiny sizes that say nothing" if tiny else torch.cuda.get_device_name()
    lines = [f"torch {torch.__version__} on {device}", ""]
    lines += ["| training | images/s | bare loop | ratio | peak GB |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as root:
        data = faces(Path(root, "faces"), tiny)
        for name, flags, alone in rows(data, tiny):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    cells = measure(flags, folder, alone)
                except (Exception, SystemExit) as error:  # of memory, of a compiler that there is not
                    cells = [f"failed: {type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"]
            lines.append(f"| {name} | " + " | ".join(cells + [""] * (4 - len(cells))) + " |")
            print(lines[-1], flush=True)
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            gc.collect()
            torch.cuda.empty_cache()
    table = "\n".join(lines)
    for path in [arg for arg in args if arg != TINY]:
        Path(path).write_text(f"{table}\n")
    return table


if __name__ == "__main__":
    print("\n" + main(sys.argv[1:]))
