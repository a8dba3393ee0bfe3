"""Seconds per epoch of the butterflies' second stage: with cached codes, and encoding the images at every epoch.

Run as `python benchmarks/codes.py CHECKPOINT ROOT [OVERLAY]`: checkpoint of the VAE, folder or zip file of images.
"""

import sys
from pathlib import Path

from clock import CONFIGS, fit

checkpoint, root, *overlays = sys.argv[1:]
flags = [f"--config={name}" for name in (CONFIGS / "butterflies/latent_classifier.yaml", *overlays)]
flags += [f"--model.encoder_checkpoint={Path(checkpoint).absolute()}", f"--data.root={root}"]
encoding, _ = fit(*flags, "--model.cache_codes=false", "--trainer.max_epochs=2")
cached, _ = fit(*flags, "--model.cache_codes=true", "--trainer.max_epochs=10")
print(f"\nencoding at every epoch {encoding:.2f} s, cached codes {cached:.3f} s: {encoding / cached:.0f} x")
