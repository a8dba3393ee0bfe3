"""Where networks come from: their names, their weights and their own statistics."""

import warnings
from pathlib import Path

import torch
from torch import nn

from .base import Network, Source, nearest
from .huggingface import HuggingFace
from .own import Given, Made, Trained
from .timm import Timm
from .torchvision import Torchvision

__all__ = ["Network", "Source", "build", "find"]

PREFIXES: dict[str, type[Timm | HuggingFace | Made]] = {"timm/": Timm, "hf/": HuggingFace, "module:": Made}


def find(network: str | nn.Module) -> Source:
    """The source of a network.

    Args:
        network: Name of one of torchvision's, `timm/NAME`, `hf/NAME`, `module:pkg.fn`, the path of a run or checkpoint,
            or a module.

    Raises:
        ValueError: There is no such network; the nearest names are given.
        ModuleNotFoundError: The library that has it is not installed.
    """
    if isinstance(network, nn.Module):
        return Given(network)
    for prefix, source in PREFIXES.items():
        if network.startswith(prefix):
            return source(network.removeprefix(prefix))
    if network in Torchvision.names():
        return Torchvision(network)
    if Path(network).exists():
        return Trained(network)
    near = f"torchvision has no network {network}: the nearest are {nearest(network, Torchvision.names())}"
    try:
        near += f"; of timm timm/{nearest(network, Timm.names()).replace(', ', ', timm/')}"
    except ModuleNotFoundError:
        near += "; pip install 'preimage[encoders]' brings those of timm/ and hf/"
    raise ValueError(f"{near}; give your own as module:pkg.fn or by class_path, a run by its path")


def build(network: str | nn.Module, weights: str, seed: int, image_size: int | None) -> Network:
    """A network with its weights; a module that is given is filled in place.

    Args:
        network: See `find`.
        weights: A name of weights, a file, or `random`.
        seed: Seed of random weights.
        image_size: Height and width of its images; null for its own.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: There is no such network, or the weights are of another one.
    """
    source = find(network)
    if weights == "random":
        text = f"{source.name} has RANDOM weights (seed {seed}): its features are those of no trained network"
        warnings.warn(text, stacklevel=2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return source.create(image_size)
    if weights in source.weights:
        return source.pretrained(weights, image_size)
    if not Path(weights).is_file():
        known = ", ".join([*source.weights, "random"])
        raise FileNotFoundError(f"{source.name} has no weights {weights}: give {known}, or a file")
    return source.from_file(weights, image_size)
