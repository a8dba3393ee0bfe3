"""Seconds per epoch of an inversion: with cached features and without, and in float32 without either.

Run as `python benchmarks/inversion.py WEIGHTS ROOT [LAYER ...]`: the file of torchvision's weights of squeezenet1_1,
and the folder or zip file of Tiny ImageNet. Some batches are timed, and scaled to an epoch.
"""

import sys
import tempfile
from pathlib import Path

from clock import StepClock
from squeezenet import LAYERS, atlas

BATCHES, IMAGES, BATCH_SIZE = 24, 8100, 32
FLOAT32, ENCODING = ["--trainer.precision=32-true", "--trainer.callbacks=null"], ["--model.cache_codes=false"]
VARIANTS = {"cached, fast": [], "encoding, fast": ENCODING, "cached, float32": FLOAT32}
VARIANTS["encoding, float32"] = FLOAT32 + ENCODING
FEW = [f"--trainer.limit_train_batches={BATCHES}", "--trainer.limit_val_batches=0", "--trainer.limit_test_batches=1"]
FEW += ["--trainer.max_epochs=3"]


def main(weights: str, root: str, *layers: str) -> None:
    """Times every layer and variant and prints a table."""
    lines = [" " * 14 + "".join(f"{name:>20}" for name in VARIANTS) + "   cache gains   fast gains    both gain"]
    for layer in layers or LAYERS:
        seconds = []
        for flags in VARIANTS.values():
            StepClock.seconds.clear()
            with tempfile.TemporaryDirectory() as folder:
                atlas(weights, root, Path(folder), [layer], *FEW, *flags, "--trainer.callbacks+=clock.StepClock")
            seconds.append(min(StepClock.seconds) * IMAGES / (BATCHES * BATCH_SIZE))
        gains = "".join(f"{value / seconds[0]:14.2f}" for value in seconds[1:])
        lines.append(f"{layer:14}" + "".join(f"{value:20.1f}" for value in seconds) + gains)
    print("", *lines, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
