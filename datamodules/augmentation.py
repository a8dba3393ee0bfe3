"""Augmentations that draw new parameters for every image of a batch; torchvision's draw one set per call."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from preimage.checks import check_range


class PerImageAffine(nn.Module):
    """Rotates, shifts, scales and shears every image of a batch by its own random amount.

    Same parametrisation as `torchvision.transforms.v2.RandomAffine`, sampled bilinearly with zeros outside.

    Args:
        degrees: Largest rotation either way, in degrees.
        translate: Largest shift either way, as a fraction of the height and width.
        scale: Images are scaled by a factor between `1 - scale` and `1 + scale`.
        shear: Largest horizontal shear either way, in degrees.
        p: Share of the images that is transformed, in [0, 1].
    """

    def __init__(
        self, degrees: float = 12.0, translate: float = 0.1, scale: float = 0.1, shear: float = 8.0, p: float = 1.0
    ) -> None:
        super().__init__()
        check_range("PerImageAffine", "[0, inf)", degrees=degrees, translate=translate)
        check_range("PerImageAffine", "[0, 1)", scale=scale)
        check_range("PerImageAffine", "[0, 90)", shear=shear)
        check_range("PerImageAffine", "[0, 1]", p=p)
        self.degrees = degrees
        self.translate = translate
        self.scale = scale
        self.shear = shear
        self.p = p

    def forward(self, images: Tensor) -> Tensor:
        """Transforms a batch of float images `(B, C, H, W)`; shape, range and device stay."""
        limits = [math.radians(self.degrees), math.radians(self.shear), self.scale, self.translate, self.translate]
        draws = torch.empty(5, len(images), device=images.device).uniform_(-1, 1)
        draws = draws * torch.tensor(limits, device=images.device)[:, None]
        draws = draws * (torch.rand(len(images), device=images.device) < self.p)
        angle, shear, scale, dx, dy = draws
        return affine(images, angle, shear, 1 + scale, torch.stack([dx, dy], dim=1))


def affine(images: Tensor, angle: Tensor, shear: Tensor, scale: Tensor, translate: Tensor) -> Tensor:
    """Applies one affine map per image, about the image's centre.

    Args:
        images: Float images `(B, C, H, W)`.
        angle: Rotations `(B,)` in radians, as torchvision's `affine` counts them.
        shear: Horizontal shears `(B,)` in radians.
        scale: Scale factors `(B,)`.
        translate: Shifts `(B, 2)` right and down, as fractions of width and height.
    """
    height, width = images.shape[-2:]
    cos, sin, tan = torch.cos(angle), torch.sin(angle), torch.tan(shear)
    # The inverse of Rotation @ Scale @ Shear, since grid_sample asks where each output pixel comes from.
    inverse = torch.stack([cos - tan * sin, sin + tan * cos, -sin, cos], dim=1).view(-1, 2, 2)
    inverse = inverse / scale[:, None, None]
    # grid_sample's coordinates run from -1 to 1 along both axes, whatever the aspect ratio.
    aspect = torch.tensor([[1.0, height / width], [width / height, 1.0]], device=images.device)
    inverse = inverse * aspect
    offset = inverse @ (-2 * translate)[:, :, None]
    grid = F.affine_grid(torch.cat([inverse, offset], dim=2), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", align_corners=False)
