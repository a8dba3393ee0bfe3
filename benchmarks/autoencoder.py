"""The MNIST autoencoder: the original's plain loop against `preimage fit`, by wall time and test error.

The loop is that of the original system: per-item PIL images, batch 64, Adam 1e-3, ten epochs, float32. Both train on
all 60,000 images and run one after the other in one process.
"""

import argparse
import time
from pathlib import Path

import torch
from throughput import PerItemImages
from torch.nn import functional as F
from torch.utils.data import DataLoader

from datamodules import MNISTDataModule
from lightning_modules import MNISTDecoder, MNISTEncoder
from preimage.__main__ import main as preimage
from preimage.files import read_metrics


def original(data: MNISTDataModule, epochs: int) -> tuple[float, float]:
    """Trains as the original did; returns seconds and test MSE."""
    encoder, decoder = MNISTEncoder(), MNISTDecoder()
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    loader = DataLoader(dataset=PerItemImages(data), batch_size=64, shuffle=True)
    start = time.perf_counter()
    for epoch in range(epochs):
        for images, _ in loader:
            optimizer.zero_grad()
            F.mse_loss(decoder(encoder(images)), images).backward()
            optimizer.step()
        print(f"original: epoch {epoch + 1}, {time.perf_counter() - start:.1f} s", flush=True)
    seconds = time.perf_counter() - start
    images = data.test_set.images.float() / 255
    with torch.no_grad():
        return seconds, float(F.mse_loss(decoder(encoder(images)), images))


def main() -> None:
    """Runs both and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data", help="folder with the MNIST files")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of `preimage fit`")
    parser.add_argument("--run_dir", default="runs/benchmark/autoencoder", help="a folder that is not there yet")
    options = parser.parse_args()
    torch.manual_seed(0)
    data = MNISTDataModule(dataset="mnist", root=options.root, val_size=0)
    data.setup("fit")
    seconds, error = original(data, 10)

    root = Path(__file__).parent.parent
    configs = [f"--config={root / 'configs/mnist' / name}" for name in ("autoencoder.yaml", "all_images.yaml")]
    flags = [f"--trainer.max_epochs={options.epochs}", f"--data.root={options.root}", f"--run_dir={options.run_dir}"]
    start = time.perf_counter()
    preimage(["fit", *configs, *flags])  # with reading of the data, pictures and checkpoints
    ours = time.perf_counter() - start
    preimage(["test", *configs, *flags, f"--ckpt_path={options.run_dir}/checkpoints/last.ckpt"])
    mse = [row["test/mse"] for row in read_metrics(Path(options.run_dir) / "metrics.csv") if "test/mse" in row][-1]
    print(f"\n{'':12}{'epochs':>8}{'seconds':>10}{'test MSE':>10}")
    print(f"{'original':12}{10:8}{seconds:10.1f}{error:10.5f}")
    print(f"{'preimage':12}{options.epochs:8}{ours:10.1f}{mse:10.5f}   {ours / seconds:.2f} of its time")


if __name__ == "__main__":
    main()
