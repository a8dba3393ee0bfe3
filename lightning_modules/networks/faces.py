"""The strided encoder and decoder of the real/fake classifier that also reconstructs."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import rgb_to_grayscale

from preimage.checks import check_range

from .inverters import up_convolution
from .sizes import scaled

_OutputActivation = Literal["sigmoid", "softmax", "tanh"]


class FaceEncoder(nn.Sequential):
    """Four strided convolutions and two linear layers on a small grayscale image; 84,320,258 parameters at width 1.

    Maps images `(B, 3, H, W)` or `(B, 1, H, W)` in [0, 1] to codes `(B, latent_dim)`, unbounded.

    Args:
        latent_dim: Length of the code.
        width: Factor on all channels and hidden features; 1 for the size of the system.
    """

    size = 128

    def __init__(self, latent_dim: int = 2, width: float = 1.0) -> None:
        check_range("FaceEncoder", "[1, inf)", latent_dim=latent_dim)
        layers: list[nn.Module] = []
        channels = 1
        for wider in (scaled(count, width) for count in (128, 256, 512, 1024)):
            layers += [nn.Conv2d(channels, wider, 5, stride=2, padding=2), nn.LeakyReLU(0.1)]
            channels = wider
        features = channels * (self.size // 16) ** 2
        layers += [nn.Flatten(), nn.Linear(features, channels), nn.LeakyReLU(0.1), nn.Linear(channels, latent_dim)]
        super().__init__(*layers)

    def prepare(self, images: Tensor) -> Tensor:
        """Turns images `(B, 3, H, W)` or `(B, 1, H, W)` in [0, 1] into what the layers see: luma `(B, 1, 128, 128)`."""
        size = (self.size, self.size)
        return F.interpolate(rgb_to_grayscale(images), size, mode="bilinear", antialias=True)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images `(B, 3, H, W)` or `(B, 1, H, W)` in [0, 1] to codes `(B, latent_dim)`."""
        code: Tensor = super().forward(self.prepare(images))
        return code


class FaceDecoder(nn.Sequential):
    """Two linear layers and four transposed convolutions; 285,914,371 parameters at width 1 and 256 px.

    Maps codes `(B, latent_dim)` to images `(B, out_channels, S, S)` in [0, 1]; `S` is `image_size`, rounded up to a
    multiple of 16.

    Args:
        latent_dim: Length of the code.
        width: Factor on all channels and hidden features; 1 for the size of the system.
        output_activation: What brings the output to [0, 1]: `sigmoid`, `tanh` (rescaled), or the original's
            `softmax` over the channels, under which R + G + B = 1 at every pixel, so that no brightness can be
            drawn.
        out_channels: Channels of the images.
        image_size: Height and width of the images; 256 for the size of the system.
    """

    def __init__(
        self,
        latent_dim: int = 2,
        width: float = 1.0,
        output_activation: _OutputActivation = "sigmoid",
        out_channels: int = 3,
        image_size: int = 256,
    ) -> None:
        sizes = {"latent_dim": latent_dim, "out_channels": out_channels, "image_size": image_size}
        check_range("FaceDecoder", "[1, inf)", **sizes)
        activations = {"sigmoid": nn.Sigmoid(), "softmax": nn.Softmax(dim=1), "tanh": UnitTanh()}
        if output_activation not in activations:
            raise ValueError(f"output_activation must be one of {', '.join(activations)}, not {output_activation}")
        channels, side = scaled(1024, width), math.ceil(image_size / 16)
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, channels),
            nn.LeakyReLU(0.1),
            nn.Linear(channels, channels * side**2),
            nn.LeakyReLU(0.1),
            nn.Unflatten(1, (channels, side, side)),
        ]
        for narrower in (scaled(count, width) for count in (512, 256, 128)):
            layers += [up_convolution(channels, narrower), nn.LeakyReLU(0.1)]
            channels = narrower
        super().__init__(*layers, up_convolution(channels, out_channels), activations[output_activation])


class UnitTanh(nn.Module):
    """The hyperbolic tangent, rescaled from [-1, 1] to [0, 1]."""

    def forward(self, values: Tensor) -> Tensor:
        """Maps values of any shape to [0, 1]."""
        return (torch.tanh(values) + 1) / 2
