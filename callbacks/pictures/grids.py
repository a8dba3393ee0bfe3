"""Grids of images: originals over their reconstructions, and what a model draws from its prior."""

import math

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from preimage.checks import check_range
from preimage.fonts import font_for

from . import Picture, drawn_names, save_below_images


class ReconstructionGrid(Picture):
    """Draws originals over their reconstructions, for the same images of the split at every epoch.

    The images of the newest picture are kept beside it in `pairs.npz`: `target` and `reconstruction`, uint8
    `(N, C, H, W)`.

    Args:
        count: Number of images.
        columns: Images in a row, at most; rows are made even.
        every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
        captions: Write the name of its class over each image.
    """

    name = "reconstructions"
    needs = ("reconstruction",)
    keeps = ("target", "reconstruction", "label")

    def __init__(self, count: int = 32, columns: int = 16, every_n_epochs: int = 1, captions: bool = False) -> None:
        super().__init__(every_n_epochs)
        check_range("ReconstructionGrid", "[1, inf)", count=count, columns=columns)
        self.count = count
        self.columns = columns
        self.captions = captions

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> NDArray[np.uint8] | None:
        """Lays the images out: a row of originals, the row of their reconstructions, and so on."""
        if not self.kept:
            return None
        targets, reconstructions, labels = self.joined().values()
        pairs = {"target": _as_bytes(targets), "reconstruction": _as_bytes(reconstructions)}
        save_below_images(trainer, f"{self.name}/pairs.npz", lambda path: np.savez_compressed(path, **pairs))  # type: ignore[arg-type]
        columns = _even(len(targets), self.columns)
        if not self.captions:
            return reconstruction_grid(targets, reconstructions, columns)
        known = drawn_names(trainer, int(labels.max()) + 1)
        rows = []
        for row in torch.arange(len(labels)).split(columns):
            grid = reconstruction_grid(targets[row], reconstructions[row], columns)
            names = [known[label] if label >= 0 else "" for label in labels[row].tolist()]
            rows += [caption_row(names, grid.shape[1], columns), grid]
        return np.concatenate(rows)


class PriorSamples(Picture):
    """Draws images from the prior of a model with a method `sample(count)`: from the same codes at every epoch.

    Args:
        count: Number of images.
        columns: Images in a row, at most; rows are made even.
        every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
    """

    name = "samples"

    def __init__(self, count: int = 64, columns: int = 16, every_n_epochs: int = 5) -> None:
        super().__init__(every_n_epochs)
        check_range("PriorSamples", "[1, inf)", count=count, columns=columns)
        self.samples = count
        self.columns = columns

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> NDArray[np.uint8] | None:
        """Lays the samples out in rows."""
        sample = getattr(pl_module, "sample", None)
        if sample is None or not trainer.is_global_zero:
            return None
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.no_grad():  # a picture must not change the training after it
            torch.manual_seed(0)
            return image_grid(sample(self.samples).float().cpu(), _even(self.samples, self.columns))


def _even(count: int, most: int) -> int:
    """Columns, so many at most, of as few rows as hold all images, and as even ones."""
    return math.ceil(count / math.ceil(count / most))


def _as_bytes(images: Tensor) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = images.clamp(0, 1).mul(255).round().byte().numpy()
    return array


def image_grid(images: Tensor, columns: int) -> NDArray[np.uint8]:
    """Lays images `(N, C, H, W)` in [0, 1] out in rows.

    Returns:
        The grid `(height, width, 3)` as uint8; images below 64 pixels are enlarged by a whole factor.
    """
    images = F.interpolate(images.clamp(0, 1), scale_factor=max(1, 64 // images.shape[-1]), mode="nearest")
    return _as_bytes(make_grid(images, nrow=columns, padding=2, pad_value=1.0).permute(1, 2, 0))


def reconstruction_grid(targets: Tensor, reconstructions: Tensor, columns: int) -> NDArray[np.uint8]:
    """Lays pairs of images `(N, C, H, W)` in [0, 1] out as `image_grid` does, a row of originals over the other."""
    missing = targets.new_ones(-len(targets) % columns, *targets.shape[1:])
    rows = [torch.cat([images, missing]).unflatten(0, (-1, columns)) for images in (targets, reconstructions)]
    return image_grid(torch.stack(rows, dim=1).flatten(0, 2), columns)


def caption_row(names: list[str], width: int, columns: int) -> NDArray[np.uint8]:
    """Writes names over the columns of a grid.

    Args:
        names: At most one name per column; each begins a new line at a bracket, and is cut where its column ends.
        width: Width of the grid, in pixels.
        columns: Columns of the grid.

    Returns:
        The row `(26, width, 3)` as uint8.
    """
    row = Image.new("RGB", (width, 26), "white")
    for index, name in enumerate(names):
        tile = Image.new("RGB", (width // columns - 3, 26), "white")
        text, font = name.replace(" (", "\n("), font_for(name, 10)
        ImageDraw.Draw(tile).multiline_text((0, 0), text, fill="black", font=font, spacing=1)
        row.paste(tile, (2 + index * (width - 2) // columns, 0))
    return np.asarray(row)
