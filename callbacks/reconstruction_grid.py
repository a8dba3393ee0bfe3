"""A grid of images and their reconstructions."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from preimage.checks import check_range

from .pictures import Picture, class_names, save_below_images


class ReconstructionGrid(Picture):
    """Draws originals over their reconstructions, for the same images of the split at every epoch.

    The images of the newest picture are kept beside it in `pairs.npz`: `target` and `reconstruction`, uint8
    `(N, C, H, W)`.
    """

    name = "reconstructions"

    def __init__(self, count: int = 32, columns: int = 16, every_n_epochs: int = 1, captions: bool = False) -> None:
        """Sets the size of the grid.

        Args:
            count: Number of images.
            columns: Images in a row.
            every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
            captions: Write the name of its class over each image.
        """
        super().__init__(every_n_epochs)
        check_range("ReconstructionGrid", "[1, inf)", count=count, columns=columns)
        self.count = count
        self.columns = columns
        self.captions = captions

    def collect(self, trainer: Trainer, outputs: dict[str, Any], batch_idx: int) -> None:
        """Keeps some targets and their reconstructions."""
        if "reconstruction" in outputs:
            chosen = self.pick(trainer, batch_idx, len(outputs["target"]), self.count)
            parts = (outputs[key][chosen].cpu() for key in ("target", "reconstruction", "label"))
            self.kept.append(tuple(parts))

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> NDArray[np.uint8] | None:
        """Lays the images out: a row of originals, the row of their reconstructions, and so on."""
        if not self.kept:
            return None
        targets, reconstructions, labels = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        reconstructions = reconstructions.float()
        pairs = {"target": as_bytes(targets), "reconstruction": as_bytes(reconstructions)}
        save_below_images(trainer, f"{self.name}/pairs.npz", lambda path: np.savez_compressed(path, **pairs))  # type: ignore[arg-type]
        if not self.captions:
            return reconstruction_grid(targets, reconstructions, self.columns)
        known = class_names(trainer)
        names = ["" if label < 0 else known[label] if known else str(label) for label in labels.tolist()]
        rows = []
        for start in range(0, len(names), self.columns):
            part = slice(start, start + self.columns)
            grid = reconstruction_grid(targets[part], reconstructions[part], self.columns)
            rows += [caption_row(names[part], grid.shape[1], self.columns), grid]
        return np.concatenate(rows)


def as_bytes(images: Tensor) -> NDArray[np.uint8]:
    """Rounds images in [0, 1] of any shape to uint8."""
    array: NDArray[np.uint8] = images.clamp(0, 1).mul(255).round().byte().numpy()
    return array


def reconstruction_grid(targets: Tensor, reconstructions: Tensor, columns: int) -> NDArray[np.uint8]:
    """Lays images out in pairs of rows, originals over reconstructions.

    Args:
        targets: Images `(N, C, H, W)` in [0, 1].
        reconstructions: Images of the same shape.
        columns: Images in a row.

    Returns:
        The grid `(height, width, 3)` as uint8, as `image_grid` makes it.
    """
    rows = [
        row
        for pair in zip(targets.split(columns), reconstructions.split(columns), strict=True)
        for part in pair
        for row in (torch.cat([part, part.new_ones(columns - len(part), *part.shape[1:])]),)
    ]
    return image_grid(torch.cat(rows), columns)


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
    cell = width // columns
    for place, name in enumerate(names):
        tile = Image.new("RGB", (cell - 3, 26), "white")
        ImageDraw.Draw(tile).multiline_text((0, 0), name.replace(" (", "\n("), fill="black", spacing=1)
        row.paste(tile, (2 + place * (width - 2) // columns, 0))
    return np.asarray(row)


def image_grid(images: Tensor, columns: int) -> NDArray[np.uint8]:
    """Lays images out in rows.

    Args:
        images: Images `(N, C, H, W)` in [0, 1].
        columns: Images in a row.

    Returns:
        The grid `(height, width, 3)` as uint8; images below 64 pixels are enlarged by a whole factor.
    """
    images = F.interpolate(images.clamp(0, 1), scale_factor=max(1, 64 // images.shape[-1]), mode="nearest")
    grid = make_grid(images, nrow=columns, padding=2, pad_value=1.0)
    return as_bytes(grid.permute(1, 2, 0))
