"""The width of a network, as a factor on its channels."""

import math


def scaled(count: int, width: float) -> int:
    """A number of channels or features, scaled by a width and rounded.

    Raises:
        ValueError: Nothing is left, or the width is no number.
    """
    if not math.isfinite(width) or round(count * width) < 1:
        raise ValueError(f"width={width} leaves none of {count} channels: set it above {0.5 / count:.3f}")
    return round(count * width)
