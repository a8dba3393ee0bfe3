"""The MNIST autoencoder: the original's plain loop against `preimage fit`, by wall time and test error.

The loop is that of the original system: per-item PIL images, batch 64, Adam 1e-3, ten epochs, float32. Both train on
all 60,000 images and run one after the other in one process.
"""

import argparse
from pathlib import Path

import torch
from clock import CONFIGS, preimage
from throughput import PerItemImages, plain_epoch, seconds
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from datamodules import MNISTDataModule
from lightning_modules import MNISTDecoder, MNISTEncoder
from preimage.evaluation.runs import figures_of


def original(root: str, epochs: int) -> tuple[float, float]:
    """Trains as the original did; returns seconds and test MSE."""
    torch.manual_seed(0)
    data = MNISTDataModule(dataset="mnist", root=root, val_size=0)
    data.setup("fit")
    model = nn.Sequential(MNISTEncoder(), MNISTDecoder())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(dataset=PerItemImages(data), batch_size=64, shuffle=True)
    spent = 0.0
    for epoch in range(epochs):
        spent += seconds(lambda: plain_epoch(loader, model, optimizer))
        print(f"original: epoch {epoch + 1}, {spent:.1f} s", flush=True)
    images = data.test_set.images.float() / 255
    with torch.no_grad():
        return spent, float(F.mse_loss(model(images), images))


def main() -> None:
    """Runs both and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data", help="folder with the MNIST files")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of `preimage fit`")
    parser.add_argument("--run_dir", default="runs/benchmark/autoencoder", help="a folder that is not there yet")
    options = parser.parse_args()
    theirs, error = original(options.root, 10)
    flags = [f"--config={CONFIGS / 'mnist' / name}" for name in ("autoencoder.yaml", "all_images.yaml")]
    flags += [f"--trainer.max_epochs={options.epochs}", f"--data.root={options.root}", f"--run_dir={options.run_dir}"]
    ours = seconds(lambda: preimage("fit", *flags))  # with reading of the data, pictures and checkpoints
    preimage("test", *flags, f"--ckpt_path={options.run_dir}/checkpoints/last.ckpt")
    mse = figures_of(Path(options.run_dir))["test/mse"]
    print(f"\n{'':12}{'epochs':>8}{'seconds':>10}{'test MSE':>10}")
    print(f"{'original':12}{10:8}{theirs:10.1f}{error:10.5f}")
    print(f"{'preimage':12}{options.epochs:8}{ours:10.1f}{mse:10.5f}   {ours / theirs:.2f} of its time")


if __name__ == "__main__":
    main()
