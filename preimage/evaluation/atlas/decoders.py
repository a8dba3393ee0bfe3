"""Decoders of one budget for all layers: as many parameters, within a tenth, and as many epochs of the same images."""

import math
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_modules.networks import inverters

_TOLERANCE = 0.1
_CHANNELS = 256  # of a decoder of width 1


def decoder_for(shape: tuple[int, ...], image_size: int, width: float, channels: int = 3) -> dict[str, Any]:
    """The decoder of a layer, as a class path with arguments.

    Args:
        shape: Shape of the features of one image: a square map `(C, s, s)`, or any other, as `(D,)` or tokens `(T, D)`.
        image_size: Wanted size of the reconstruction; a decoder doubles, and gets as close as it can.
        width: Width of the decoder.
        channels: Channels of the reconstruction.
    """
    square = len(shape) == 3 and shape[1] == shape[2]
    start = shape[1] if square else 8
    size = min((start * 2**doublings for doublings in range(9)), key=lambda size: abs(size - image_size))
    features = {"in_channels": shape[0], "in_size": start} if square else {"in_features": math.prod(shape)}
    features |= {} if channels == 3 else {"out_channels": channels}
    name = "ConvInverter" if square else "FullyConnectedInverter"
    return {"class_path": name, "init_args": features | {"image_size": size, "width": width}}


def parameters_of(decoder: dict[str, Any]) -> int:
    """Number of parameters of a decoder, which is not built."""
    with torch.device("meta"):
        network = getattr(inverters, decoder["class_path"])(**decoder["init_args"])
    return sum(parameter.numel() for parameter in network.parameters())


def fair_decoder(
    name: str, shape: tuple[int, ...], image_size: int, parameters: int, channels: int = 3
) -> dict[str, Any]:
    """The decoder of a layer whose number of parameters is nearest to the budget; one that is far off is told.

    Args:
        name: Name of the layer.
        shape: Shape of its features, as for `decoder_for`.
        image_size: Wanted size of the reconstruction.
        parameters: The budget.
        channels: Channels of the reconstruction.
    """

    def sized(first: int) -> tuple[int, dict[str, Any]]:
        decoder = decoder_for(shape, image_size, first / _CHANNELS, channels)
        return parameters_of(decoder), decoder

    low, high = 1, 2
    while sized(high)[0] < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sized(middle)[0] < parameters else (low, middle)
    nearest = (sized(first) for first in (low, high))
    count, decoder = min(nearest, key=lambda one: abs(one[0] - parameters))
    if abs(count - parameters) > _TOLERANCE * parameters:
        rank_zero_info(
            f"{name}: no decoder of {' x '.join(map(str, shape))} has about {parameters:,} parameters; it gets"
            f" {count:,}: with a larger --parameters all layers can have the same"
        )
    return decoder
