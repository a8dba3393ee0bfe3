"""Encoders that give a Gaussian over codes, for variational autoencoders."""

from typing import Literal

from torch import Tensor, nn

from preimage.checks import check_range

from .decoder import SigmoidDecoder
from .mnist import MNISTEncoder
from .precision import full
from .sizes import halved


class GaussianEncoder(nn.Module):
    """A trunk with two heads, for the mean and the log-variance of the code.

    Called like any encoder it gives the mean, so that whatever reads codes can read those of a VAE. Both are float32
    under mixed precision too, since a bound in nats needs more digits than bfloat16 has.

    Args:
        trunk: Network from images `(B, C, H, W)` in [0, 1] to features `(B, features)`.
        features: Number of features.
        latent_dim: Length of the code.
    """

    def __init__(self, trunk: nn.Module, features: int, latent_dim: int) -> None:
        super().__init__()
        check_range(type(self).__name__, "[1, inf)", latent_dim=latent_dim)
        self.trunk = trunk
        self.mean = nn.Linear(features, latent_dim)
        self.log_variance = nn.Linear(features, latent_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images `(B, C, H, W)` to the means of their codes `(B, latent_dim)`."""
        return self.posterior(images)[0]

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps images `(B, C, H, W)` to mean and log-variance of their codes, each `(B, latent_dim)`."""
        features = self.trunk(images)
        return full(self.mean(features)), full(self.log_variance(features))


class MNISTGaussianEncoder(GaussianEncoder):
    """The trunk of `MNISTEncoder` with heads for mean and log-variance.

    Args:
        latent_dim: Length of the code.
    """

    def __init__(self, latent_dim: int = 12) -> None:
        super().__init__(nn.Sequential(*list(MNISTEncoder())[:-1]), 576, latent_dim)


class ConvGaussianEncoder(GaussianEncoder):
    """Five strided convolutions with batch norm, and the two heads.

    Maps images `(B, in_channels, S, S)` in [0, 1], S a multiple of 32, to codes.

    Args:
        image_size: Height and width of the images, a multiple of 32.
        latent_dim: Length of the code.
        in_channels: Channels of the images.
        width: Channels after the first convolution; each later one doubles them.
    """

    def __init__(self, image_size: int = 128, latent_dim: int = 128, in_channels: int = 3, width: int = 32) -> None:
        check_range("ConvGaussianEncoder", "[1, inf)", in_channels=in_channels, width=width)
        layers: list[nn.Module] = []
        for channels in (width * 2**i for i in range(5)):
            layers += [
                nn.Conv2d(in_channels, channels, 4, stride=2, padding=1),
                nn.BatchNorm2d(channels),
                nn.LeakyReLU(),
            ]
            in_channels = channels
        super().__init__(nn.Sequential(*layers, nn.Flatten()), in_channels * halved(image_size, 5) ** 2, latent_dim)


class ConvDecoder(SigmoidDecoder):
    """A linear layer and five stages of upsampling and convolution, to images in [0, 1].

    Maps codes `(B, latent_dim)` to `(B, out_channels, S, S)`. The last layer is a sigmoid of logits: the original's
    Tanh, rescaled from [-1, 1] to [0, 1], is the sigmoid of twice its argument.

    Args:
        image_size: Height and width of the images, a multiple of 32.
        latent_dim: Length of the code.
        out_channels: Channels of the images.
        width: Channels before the last convolution; each earlier stage has twice those of the next.
        norm: Normalisation of each stage but the last: `batch`, or the original's `instance`, which loses global
            contrast.
    """

    def __init__(
        self,
        image_size: int = 128,
        latent_dim: int = 128,
        out_channels: int = 3,
        width: int = 32,
        norm: Literal["instance", "batch"] = "batch",
    ) -> None:
        check_range("ConvDecoder", "[1, inf)", latent_dim=latent_dim, out_channels=out_channels, width=width)
        norms: dict[str, type[nn.Module]] = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d}
        size, channels = halved(image_size, 5), width * 16
        layers = [nn.Linear(latent_dim, channels * size * size), nn.Unflatten(1, (channels, size, size))]
        for _ in range(4):
            conv = nn.Conv2d(channels, channels // 2, 3, padding=1)
            channels //= 2
            layers += [nn.Upsample(scale_factor=2), conv, norms[norm](channels), nn.LeakyReLU()]
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(channels, out_channels, 3, padding=1), nn.Sigmoid()]
        super().__init__(*layers)
