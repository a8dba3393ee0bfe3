"""Loading of Lightning checkpoints, and of one part of the model in them."""

from pathlib import Path
from typing import Any

from torch import nn

from .networks.weights import check_fit, load_plain


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a Lightning checkpoint on the CPU, memory-mapped and under `weights_only`.

    Args:
        path: The `.ckpt` file.

    Returns:
        The checkpoint, with at least the key `state_dict`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, no checkpoint, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: train it first, or name the file of another run")
    checkpoint = load_plain(path, mmap=True)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is no Lightning checkpoint: it has no state_dict")
    return checkpoint


def load_part(module: nn.Module, path: str | Path, name: str) -> None:
    """Loads one part of a run's model into a module of the same architecture.

    Args:
        module: The module to fill.
        path: A checkpoint written by a `fit`.
        name: The part's attribute in the model that was trained, for example `encoder`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The checkpoint cannot be read, or does not fit the module.
    """
    prefix = f"{name}."
    weights = load_checkpoint(path)["state_dict"]
    part = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    check_fit(module.state_dict(), part, f"the {name} in {path}")
    module.load_state_dict(part)
