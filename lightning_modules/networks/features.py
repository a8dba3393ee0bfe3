"""Features of a trained network at any of its layers, frozen for good."""

import copy
import difflib
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.proxy import TraceError
from torch.nn import functional as F
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from preimage.checks import check_range

from .weights import check_fit, load_weights, weights_hash

#: Short names of layers, by network: after the ReLU and, where there is one, the max-pool; fc8 has neither.
ALIASES = {
    "alexnet": {
        "conv1": "features.2",
        "conv2": "features.5",
        "conv3": "features.7",
        "conv4": "features.9",
        "conv5": "features.12",
        "fc6": "classifier.2",
        "fc7": "classifier.5",
        "fc8": "classifier.6",
    }
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FrozenFeatures(nn.Module):
    """What a network says of an image at one of its layers; the network never learns.

    Maps images `(B, 3, H, W)` or `(B, 1, H, W)` in [0, 1] to features `(B, ...)`. The network stays in eval mode and
    without gradients, though they flow to images that ask for them. A checkpoint holds only the hash of its weights:
    they are built anew from the arguments, and refused if they are others.

    Attributes:
        resizes: Its `image_size` is its own, and need not be that of the data.
        weights_hash: SHA-256 of the weights up to the layer, in hexadecimal.
    """

    resizes = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: str | nn.Module,
        layer: str,
        weights: str = "DEFAULT",
        image_size: int | None = 224,
        normalize: bool = True,
        seed: int = 0,
    ) -> None:
        """Builds the network up to the layer.

        Args:
            network: Name of a torchvision classification network, such as `alexnet`, or a module of your own.
            layer: Name of a node, for example `features.3`, or of a module for its last node; `preimage layers` lists
                them. Of alexnet also `conv1` to `conv5`, `fc6`, `fc7` (after ReLU and max-pool) and `fc8`.
            weights: Name of torchvision's weights, such as `IMAGENET1K_V1`, or `DEFAULT` (of your own module: those it
                has); file of a state dict or checkpoint; or `random`.
            image_size: Height and width to which images are resized; null leaves them as they are.
            normalize: Subtract the mean of ImageNet's channels and divide by their standard deviation.
            seed: Seed of random weights.
        """
        super().__init__()
        check_range("FrozenFeatures", "[1, inf)", image_size=image_size)
        self.network_name = _name(network)
        self.layer = layer
        self.weights = weights
        self.image_size = image_size
        self.normalize = normalize
        self.colour = normalize or isinstance(network, str)
        self.network = _up_to(_build(network, weights, seed), layer, self.network_name)
        self.weights_hash = weights_hash(self.network)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()
        self.register_state_dict_post_hook(_leave_out)
        self.register_load_state_dict_pre_hook(_put_back)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images `(B, 3, H, W)` or `(B, 1, H, W)` in [0, 1] to features `(B, ...)`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            if self.image_size is not None and images.shape[-2:] != (self.image_size, self.image_size):
                images = F.interpolate(images, (self.image_size, self.image_size), mode="bilinear", antialias=True)
            if self.colour and images.shape[1] == 1:
                images = images.expand(-1, 3, -1, -1)
            if self.normalize:
                images = (images - self.mean) / self.std
            features: Tensor = self.network(images)[self.layer]
            return features

    def feature_shape(self, image_size: int, channels: int = 3) -> tuple[int, ...]:
        """Shape of the features of one image.

        Args:
            image_size: Height and width of the images that are given, which matters where they are not resized.
            channels: Channels of the images.
        """
        return tuple(_run(self, self.mean.new_zeros(1, channels, image_size, image_size)).shape[1:])

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, so that no dropout or statistic comes alive."""
        return super().train(False)

    def extra_repr(self) -> str:
        """What the features depend on, besides the layers that torch lists; a cache of them is found by it."""
        given = f"{self.network_name}, layer={self.layer}, weights_hash={self.weights_hash[:12]}"
        return f"{given}, image_size={self.image_size}, normalize={self.normalize}"

    def get_extra_state(self) -> Tensor:
        """The hash of the weights `(32,)`, which stands for them in a state dict."""
        return torch.frombuffer(bytearray.fromhex(self.weights_hash), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Compares the hash of a state dict with that of the weights.

        Raises:
            ValueError: The state dict belongs to other weights.
        """
        found = bytes(state.tolist()).hex()
        if found != self.weights_hash:
            raise ValueError(
                f"the checkpoint belongs to other weights of {self.network_name} up to {self.layer} (sha256"
                f" {found[:12]}, those of {self.weights} have {self.weights_hash[:12]}): name them in encoder.weights"
            )


def layer_shapes(network: str | nn.Module, image_size: int = 224, channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Lists the nodes of a network whose features can be taken, in order.

    Args:
        network: Name of a torchvision classification network, or a module.
        image_size: Height and width of the images.
        channels: Channels of the images.

    Returns:
        The shape of one image's features, by the name of the node.

    Raises:
        ValueError: There is no such network, or it does not take such images.
    """
    name = _name(network)
    _known_weights(network)
    with torch.device("meta"):  # shapes need neither memory nor time
        network = _create(copy.deepcopy(network)).to("meta").eval()
        images = torch.zeros(7, channels, image_size, image_size)
    nodes = _nodes(network, name)
    outputs = _run(create_feature_extractor(network, nodes, suppress_diff_warning=True), images)
    # A constant or a size is no feature: those have one row for each of the images.
    return {
        name: tuple(value.shape[1:])
        for name, value in outputs.items()
        if isinstance(value, Tensor) and value.shape[:1] == (len(images),)
    }


def short_names(network: str, nodes: Iterable[str]) -> dict[str, str]:
    """Names that stand for the node of a longer one: aliases, and a module's name for the last of its nodes.

    Args:
        network: Name of the network.
        nodes: Its nodes, in order.

    Returns:
        The nodes by their short names.
    """
    prefixes = {".".join(node.split(".")[:depth]): node for node in nodes for depth in range(1, node.count(".") + 1)}
    return prefixes | ALIASES.get(network.lower(), {})


def _name(network: str | nn.Module) -> str:
    return network if isinstance(network, str) else type(network).__name__


def _known_weights(network: str | nn.Module) -> list[str]:
    if isinstance(network, nn.Module):
        return ["DEFAULT"]
    known = models.list_models(module=models)
    if network not in known:
        near = ", ".join(difflib.get_close_matches(network, known, cutoff=0))
        raise ValueError(f"torchvision has no network {network}: the nearest are {near}; give your own by class_path")
    return list(models.get_model_weights(network).__members__)


def _create(network: str | nn.Module, weights: str | None = None) -> nn.Module:
    if isinstance(network, nn.Module):
        return network
    try:
        created: nn.Module = models.get_model(network, weights=weights)
    except OSError as error:
        mend = "set encoder.weights to a file of them, or to random"
        raise FileNotFoundError(f"weights {weights} of {network} cannot be downloaded ({error}): {mend}") from error
    return created


def _build(network: str | nn.Module, weights: str, seed: int) -> nn.Module:
    """A network with its weights; a module that is given is filled in place."""
    name, known = _name(network), _known_weights(network)
    if weights == "random":
        text = f"{name} has RANDOM weights (seed {seed}): its features are those of no trained network"
        warnings.warn(text, stacklevel=2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _create(network) if isinstance(network, str) else network.apply(_draw_anew)
    if weights in known:
        return _create(network, weights)
    if not Path(weights).is_file():
        raise FileNotFoundError(f"{name} has no weights {weights}: give {', '.join(known)}, random, or a file")
    network = _create(network)
    _fill(network, weights)
    if hasattr(network, "transform_input"):  # of googlenet and inception_v3, which torchvision sets with its weights
        network.transform_input = True  # type: ignore[assignment]
    return network


def _draw_anew(layer: nn.Module) -> None:
    reset = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()


def _fill(network: nn.Module, path: str) -> None:
    expected, found = network.state_dict(), load_weights(path)
    encoder = {key.removeprefix("encoder."): value for key, value in found.items() if key.startswith("encoder.")}
    if encoder.keys() == expected.keys():  # a checkpoint of ours
        found = encoder
    # Files from before torch 0.4.1 lack the counters of batch norm, which only training needs.
    found = {key: value for key, value in expected.items() if key.endswith("num_batches_tracked")} | found
    check_fit(expected, found, path)
    network.load_state_dict(found)


def _nodes(network: nn.Module, name: str) -> list[str]:
    try:
        return get_graph_node_names(network, suppress_diff_warning=True)[1]
    except (TraceError, TypeError) as error:
        raise ValueError(f"torch.fx cannot trace {name}, so that it has no layers to choose from ({error})") from error


def _up_to(network: nn.Module, layer: str, name: str) -> nn.Module:
    """The part of a network up to a layer; its output is a dictionary with one entry, `layer`."""
    nodes = _nodes(network.eval(), name)
    known = short_names(name, nodes) | {node: node for node in nodes}
    if layer not in known:
        near = ", ".join(difflib.get_close_matches(layer, known, cutoff=0))
        raise ValueError(f"{name} has no layer {layer}: the nearest are {near}; `preimage layers` lists them all")
    part = create_feature_extractor(network, {known[layer]: layer}, suppress_diff_warning=True)
    return GraphModule(part, part.graph)  # torchvision's own class comes out of a deepcopy in train mode


def _run(network: Callable[[Tensor], Any], images: Tensor) -> Any:
    try:
        return network(images)
    except (RuntimeError, AssertionError, ValueError) as error:
        shape = " x ".join(map(str, images.shape[1:]))
        raise ValueError(f"the network does not take images of {shape} ({error}): choose another image_size") from error


def _leave_out(module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    """Takes the network's tensors out of a state dict."""
    for key in [key for key in state_dict if key.startswith(f"{prefix}network.")]:
        del state_dict[key]


def _put_back(module: "FrozenFeatures", state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
    """Adds the network's own tensors to a state dict that is loaded, so that none is missing."""
    state_dict.update(module.network.state_dict(prefix=f"{prefix}network."))
