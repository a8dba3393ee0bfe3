"""How a network wants its images: their size, their channels' statistics, and how they are brought there."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Statistics:
    """What a network's images were like when it was trained.

    Attributes:
        mean: Mean of each channel of images in [0, 1].
        std: Standard deviation of each channel.
        size: Height and width in pixels; None for a network that takes images as they are.
        interpolation: How images are resized, as Pillow calls it: `bilinear`, `bicubic`, ...
        crop: Share of the resized image's side that its own evaluation keeps of the middle, in (0, 1].
        squash: Its own evaluation resizes pictures to squares, and not their shorter sides.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: int | None = 224
    interpolation: str = "bilinear"
    crop: float = 1.0
    squash: bool = False

    def resize(self, images: Tensor, size: int, crop: bool = False) -> Tensor:
        """Maps images `(B, C, H, W)` in [0, 1] to `(B, C, size, size)`: whole, or cropped as in its own evaluation."""
        side = self._side(size) if crop else size
        mode = self.interpolation if self.interpolation in ("bilinear", "bicubic") else "bicubic"
        images = F.interpolate(images, (side, side), mode=mode, antialias=True)
        if mode == "bicubic":
            images = images.clamp(0, 1)  # it overshoots at edges; Pillow clips as well
        return TF.center_crop(images, [size, size]) if crop else images

    def picture(self, image: Image.Image, size: int) -> Tensor:
        """Resizes and crops a picture as the network's own evaluation does, to uint8 `(C, size, size)`."""
        side, mode = self._side(size), InterpolationMode(self.interpolation)
        image = ImageOps.exif_transpose(image).convert("L" if len(self.mean) == 1 else "RGB")
        image = TF.resize(image, [side, side] if self.squash else [side], mode)
        return TF.pil_to_tensor(TF.center_crop(image, [size, size]))

    def _side(self, size: int) -> int:
        return math.floor(size / self.crop + 1e-6)


def statistics_of(config: Mapping[str, Any]) -> Statistics:
    """The statistics in a `pretrained_cfg`, or any other mapping that says them in timm's words."""
    usual = Statistics()
    return Statistics(
        mean=tuple(config.get("mean", usual.mean)),
        std=tuple(config.get("std", usual.std)),
        size=config["input_size"][-1] if "input_size" in config else usual.size,
        interpolation=config.get("interpolation", usual.interpolation),
        crop=config.get("crop_pct") or usual.crop,
        squash=config.get("crop_mode") == "squash",
    )
