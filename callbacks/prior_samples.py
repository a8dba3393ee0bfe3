"""Images that a generative model draws from its prior."""

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray

from preimage.checks import check_range

from .pictures import Picture
from .reconstruction_grid import image_grid


class PriorSamples(Picture):
    """Draws images from the prior of a model with a method `sample(count)`: from the same codes at every epoch."""

    name = "samples"

    def __init__(self, count: int = 64, columns: int = 16, every_n_epochs: int = 5) -> None:
        """Sets the size of the grid.

        Args:
            count: Number of images.
            columns: Images in a row.
            every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
        """
        super().__init__(every_n_epochs)
        check_range("PriorSamples", "[1, inf)", count=count, columns=columns)
        self.count = count
        self.columns = columns

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> NDArray[np.uint8] | None:
        """Lays the samples out in rows."""
        sample = getattr(pl_module, "sample", None)
        if sample is None or not trainer.is_global_zero:
            return None
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.no_grad():  # a picture must not change the training after it
            torch.manual_seed(0)
            return image_grid(sample(self.count).float().cpu(), self.columns)
