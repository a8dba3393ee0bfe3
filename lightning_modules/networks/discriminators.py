"""Networks that tell reconstructions from images."""

from torch import Tensor, nn

from preimage.checks import check_range

from .inverters import SLOPE, initialise
from .sizes import scaled


class PatchDiscriminator(nn.Sequential):
    """Convolutions that halve the size, and one that gives logits of patches (Isola et al. 2017, arXiv 1611.07004).

    Maps images `(B, in_channels, H, W)` in [0, 1] to logits `(B, 1, h, w)`. It has no normalisation, so that each image
    is judged alone. The convolutions have 64, 128, 256, ... channels.

    Args:
        in_channels: Channels of the images.
        depth: How often the size is halved, at least once.
        width: Factor of every channel count.
    """

    def __init__(self, in_channels: int = 3, depth: int = 3, width: float = 1.0) -> None:
        check_range("PatchDiscriminator", "[1, inf)", in_channels=in_channels, depth=depth)
        layers: list[nn.Module] = []
        channels = in_channels
        for step in range(depth):
            wide = scaled(64 * 2**step, width)
            layers += [nn.Conv2d(channels, wide, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
            channels = wide
        super().__init__(*layers, nn.Conv2d(channels, 1, 3, padding=1))
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images `(B, in_channels, H, W)` in [0, 1] to logits `(B, 1, h, w)`."""
        logits: Tensor = super().forward(2 * images - 1)
        return logits
