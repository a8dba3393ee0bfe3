"""What does an image representation keep, and what can be read out of it? `load` asks a trained one.

Which module may import which is held by `tests/test_layers.py`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import Model, load

__all__ = ["Model", "load"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for, since torch takes seconds that a `--help` can do without."""
    if name in __all__:
        from . import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
