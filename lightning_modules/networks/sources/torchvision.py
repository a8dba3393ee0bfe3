"""Networks of torchvision by their plain names; of those that segment and detect, the backbones."""

from functools import cache
from typing import Any

from torch import nn
from torchvision import models

from ..statistics import Statistics
from .base import Network, Source


class Torchvision(Source):
    """A network of torchvision, such as `alexnet` or `fcn_resnet50`."""

    def __init__(self, name: str) -> None:
        """Takes one of `names()`."""
        super().__init__(name)
        self.weights = list(models.get_model_weights(name).__members__)

    @staticmethod
    @cache
    def names() -> list[str]:
        """All that classify, segment or detect."""
        return [
            name for module in (models, models.segmentation, models.detection) for name in models.list_models(module)
        ]

    def create(self, image_size: int | None) -> Network:
        """Builds the network with random weights; it takes images of any size it can."""
        backbone = {"weights_backbone": None} if self._is_dense else {}  # which would be downloaded otherwise
        return self._network(models.get_model(self.name, weights=None, **backbone))

    def pretrained(self, weights: str, image_size: int | None) -> Network:
        """Downloads the weights, or takes them from torch's cache."""
        try:
            return self._network(models.get_model(self.name, weights=weights))
        except OSError as error:
            mend = "set encoder.weights to a file of them, or to random"
            raise FileNotFoundError(
                f"weights {weights} of {self.name} cannot be downloaded ({error}): {mend}"
            ) from error

    def from_file(self, path: str, image_size: int | None) -> Network:
        """Builds the network with the weights of a file."""
        network = super().from_file(path, image_size)
        if hasattr(network.module, "transform_input"):  # of googlenet and inception_v3, set with torchvision's weights
            network.module.transform_input = True  # type: ignore[assignment]
        return network

    @property
    def _is_dense(self) -> bool:
        return self.name not in models.list_models(models)

    def _network(self, module: nn.Module) -> Network:
        if not self._is_dense:
            return Network(module, traced=True)
        own: Any = getattr(module, "transform", None)  # of those that detect
        if own is None:
            return Network(module, trunk="backbone")
        size = own.fixed_size[0] if own.fixed_size else 224
        return Network(module, Statistics(tuple(own.image_mean), tuple(own.image_std), size), trunk="backbone")
