"""Images per second and final ELBO of the butterflies' VAE: plain float32, and with `configs/trainer/fast.yaml`.

Run as `python benchmarks/vae.py ROOT [EPOCHS]`, ROOT a folder or zip file of images. The speed is that of some batches
of the config as it is, beside a bare PyTorch loop in float32; the ELBO is that of whole trainings on images of 64 x 64
with half the learning rate, from the same seed and over the same batches.
"""

import sys
import time

import torch
from clock import CONFIGS, fit

from datamodules import ImageFolderDataModule
from lightning_modules import VAE, ConvDecoder, ConvGaussianEncoder

STEPS = 20


def bare_loop(data: ImageFolderDataModule) -> float:
    """Images per second of a plain float32 loop over the same network, loss and batches."""
    vae = VAE(ConvGaussianEncoder(), ConvDecoder(), latent_dim=128, likelihood="gaussian", learn_variance=True)
    optimizer, seconds = torch.optim.AdamW(vae.parameters(), lr=1e-3), []
    for _, batch in zip(range(STEPS), data.train_dataloader(), strict=False):
        start = time.perf_counter()
        optimizer.zero_grad()
        vae.training_step(data.on_after_batch_transfer(batch, 0), 0).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return data.batch_size / sorted(seconds)[STEPS // 2]


def main(root: str, epochs: str = "8") -> None:
    """Runs everything and prints a table."""
    data = ImageFolderDataModule(root, batch_size=32)
    data.prepare_data()
    data.setup("fit")
    bare = bare_loop(data)
    few = ["--trainer.max_epochs=3", f"--trainer.limit_train_batches={STEPS}", "--trainer.limit_val_batches=1"]
    small = ["--data.image_size=64", "--model.optimizer.lr=0.001", f"--trainer.max_epochs={epochs}"]
    lines = [f"{'':24}{'images/s':>10}{'ratio':>8}{'ELBO':>12}", f"{'bare loop, float32':24}{bare:10.1f}{1:8.2f}"]
    flags = [f"--config={CONFIGS / 'butterflies/vae.yaml'}", f"--data.root={root}"]
    fast = [*flags, f"--config={CONFIGS / 'trainer/fast.yaml'}"]
    for name, given in (("preimage, float32", flags), ("preimage, fast.yaml", fast)):
        speed = STEPS * data.batch_size / fit(*given, *few)[0]
        lines.append(f"{name:24}{speed:10.1f}{speed / bare:8.2f}{fit(*given, *small)[1]['val/elbo']:12.0f}")
    print("", *lines, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
