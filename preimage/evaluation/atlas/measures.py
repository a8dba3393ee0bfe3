"""What is measured of the code of a layer, without a decoder."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import InMemoryDataModule
from datamodules.cache import Rows
from lightning_modules import FrozenFeatures, Inversion
from lightning_modules.inversion import at_common_size
from lightning_modules.perceptual import Perceptual

from ..geometry import centred_gram, measure_geometry
from ..invariance import measure_invariance
from ..measures import Images, encode_splits, labelled, measure_speed, reconstruction_errors, spread
from ..probes import probe_codes
from .points import PIXELS, Point

OF_CODES = ("reads", "shape", "invariance", "cost")  # what is measured without a decoder
GRAM = "gram.npy"
_COMPARED = 1000  # images, of whose codes the similarity is measured
_MOVED = 256  # images that are transformed


class Pixels(nn.Module):
    """The image itself as a code: `(B, C, side, side)`, scaled down with antialiasing."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """Scales images `(B, C, H, W)` in [0, 1] down."""
        if images.shape[-1] <= self.side:
            return images
        return F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)

    def extra_repr(self) -> str:
        """What its codes depend on; a cache of them is found by it."""
        return f"side={self.side}"


def pixels_again(side: int) -> Images:
    """What scales images `(B, C, H, W)` in [0, 1] down to a side and up again."""
    down = Pixels(side)
    return lambda images: F.interpolate(down(images), images.shape[-2:], mode="bicubic").clamp(0, 1)


def errors(
    rebuild: Images, images: Tensor | Rows, device: torch.device, lpips: Perceptual | None = None
) -> dict[str, float]:
    """Errors at the common size of the reconstructions of uint8 images `(N, C, H, W)`, as `psnr_64` and others."""
    values = reconstruction_errors(rebuild, images, device, at_common_size, lpips)
    return {f"{name}_64": value for name, value in values.items() if np.isfinite(value)}


@lru_cache(maxsize=1)
def model_of(point: Point, device: torch.device, grid: bool = False) -> Inversion:
    """The network up to a point's layer, as a model without a decoder.

    Args:
        point: The point.
        device: Where it computes.
        grid: With the code that a decoder gets, in place of the network's own.
    """
    arguments = point.encoder()["init_args"] if grid else point.arguments
    encoder = Pixels(**arguments) if point.network == PIXELS else FrozenFeatures(**arguments)
    return Inversion(encoder, nn.Identity(), None).to(device).eval()


def measure(
    kind: str, point: Point, data: InMemoryDataModule, device: torch.device, labels_per_class: list[int]
) -> dict[str, Any]:
    """Measures one kind of thing of the code of a point.

    Args:
        kind: `reads`, `shape`, `invariance` or `cost`.
        point: The layer.
        data: The images.
        device: Where the network computes.
        labels_per_class: Of the probe on few labels.
    """
    test = data.test_set.images
    if kind == "reads":
        return _reads(
            encode_splits(model_of(point, device), data, ["train", "val", "test"], device), data, labels_per_class
        )
    if kind == "shape":
        codes, _ = encode_splits(model_of(point, device), data, ["test"], device)["test"]
        np.save(point.folder / GRAM, centred_gram(codes[spread(codes, _COMPARED)]).float().numpy())
        geometry = measure_geometry(codes)
        return {key: geometry[key] for key in ("effective_rank", "intrinsic_dimension") if key in geometry}
    encoder = model_of(point, device, grid=True).encoder
    if kind == "invariance":
        moved = measure_invariance(encoder, test[spread(test, _MOVED)], device)
        return {f"invariance_{name}": value for name, value in moved.items()}
    speed, memory = measure_speed(encoder, test, device)
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    return {"encoder_parameters": parameters, "images_per_second": speed, "memory_gb": memory}


def is_labelled(data: InMemoryDataModule) -> bool:
    """Whether there are labels of two classes to learn from, and some to test."""
    train, test = data.train_set.labels, data.test_set.labels
    return len(train[train >= 0].unique()) > 1 and bool((test >= 0).any())


def _reads(splits: Any, data: InMemoryDataModule, labels_per_class: list[int]) -> dict[str, float]:
    figures = probe_codes(labelled(splits), len(data.class_names), labels_per_class)
    few = {f"few_{count}": accuracy["accuracy"] for count, accuracy in figures.pop("few_labels").items()}
    return {name: accuracy["accuracy"] for name, accuracy in figures.items()} | few


def gram_of(folder: Path) -> Tensor:
    """The Gram matrix `(N, N)` that was kept of a layer.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        return torch.from_numpy(np.load(folder / GRAM))
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{folder / GRAM} is damaged: remove {folder / 'shape.json'} to have it made anew") from error
