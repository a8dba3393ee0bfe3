"""Seconds per epoch of an inversion: with cached features and without, and in float32 without either.

Run as `python benchmarks/inversion.py WEIGHTS ROOT [LAYER ...]`: the file of torchvision's weights of squeezenet1_1,
and the folder or zip file of Tiny ImageNet. Some batches are timed, and scaled to an epoch.
"""

import sys
import tempfile
from pathlib import Path

from clock import StepClock
from squeezenet import LAYERS

from preimage.__main__ import main as preimage

CONFIGS = Path(__file__).parent.parent / "configs/tiny_imagenet"
BATCHES, IMAGES, BATCH_SIZE = 24, 8100, 32
VARIANTS = {
    "cached, fast": [],
    "encoding, fast": ["--model.cache_codes=false"],
    "cached, float32": ["--trainer.precision=32-true", "--trainer.callbacks=null"],
    "encoding, float32": ["--trainer.precision=32-true", "--trainer.callbacks=null", "--model.cache_codes=false"],
}


def main() -> None:
    """Times every layer and variant and prints a table."""
    weights, root, *layers = sys.argv[1:]
    sys.argv = sys.argv[:1]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for layer in layers or LAYERS:
            seconds = []
            for name, flags in VARIANTS.items():
                StepClock.seconds.clear()
                out = f"{folder}/{name}"
                own = ["--network=squeezenet1_1", f"--weights={weights}", "--feature_size=129", "--width=0.25"]
                few = [f"--trainer.limit_train_batches={BATCHES}", "--trainer.limit_val_batches=0"]
                few += ["--trainer.max_epochs=3", "--trainer.limit_test_batches=1", *flags]
                few += [f"--data.root={root}", "--trainer.callbacks+=clock.StepClock"]
                preimage(["atlas", *own, "--layers", layer, f"--out={out}", *few])
                seconds.append(min(StepClock.seconds) * IMAGES / (BATCHES * BATCH_SIZE))
            ratios = f"{seconds[1] / seconds[0]:14.2f}{seconds[2] / seconds[0]:14.2f}{seconds[3] / seconds[0]:14.2f}"
            lines.append(f"{layer:14}" + "".join(f"{value:20.1f}" for value in seconds) + ratios)
    print("\n" + " " * 14 + "".join(f"{name:>20}" for name in VARIANTS) + "   cache gains   fast gains    both gain")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
