"""Sizes of layers: channels by the width of a network, feature maps by its halvings of the image."""

import math


def scaled(count: int, width: float) -> int:
    """A number of channels or features, scaled by a width and rounded; a `ValueError` where nothing is left."""
    if not math.isfinite(width) or round(count * width) < 1:
        raise ValueError(f"width={width} leaves none of {count} channels: set it above {0.5 / count:.3f}")
    return round(count * width)


def halved(image_size: int, times: int) -> int:
    """Height and width of an image after some halvings; a `ValueError` where it cannot be halved so often."""
    if image_size < 2**times or image_size % 2**times:
        raise ValueError(f"image_size must be a multiple of {2**times}, not {image_size}")
    return image_size // 2**times
