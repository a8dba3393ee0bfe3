"""Residual encoder and decoder for small images, where a tight bound on the likelihood is wanted."""

from typing import cast

from torch import Tensor, nn

from preimage.checks import check_range

from .decoder import SigmoidDecoder
from .gaussian import GaussianEncoder
from .sizes import halved


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and SiLU, around which the input is carried (arXiv 1603.05027)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + cast(Tensor, self.layers(features))


class ResidualGaussianEncoder(GaussianEncoder):
    """Two halvings of the image with residual blocks after each, and two heads.

    Maps images `(B, in_channels, S, S)` in [0, 1], S a multiple of 4, to codes.

    Args:
        image_size: Height and width of the images, a multiple of 4.
        latent_dim: Length of the code.
        in_channels: Channels of the images.
        width: Channels at half the image size; at a quarter there are twice as many.
        blocks: Residual blocks at each size.
    """

    def __init__(
        self, image_size: int = 28, latent_dim: int = 32, in_channels: int = 1, width: int = 32, blocks: int = 1
    ) -> None:
        check_range("ResidualGaussianEncoder", "[1, inf)", in_channels=in_channels, width=width)
        check_range("ResidualGaussianEncoder", "[0, inf)", blocks=blocks)
        size = halved(image_size, 2)
        trunk = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride=2, padding=1),
            *(_ResidualBlock(width) for _ in range(blocks)),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            *(_ResidualBlock(2 * width) for _ in range(blocks)),
            nn.BatchNorm2d(2 * width),
            nn.SiLU(),
            nn.Flatten(),
        )
        super().__init__(trunk, 2 * width * size * size, latent_dim)


class ResidualDecoder(SigmoidDecoder):
    """A linear layer and two doublings with residual blocks before each, to images in [0, 1].

    Maps codes `(B, latent_dim)` to `(B, out_channels, S, S)`; the last layer is a sigmoid of logits.

    Args:
        image_size: Height and width of the images, a multiple of 4.
        latent_dim: Length of the code.
        out_channels: Channels of the images.
        width: Channels at half the image size; at a quarter there are twice as many.
        blocks: Residual blocks at each size.
    """

    def __init__(
        self, image_size: int = 28, latent_dim: int = 32, out_channels: int = 1, width: int = 32, blocks: int = 1
    ) -> None:
        check_range("ResidualDecoder", "[1, inf)", latent_dim=latent_dim, out_channels=out_channels, width=width)
        check_range("ResidualDecoder", "[0, inf)", blocks=blocks)
        size = halved(image_size, 2)
        super().__init__(
            nn.Linear(latent_dim, 2 * width * size * size),
            nn.Unflatten(1, (2 * width, size, size)),
            *(_ResidualBlock(2 * width) for _ in range(blocks)),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            *(_ResidualBlock(width) for _ in range(blocks)),
            nn.BatchNorm2d(width),
            nn.SiLU(),
            nn.ConvTranspose2d(width, out_channels, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )
