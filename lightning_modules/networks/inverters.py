"""Decoders that rebuild images from the features of a network (Dosovitskiy and Brox 2016, arXiv 1506.02753)."""

import math

from torch import nn

from preimage.checks import check_range

from .sizes import scaled

SLOPE = 0.2


class ConvInverter(nn.Sequential):
    """Three 3x3 convolutions and up-convolutions that double the size until it is the image's.

    Maps feature maps `(B, in_channels, in_size, in_size)` to images `(B, out_channels, S, S)` in [0, 1]. `S` is
    `in_size` times a power of two: 6, 12, ..., 192 from AlexNet's conv5, and 13, 26, 52, 104, 208, 416 from its conv2.
    The up-convolutions have 256, 128, 64, 32, ... channels, and the last of them, or for the size of the features
    itself one more 3x3 convolution, gives the image.

    Args:
        in_channels: Channels of the feature map.
        in_size: Height and width of the feature map.
        image_size: Height and width of the images, `in_size` times a power of two.
        width: Factor of every channel count but the image's: 1 for the paper's network, 0.5 in our configs.
        out_channels: Channels of the images.
    """

    resizes = True  # targets are resized to its image_size, which need not be that of the data

    def __init__(
        self, in_channels: int, in_size: int, image_size: int, width: float = 1.0, out_channels: int = 3
    ) -> None:
        check_range("ConvInverter", "[1, inf)", in_channels=in_channels, in_size=in_size, out_channels=out_channels)
        channels, doublings = scaled(256, width), _doublings(in_size, image_size)
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(in_channels, channels, 3, padding=1), nn.LeakyReLU(SLOPE)]
            in_channels = channels
        if doublings:
            layers += _up_convolutions(channels, doublings, out_channels)
        else:
            layers.append(nn.Conv2d(channels, out_channels, 3, padding=1))
        super().__init__(*layers, nn.Sigmoid())
        initialise(self)


class FullyConnectedInverter(nn.Sequential):
    """Three linear layers, reshaped to 4 x 4, and up-convolutions that double the size.

    Maps features `(B, in_features)`, or any that flatten to it, to images `(B, out_channels, S, S)` in [0, 1]. `S` is
    8, 16, 32 or any other such power of two; the up-convolutions have 256, 128, 64, 32, ... channels, and the last of
    them gives the image.

    Args:
        in_features: Number of features; of a feature map, channels times height times width.
        image_size: Height and width of the images, a power of two from 8 on.
        width: Factor of every channel count but the image's: 1 for the paper's network, 0.5 in our configs.
        out_channels: Channels of the images.
    """

    resizes = True

    def __init__(self, in_features: int, image_size: int = 128, width: float = 1.0, out_channels: int = 3) -> None:
        check_range("FullyConnectedInverter", "[1, inf)", in_features=in_features, out_channels=out_channels)
        channels, doublings = scaled(256, width), _doublings(4, image_size)
        if doublings < 1:
            raise ValueError(
                f"image_size={image_size} is too small for a FullyConnectedInverter: give it 8, 16, 32 ..."
            )
        layers: list[nn.Module] = [nn.Flatten()]
        for _ in range(3):
            layers += [nn.Linear(in_features, 16 * channels), nn.LeakyReLU(SLOPE)]
            in_features = 16 * channels
        layers.append(nn.Unflatten(1, (channels, 4, 4)))
        super().__init__(*layers, *_up_convolutions(channels, doublings, out_channels), nn.Sigmoid())
        initialise(self)


def _doublings(size: int, image_size: int) -> int:
    """How many times a size has to be doubled to become that of the images.

    Raises:
        ValueError: No number of doublings does.
    """
    doublings = max(0, round(math.log2(image_size / size))) if min(size, image_size) > 0 else 0
    if size << doublings != image_size:
        reachable = ", ".join(str(size << i) for i in range(6))
        raise ValueError(
            f"decoder.image_size={image_size} cannot be reached from features of size {size} by doubling: choose one of"
            f" {reachable} ..."
        )
    return doublings


def _up_convolutions(channels: int, count: int, out_channels: int) -> list[nn.Module]:
    """Transposed convolutions that each double the size and, from the second on, halve the channels.

    Args:
        channels: Channels of the feature map, and of the first up-convolution's.
        count: Number of up-convolutions, at least 1; the last one gives the image, without an activation.
        out_channels: Channels of the image.

    Returns:
        The layers: `channels, channels / 2, ..., out_channels`, with leaky ReLUs between.
    """
    widths = [max(1, channels >> i) for i in range(count - 1)]
    layers: list[nn.Module] = []
    for width in widths:
        layers += [up_convolution(channels, width), nn.LeakyReLU(SLOPE)]
        channels = width
    return [*layers, up_convolution(channels, out_channels)]


def up_convolution(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """The transposed convolution that doubles height and width."""
    return nn.ConvTranspose2d(in_channels, out_channels, 5, stride=2, padding=2, output_padding=1)


def initialise(network: nn.Module) -> None:
    """Draws the weights as He et al. 2015 (arXiv 1502.01852) do, which keeps the scale of the features; no biases.

    The fan-in of an up-convolution is what reaches a pixel of its output: a quarter of the kernel, at stride 2.
    """
    gain = nn.init.calculate_gain("leaky_relu", SLOPE)
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            transposed = isinstance(layer, nn.ConvTranspose2d)
            fan_in = layer.weight[:, 0].numel() / 4 if transposed else layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=gain / math.sqrt(fan_in))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
