"""What every source of networks gives, and what they share."""

import difflib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..statistics import Statistics
from ..weights import check_fit, load_weights


@dataclass
class Network:
    """A network, and what is known of it.

    Attributes:
        module: The network, whose state dict is that of its files.
        statistics: How it wants its images.
        trunk: Name of the part whose layers are asked, once the weights are loaded; the whole if empty.
        traced: Its layers are the nodes of its graph, where torch.fx can trace it; else they are its modules.
    """

    module: nn.Module
    statistics: Statistics = field(default_factory=Statistics)
    trunk: str = ""
    traced: bool = False


class Source(ABC):
    """One network by its name, in one of the places where networks come from.

    Raises:
        ValueError: There is none; the nearest names are given.
    """

    #: What can be given as the name of its weights, beside `random` and a file.
    weights: Sequence[str] = ("DEFAULT",)

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def create(self, image_size: int | None) -> Network:
        """Builds the network with random weights, on any device, also `meta`.

        Args:
            image_size: Height and width of its images, for a network that is built for one size; null for its own.
        """

    @abstractmethod
    def pretrained(self, weights: str, image_size: int | None) -> Network:
        """Builds the network with trained weights, one of `weights`.

        Raises:
            FileNotFoundError: They cannot be downloaded; the file to bring is named.
        """

    def from_file(self, path: str, image_size: int | None) -> Network:
        """Builds the network with the weights of a file.

        Raises:
            ValueError: The file cannot be read, or is of another network.
        """
        network = self.create(image_size)
        fill(network.module, path)
        return network


def fill(module: nn.Module, path: str) -> None:
    """Loads a state dict, or the encoder's part of a checkpoint of ours; names and shapes must be the module's."""
    expected, found = module.state_dict(), load_weights(path)
    encoder = {key.removeprefix("encoder."): value for key, value in found.items() if key.startswith("encoder.")}
    if encoder.keys() == expected.keys():  # a checkpoint of ours
        found = encoder
    # Files from before torch 0.4.1 lack the counters of batch norm, which only training needs.
    found = {key: value for key, value in expected.items() if key.endswith("num_batches_tracked")} | found
    check_fit(expected, found, path)
    module.load_state_dict(found)


def draw_anew(module: nn.Module) -> None:
    """Draws all weights of a module anew."""
    module.apply(_draw_anew)


def _draw_anew(layer: nn.Module) -> None:
    reset = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()


def extra(package: str, of: str = "encoders") -> Any:
    """Imports a package that comes with one of this project's extras.

    Raises:
        ModuleNotFoundError: It is not installed; the line for pip is given.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        raise ModuleNotFoundError(f"{name} is not installed: pip install 'preimage[{of}]' brings it") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """The three names that are most like one, in one line."""
    return ", ".join(difflib.get_close_matches(name, list(known), cutoff=0))


def first_line(error: Exception, most: int = 160) -> str:
    """The first line of what a library says is wrong."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]
