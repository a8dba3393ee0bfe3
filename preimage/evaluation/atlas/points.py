"""The points of an atlas: one layer of one network each."""

import argparse
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_modules import FrozenFeatures

PIXELS = "pixels"  # the network whose code is the image itself, scaled down


@dataclass(frozen=True, eq=False)
class Point:
    """A layer of a network.

    Attributes:
        network: What the network is called.
        layer: Name of the layer.
        folder: Where all that is measured of it is kept.
        arguments: Arguments of its `FrozenFeatures`, whose code is the network's own; `grid` for the decoder's.
        shape: Shape of the code that the decoder gets of one image.
        grid: The decoder gets tokens, or a map with its channels last, as a map.
        weights_hash: That of its `FrozenFeatures`.
    """

    network: str
    layer: str
    folder: Path
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    grid: bool = False
    weights_hash: str = ""

    @property
    def name(self) -> str:
        """Network and layer, for messages and figures."""
        return f"{self.network} {self.layer}"

    @property
    def values(self) -> int:
        """Numbers of a code."""
        return math.prod(self.shape)

    def encoder(self) -> dict[str, Any]:
        """The encoder of the decoder's run, as a class path with arguments."""
        tokens = {"tokens": "grid"} if self.grid else {}
        return {"class_path": "FrozenFeatures", "init_args": self.arguments | tokens}


def points_of(options: argparse.Namespace) -> list[Point]:
    """Looks at every layer of every network, so that a wrong one ends the atlas before it begins.

    Args:
        options: The arguments of the command.

    Raises:
        ValueError: There is no such network or layer, or two networks have one name.
    """
    points = [_point(options.out, given, layer) for given in options.networks for layer in given["layers"]]
    folders = [point.folder for point in points]
    if twice := next((point for point in points if folders.count(point.folder) > 1), None):
        raise ValueError(f"{twice.name} is asked for twice: give each network a --label of its own")
    return points


def label_of(given: dict[str, Any]) -> str:
    """What a network of the command is called: by its label, or its name and its weights where they are special."""
    weights = given.get("weights", "DEFAULT")
    own = given["network"] if weights == "DEFAULT" else f"{given['network']} ({Path(weights).stem})"
    return str(given.get("label", own))


def _point(out: Path, given: dict[str, Any], layer: str) -> Point:
    size = given.get("feature_size")
    arguments = {"network": given["network"], "layer": layer, "weights": given.get("weights", "DEFAULT")}
    features = FrozenFeatures(**arguments, image_size=size or "own")
    size = size or features.image_size
    if size is None:
        raise ValueError(f"{given['network']} takes images of any size: say by --feature_size at which it shall look")
    grid = features.kind(size) in ("tokens", "map, channels last")
    if grid:
        features.tokens = "grid"
    label = label_of(given)
    folder = out / file_name(label) / file_name(layer)
    arguments["image_size"] = size
    return Point(label, layer, folder, arguments, features.feature_shape(size), grid, features.weights_hash)


def file_name(text: str) -> str:
    """A text as the name of a folder."""
    return re.sub(r"[^\w.+=-]+", "_", text).strip("_.")
