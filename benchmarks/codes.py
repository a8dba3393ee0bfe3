"""Seconds per epoch of the butterflies' second stage: with cached codes, and encoding the images at every epoch.

Run as `python benchmarks/codes.py CHECKPOINT ROOT [OVERLAY]`: checkpoint of the VAE, folder or zip file of images.
"""

import sys
import tempfile
from pathlib import Path

from clock import StepClock

from preimage.__main__ import main as preimage

CONFIGS = Path(__file__).parent.parent / "configs"


def epoch(checkpoint: str, root: str, overlays: list[str], cached: bool, epochs: int) -> float:
    """Seconds of the fastest training epoch."""
    StepClock.seconds.clear()
    with tempfile.TemporaryDirectory() as folder:
        configs = [f"--config={name}" for name in (CONFIGS / "butterflies/latent_classifier.yaml", *overlays)]
        flags = [f"--model.encoder_checkpoint={Path(checkpoint).absolute()}", f"--model.cache_codes={cached}"]
        flags += [f"--data.root={root}", f"--run_dir={folder}/run", f"--trainer.max_epochs={epochs}"]
        preimage(["fit", *configs, *flags, "--trainer.callbacks+=clock.StepClock"])
    return min(StepClock.seconds)


def main() -> None:
    """Runs both and prints the ratio."""
    checkpoint, root, *overlays = sys.argv[1:]
    sys.argv = sys.argv[:1]
    encoding = epoch(checkpoint, root, overlays, cached=False, epochs=2)
    cached = epoch(checkpoint, root, overlays, cached=True, epochs=10)
    print(f"\nencoding at every epoch {encoding:.2f} s, cached codes {cached:.3f} s: {encoding / cached:.0f} x")


if __name__ == "__main__":
    main()
