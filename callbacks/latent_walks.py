"""Pictures of what lies between codes and along their dimensions."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from preimage.checks import check_range

from .pictures import Picture, decode
from .reconstruction_grid import image_grid


class Interpolation(Picture):
    """Decodes the straight lines between the codes of pairs of images, with the two images at the ends of each row."""

    name = "interpolation"

    def __init__(self, pairs: int = 8, steps: int = 10, every_n_epochs: int = 5) -> None:
        """Sets the size of the grid.

        Args:
            pairs: Number of pairs of images, one per row.
            steps: Decoded codes per row, from that of the first image to that of the second.
            every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
        """
        super().__init__(every_n_epochs)
        check_range("Interpolation", "[1, inf)", pairs=pairs)
        check_range("Interpolation", "[2, inf)", steps=steps)
        self.pairs = pairs
        self.steps = steps

    def collect(self, trainer: Trainer, outputs: dict[str, Any], batch_idx: int) -> None:
        """Keeps some codes and their images."""
        if "target" in outputs:
            chosen = self.pick(trainer, batch_idx, len(outputs["code"]), 2 * self.pairs)
            self.kept.append((outputs["code"][chosen], outputs["target"][chosen]))

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> NDArray[np.uint8] | None:
        """Lays the rows out."""
        if sum(len(codes) for codes, _ in self.kept) < 2:
            return None
        codes, targets = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        count = len(codes) // 2  # the first half is paired with the second: neighbours are often of one class
        weights = torch.linspace(0, 1, self.steps, device=codes.device)
        path = torch.stack([torch.lerp(codes[:count], codes[count : 2 * count], weight) for weight in weights], dim=1)
        decoded = decode(pl_module, path.flatten(0, 1)).unflatten(0, (count, self.steps))
        rows = torch.cat([targets[:count, None].cpu(), decoded, targets[count : 2 * count, None].cpu()], dim=1)
        return image_grid(rows.flatten(0, 1), self.steps + 2)


class Traversal(Picture):
    """Decodes the code of one image while one dimension after another is moved: a row each, most active first."""

    name = "traversal"

    def __init__(self, dimensions: int = 10, steps: int = 11, span: float = 3.0, every_n_epochs: int = 5) -> None:
        """Sets the size of the grid.

        Args:
            dimensions: Number of dimensions, those whose codes vary most over the split.
            steps: Values per dimension.
            span: How far a dimension is moved either way from its mean over the split, in standard deviations.
            every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
        """
        super().__init__(every_n_epochs)
        check_range("Traversal", "[1, inf)", dimensions=dimensions)
        check_range("Traversal", "[2, inf)", steps=steps)
        check_range("Traversal", "(0, inf)", span=span)
        self.dimensions = dimensions
        self.steps = steps
        self.span = span

    def collect(self, trainer: Trainer, outputs: dict[str, Any], batch_idx: int) -> None:
        """Keeps the codes."""
        if "reconstruction" in outputs and outputs["code"].ndim == 2:
            self.kept.append(outputs["code"])

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> NDArray[np.uint8] | None:
        """Lays the rows out."""
        if sum(map(len, self.kept)) < 2:
            return None
        return image_grid(decode(pl_module, self.walk(torch.cat(self.kept).float())), self.steps)

    def walk(self, codes: Tensor) -> Tensor:
        """The codes `(dimensions * steps, D)` to decode, given those of a split `(N, D)`."""
        deviation, mean = torch.std_mean(codes, dim=0)
        active = deviation.argsort(descending=True)[: self.dimensions]
        walk = codes[0].repeat(len(active), self.steps, 1)
        offsets = torch.linspace(-self.span, self.span, self.steps, device=codes.device)
        for row, dimension in enumerate(active):
            walk[row, :, dimension] = mean[dimension] + offsets * deviation[dimension]
        return walk.flatten(0, 1)
