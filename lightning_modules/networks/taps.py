"""Which layers a network has, and how what they give is taken: by its graph, or by hooks on its modules."""

import difflib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

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


class _ReachedLastLayer(Exception):
    """Ends the pass through a network: what comes after the last layer that is asked need not be computed."""


class Hooked(nn.Module):
    """Maps images to what some modules of a network give at their first call, by name.

    Args:
        network: The network.
        layers: Names of its modules.
        stops: End the pass when all have spoken.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], stops: bool = True) -> None:
        super().__init__()
        self.network = network
        self.layers = list(layers)
        self.stops = stops
        self._kept: dict[str, Any] = {}
        for name in layers:
            # Not a function of this call: a deep copy's hooks must write into the copy.
            network.get_submodule(name).register_forward_hook(partial(self._keep, name))

    def forward(self, images: Tensor) -> dict[str, Any]:
        """Maps images `(B, C, H, W)` to the outputs of the layers, in the order of the pass."""
        self._kept = {}
        with suppress(_ReachedLastLayer):
            self.network(images)
        kept, self._kept = self._kept, {}
        return kept

    def _keep(self, name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if name in self._kept:
            return
        reroll, (first, _, index) = getattr(self.network, "reroll", None), name.partition(".")
        if reroll is not None and first == "blocks" and index.isdigit():
            output = reroll(output, int(index))  # Hiera's blocks have the patches in the order of its pooling
        # What follows may change it in place.
        self._kept[name] = output.clone() if isinstance(output, Tensor) else output
        if self.stops and len(self._kept) == len(self.layers) and not torch.compiler.is_compiling():
            raise _ReachedLastLayer


def tap(network: nn.Module, layers: Sequence[str], name: str, traced: bool) -> nn.Module:
    """The part of a network up to some layers; it maps images to a dictionary of what these give.

    Args:
        network: The network, which becomes a part of it.
        layers: Their names, or aliases.
        name: Name of the network, for its aliases and messages.
        traced: Take them from the network's graph, where torch.fx can trace it; else they are its modules.

    Raises:
        ValueError: There is no such layer; the nearest are given.
    """
    nodes = _nodes(network.eval()) if traced else None
    own = [module for module, _ in network.named_modules() if module] if nodes is None else nodes
    known = ({} if nodes is None else _short_names(name, nodes)) | {layer: layer for layer in own}
    if not known:
        raise ValueError(f"{name} has no layers to choose from: torch.fx cannot trace it, and it has no modules")
    for layer in layers:
        if layer not in known:
            near = ", ".join(difflib.get_close_matches(layer, known, cutoff=0))
            raise ValueError(f"{name} has no layer {layer}: the nearest are {near}; `preimage layers` lists them all")
    if nodes is None:
        return Hooked(network, layers)
    wanted = {known[layer]: layer for layer in layers}
    part = create_feature_extractor(network, wanted, suppress_diff_warning=True)
    return GraphModule(part, part.graph)  # torchvision's own class comes out of a deepcopy in train mode


def all_outputs(network: nn.Module, images: Tensor, name: str, traced: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """What every layer of a network in eval mode gives, in order, by name; and the layers by their other names."""
    nodes = _nodes(network) if traced else None
    if nodes is not None:
        outputs = create_feature_extractor(network, nodes, suppress_diff_warning=True)(images)
        return outputs, _short_names(name, nodes)
    modules = [name for name, _ in network.named_modules() if name]
    return Hooked(network, modules, stops=False)(images), {}


def _short_names(network: str, nodes: Iterable[str]) -> dict[str, str]:
    """Nodes by the names that stand for a longer one: aliases, and a module's name for the last of its nodes."""
    prefixes = {".".join(node.split(".")[:depth]): node for node in nodes for depth in range(1, node.count(".") + 1)}
    return prefixes | ALIASES.get(network.lower(), {})


def _nodes(network: nn.Module) -> list[str] | None:
    """The nodes of a network's graph; None where torch.fx cannot trace it, for whatever reason."""
    try:
        return get_graph_node_names(network, suppress_diff_warning=True)[1]
    except Exception:  # tracing runs the network's own code on things that are no tensors
        return None
