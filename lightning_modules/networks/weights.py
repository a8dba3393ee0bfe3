"""Weights in files and modules: read as tensors and plain values only, compared by name and shape, and hashed."""

import hashlib
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def load_plain(path: Path, mmap: bool = False) -> Any:
    """Reads what torch saved on the CPU, under `weights_only`: tensors and plain values.

    Args:
        path: The file.
        mmap: Map its tensors instead of reading them; older files cannot be mapped.

    Raises:
        ValueError: The file is truncated, or holds more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        reason = str(error).split("GLOBAL ")[-1].split(" ")[0] if "GLOBAL " in str(error) else "arbitrary objects"
        raise ValueError(
            f"{path} is refused: a checkpoint may hold tensors and plain values only, and this one holds {reason}"
        ) from error
    except (RuntimeError, EOFError, OSError, LookupError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"{path} is truncated or no checkpoint: {_newest_other(path)}") from error


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Reads a state dict on the CPU, under `weights_only`: a file of its own, of safetensors, or of a checkpoint.

    Raises:
        ValueError: The file is truncated, or holds no state dict or more than tensors and plain values.
        ModuleNotFoundError: It is one of safetensors, which is not installed.
    """
    path = Path(path)
    weights: Any = _load_safetensors(path) if path.suffix == ".safetensors" else load_plain(path)
    if not isinstance(weights, dict):
        raise ValueError(f"{path} holds no state dict but a {type(weights).__name__}: give another file")
    found: dict[str, Tensor] = weights.get("state_dict", weights)
    return found


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{path} needs safetensors, which is not installed: pip install 'preimage[encoders]' brings it"
        ) from error
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no file of safetensors ({error})") from error


def _newest_other(path: Path) -> str:
    """Names the newest good checkpoint beside one that cannot be read."""
    others = sorted(path.parent.glob("[!.]*.ckpt"), key=lambda other: other.stat().st_mtime, reverse=True)
    for other in others:
        try:
            torch.load(other, map_location="cpu", weights_only=True, mmap=True)
        except Exception:  # whatever is wrong with it, the next one is tried
            continue
        return f"the newest good one beside it is {other}"
    return "there is no good one beside it"


def check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Compares two state dicts by name and shape.

    Args:
        expected: The state dict of the model.
        found: The state dict to be loaded into it.
        source: What `found` was read from, for the message.

    Raises:
        ValueError: A tensor is missing, left over, or of another shape or kind of numbers; both are named.
    """
    for name, tensor in expected.items():
        if name not in found:
            raise ValueError(f"{source} is of another model: it has no {name}, here of shape {tuple(tensor.shape)}")
        if tensor.shape != found[name].shape:
            raise ValueError(
                f"{source} is of another model: its {name} has shape {tuple(found[name].shape)},"
                f" the model's has {tuple(tensor.shape)}"
            )
        kinds = [(value.is_complex(), value.is_floating_point()) for value in (tensor, found[name])]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"{source} is of another model: its {name} is of {found[name].dtype}, the model's of {tensor.dtype}"
            )
    for name in found:
        if name not in expected:
            raise ValueError(f"{source} is of another model: its {name} {tuple(found[name].shape)} is not in the model")


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers of a module, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
