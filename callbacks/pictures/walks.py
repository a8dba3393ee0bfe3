"""Pictures of what lies between codes and along their dimensions."""

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from preimage.checks import check_range

from . import Picture, decode
from .grids import image_grid


class Interpolation(Picture):
    """Decodes the straight lines between the codes of pairs of images, with the two images at the ends of each row.

    Args:
        pairs: Number of pairs of images, one per row.
        steps: Decoded codes per row, from that of the first image to that of the second.
        every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
    """

    name = "interpolation"
    needs = ("target",)
    keeps = ("code", "target")

    def __init__(self, pairs: int = 8, steps: int = 10, every_n_epochs: int = 5) -> None:
        super().__init__(every_n_epochs)
        check_range("Interpolation", "[1, inf)", pairs=pairs)
        check_range("Interpolation", "[2, inf)", steps=steps)
        self.count = 2 * pairs
        self.steps = steps

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> NDArray[np.uint8] | None:
        """Lays the rows out."""
        codes, targets = self.joined().values() if self.kept else (torch.empty(0), torch.empty(0))
        pairs = len(codes) // 2  # the first half is paired with the second: neighbours are often of one class
        if not pairs:
            return None
        weights = torch.linspace(0, 1, self.steps)
        path = torch.stack([torch.lerp(codes[:pairs], codes[pairs : 2 * pairs], weight) for weight in weights], dim=1)
        decoded = decode(pl_module, path.flatten(0, 1)).unflatten(0, (pairs, self.steps))
        rows = torch.cat([targets[:pairs, None], decoded, targets[pairs : 2 * pairs, None]], dim=1)
        return image_grid(rows.flatten(0, 1), self.steps + 2)


class Traversal(Picture):
    """Decodes the code of one image while one dimension after another is moved: a row each, most active first.

    Args:
        dimensions: Number of dimensions, those whose codes vary most over the split.
        steps: Values per dimension.
        span: How far a dimension is moved either way from its mean over the split, in standard deviations.
        every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
    """

    name = "traversal"
    needs = ("reconstruction",)
    keeps = ("code",)

    def __init__(self, dimensions: int = 10, steps: int = 11, span: float = 3.0, every_n_epochs: int = 5) -> None:
        super().__init__(every_n_epochs)
        check_range("Traversal", "[1, inf)", dimensions=dimensions)
        check_range("Traversal", "[2, inf)", steps=steps)
        check_range("Traversal", "(0, inf)", span=span)
        self.dimensions = dimensions
        self.steps = steps
        self.span = span

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> NDArray[np.uint8] | None:
        """Lays the rows out."""
        codes = self.joined().get("code", torch.empty(0))
        if len(codes) < 2 or codes.ndim != 2:
            return None
        return image_grid(decode(pl_module, self.walk(codes)), self.steps)

    def walk(self, codes: Tensor) -> Tensor:
        """The codes `(dimensions * steps, D)` to decode, given those of a split `(N, D)`."""
        deviation, mean = torch.std_mean(codes, dim=0)
        active = deviation.argsort(descending=True)[: self.dimensions]
        walk = codes[0].repeat(len(active), self.steps, 1)
        offsets = torch.linspace(-self.span, self.span, self.steps)
        for row, dimension in enumerate(active):
            walk[row, :, dimension] = mean[dimension] + offsets * deviation[dimension]
        return walk.flatten(0, 1)
