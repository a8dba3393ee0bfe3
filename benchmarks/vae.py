"""Images per second and final ELBO of the butterflies' VAE: plain float32, and with `configs/trainer/fast.yaml`.

Run as `python benchmarks/vae.py ROOT [EPOCHS]`, ROOT a folder or zip file of images. Both trainings start from the same
seed and see the same batches; a bare PyTorch loop in float32 is timed beside them.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch
from clock import StepClock

from callbacks.run_directory import read_metrics
from datamodules import ImageFolderDataModule
from lightning_modules import VAE, ConvDecoder, ConvGaussianEncoder
from main import main as preimage

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


def fit(root: str, epochs: int, *overlays: str) -> tuple[float, float]:
    """Images per second of the fastest epoch of a training, and its ELBO on the validation split in nats per image."""
    StepClock.seconds.clear()
    with tempfile.TemporaryDirectory() as folder:
        configs = [f"--config={CONFIGS / name}" for name in ("butterflies/vae.yaml", *overlays)]
        clock = ["--trainer.callbacks+=clock.StepClock", f"--run_dir={folder}/run"]
        preimage(["fit", *configs, *clock, f"--data.root={root}", f"--trainer.max_epochs={epochs}"])
        elbo = [row["val/elbo"] for row in read_metrics(Path(folder) / "run/metrics.csv") if "val/elbo" in row]
    data = ImageFolderDataModule(root, batch_size=32)
    data.setup("fit")
    return len(data.train_set) / min(StepClock.seconds), elbo[-1]


def main() -> None:
    """Runs everything and prints a table."""
    root, epochs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 6
    sys.argv = sys.argv[:1]
    data = ImageFolderDataModule(root, batch_size=32)
    data.prepare_data()
    data.setup("fit")
    bare = bare_loop(data)
    rows = [("preimage, float32", *fit(root, epochs)), ("preimage, fast.yaml", *fit(root, epochs, "trainer/fast.yaml"))]
    print(f"\n{'':24}{'images/s':>10}{'ratio':>8}{'ELBO':>12}\n{'bare loop, float32':24}{bare:10.1f}{1:8.2f}")
    for name, speed, elbo in rows:
        print(f"{name:24}{speed:10.1f}{speed / bare:8.2f}{elbo:12.0f}")


if __name__ == "__main__":
    main()
