"""Invariance: how far a code moves when its image is transformed, relative to the distance between two images."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from lightning_modules.networks.precision import full

from .measures import BATCH, Images, to_float


def measure_invariance(encode: Images, images: Tensor, device: torch.device) -> dict[str, float]:
    """How far the code moves under each transformation: 0 not at all, 1 as far as to the code of another image.

    It is the mean distance of a code from that of the transformed image over the mean distance of the codes of two
    different images; 0 where the code is the same for all. The transformations are the same in every call.

    Args:
        encode: Maps images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`.
        images: uint8 images `(N, C, H, W)`, gray or in colour; some hundred are enough.
        device: Where it does so.

    Returns:
        One number for each of `shift`, `flip`, `rotation`, `scale`, `colour`, `blur` and `noise`.

    Raises:
        ValueError: There are fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(f"invariance is relative to the distance between images: give two or more, not {len(images)}")
    moved = dict.fromkeys(_TRANSFORMATIONS, 0.0)
    between, pairs = 0.0, 0
    # Pairs are those within a batch, which mixes the classes, so that no more than two batches of codes are held.
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for index in order.split(BATCH):
            batch = to_float(images[index], device)
            codes = full(encode(batch).flatten(1))
            distances = torch.pdist(codes)
            between, pairs = between + float(distances.sum()), pairs + len(distances)
            for name, transform in _TRANSFORMATIONS.items():
                moved[name] += float((full(encode(transform(batch)).flatten(1)) - codes).norm(dim=1).sum())
    return {name: total / len(images) / (between / pairs) if between else 0.0 for name, total in moved.items()}


def _affine(images: Tensor, angle: float = 0.0, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    """Rotates by degrees, shifts right and down by a fraction of the sides, enlarges; the outside is the reflection."""
    height, width = images.shape[-2:]
    wide = F.pad(images, [width // 2, height // 2], padding_mode="reflect")
    translate = [round(shift * width), round(shift * height)]
    bilinear = F.InterpolationMode.BILINEAR
    return F.center_crop(F.affine(wide, angle, translate, scale, [0.0, 0.0], bilinear), [height, width])


def _colour(images: Tensor) -> Tensor:
    """Brighter, and where there are colours, more of them, and a tenth of the circle away."""
    return F.adjust_hue(F.adjust_saturation(F.adjust_brightness(images, 1.25), 1.5), 0.1)


def _blur(images: Tensor) -> Tensor:
    """Gaussian, with a standard deviation of 1/32 of the side."""
    sigma = images.shape[-1] / 32
    return F.gaussian_blur(images, 2 * [2 * math.ceil(3 * sigma) + 1], [sigma, sigma])


def _noise(images: Tensor) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + 0.1 * noise.to(images.device)).clamp(0, 1)


_TRANSFORMATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "shift": lambda images: _affine(images, shift=1 / 8),
    "flip": F.horizontal_flip,
    "rotation": lambda images: _affine(images, angle=15.0),
    "scale": lambda images: _affine(images, scale=1.25),
    "colour": _colour,
    "blur": _blur,
    "noise": _noise,
}
