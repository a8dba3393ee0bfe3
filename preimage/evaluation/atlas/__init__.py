"""The atlas: what layers of networks keep, and what can be read out of them."""

from .atlas import draw_atlas

__all__ = ["draw_atlas"]
