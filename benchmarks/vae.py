"""Images per second and final ELBO of the butterflies' VAE: plain float32, and with `configs/trainer/fast.yaml`.

Run as `python benchmarks/vae.py ROOT [EPOCHS]`, ROOT a folder or zip file of images. The speed is that of some batches
of the config as it is, beside a bare PyTorch loop in float32; the ELBO is that of whole trainings on images of 64 x 64
with half the learning rate, from the same seed and over the same batches.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch
from clock import StepClock

from datamodules import ImageFolderDataModule
from lightning_modules import VAE, ConvDecoder, ConvGaussianEncoder
from preimage.__main__ import main as preimage
from preimage.files import read_metrics

CONFIGS = Path(__file__).parent.parent / "configs"


def bare_loop(data: ImageFolderDataModule, steps: int = 20) -> float:
    """Images per second of a plain float32 loop over the same network, loss and batches."""
    vae = VAE(ConvGaussianEncoder(), ConvDecoder(), latent_dim=128, likelihood="gaussian", learn_variance=True)
    optimizer, seconds = torch.optim.AdamW(vae.parameters(), lr=1e-3), []
    for _, batch in zip(range(steps), data.train_dataloader(), strict=False):
        start = time.perf_counter()
        optimizer.zero_grad()
        vae.training_step(data.on_after_batch_transfer(batch, 0), 0).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return data.batch_size / sorted(seconds)[steps // 2]


def fit(root: str, overlay: str | None, *flags: str) -> tuple[float, float]:
    """Seconds of the fastest epoch of a training, and its ELBO on the validation split in nats per image."""
    StepClock.seconds.clear()
    with tempfile.TemporaryDirectory() as folder:
        configs = [f"--config={CONFIGS / name}" for name in ("butterflies/vae.yaml", overlay) if name]
        own = ["--trainer.callbacks+=clock.StepClock", f"--run_dir={folder}/run", f"--data.root={root}"]
        preimage(["fit", *configs, *own, *flags])
        elbo = [row["val/elbo"] for row in read_metrics(Path(folder) / "run/metrics.csv") if "val/elbo" in row]
    return min(StepClock.seconds), elbo[-1]


def main() -> None:
    """Runs everything and prints a table."""
    root, epochs = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "8"
    sys.argv = sys.argv[:1]
    data = ImageFolderDataModule(root, batch_size=32)
    data.prepare_data()
    data.setup("fit")
    bare = bare_loop(data)
    few = ["--trainer.max_epochs=3", "--trainer.limit_train_batches=20", "--trainer.limit_val_batches=1"]
    small = ["--data.image_size=64"]
    small += ["--model.optimizer.lr=0.001", f"--trainer.max_epochs={epochs}"]
    lines = [f"{'':24}{'images/s':>10}{'ratio':>8}{'ELBO':>12}", f"{'bare loop, float32':24}{bare:10.1f}{1:8.2f}"]
    for name, overlay in (("preimage, float32", None), ("preimage, fast.yaml", "trainer/fast.yaml")):
        speed = 20 * data.batch_size / fit(root, overlay, *few)[0]
        elbo = fit(root, overlay, *small)[1]
        lines.append(f"{name:24}{speed:10.1f}{speed / bare:8.2f}{elbo:12.0f}")
    print("", *lines, sep="\n")


if __name__ == "__main__":
    main()
