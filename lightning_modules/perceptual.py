"""Distances of images as a frozen network sees them: a measure, and a loss for a decoder."""

from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import torch
import torchmetrics
from torch import Tensor, nn
from torchvision.models import get_model_weights

from .networks import FrozenFeatures
from .networks.precision import full
from .networks.weights import load_weights


class _Trunk(NamedTuple):
    """The network of torchvision below the heads of an LPIPS, and the layers that these compare."""

    network: str
    layers: list[str]


_TRUNKS = {
    "squeeze": _Trunk("squeezenet1_1", [f"features.{index}" for index in (1, 4, 7, 9, 10, 11, 12)]),
    "alex": _Trunk("alexnet", [f"features.{index}" for index in (1, 4, 7, 9, 11)]),
    "vgg": _Trunk("vgg16", [f"features.{index}" for index in (3, 8, 15, 22, 29)]),
}
_HEADS = Path(torchmetrics.__file__).parent / "functional/image/lpips_models"


class Perceptual(nn.Module):
    """Distance of images in features that never learn, of which a checkpoint holds no more than a hash.

    A subclass says how the features of one layer are compared.

    Attributes:
        name: Network and the beginning of its weights' hash, which go with every figure.
    """

    def __init__(self, features: FrozenFeatures, name: str) -> None:
        super().__init__()
        self.features = features
        self.name = f"{name}, {features.weights_hash[:8]}"

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        """The distances `(B,)` of images `(B, C, H, W)` in [0, 1], of one or three channels, from their targets.

        Raises:
            ValueError: The network takes no such images.
        """
        try:
            pairs = list(zip(self.features.each(preds), self.features.each(target), strict=True))
        except torch.OutOfMemoryError:  # a RuntimeError too, and no fault of the images
            raise
        except RuntimeError as error:
            shape = " x ".join(map(str, preds.shape[1:]))
            raise ValueError(f"{type(self).__name__} ({self.name}) takes no images of {shape}: {error}") from error
        layers = [self._compare(index, full(one), full(other)) for index, (one, other) in enumerate(pairs)]
        return torch.stack(layers).sum(dim=0)

    def _compare(self, index: int, preds: Tensor, target: Tensor) -> Tensor:
        """The distances `(B,)` of the features `(B, ...)` of one layer, by its index."""
        raise NotImplementedError


class LPIPS(Perceptual):
    """Learned perceptual distance (Zhang et al. 2018, arXiv 1801.03924), with the heads that torchmetrics brings.

    Per layer the features of a pixel are divided by their norm; their squared differences are weighted by channel, and
    averaged over the pixels. Images are taken at the size they have.

    Args:
        net: Whose features: `squeeze` for SqueezeNet 1.1, `alex` for AlexNet or `vgg` for VGG-16.
        weights: `DEFAULT` for torchvision's weights, from torch's cache or downloaded; the file of them; or `random`.

    Raises:
        ValueError: There is no such net.
        FileNotFoundError: There are no such weights; the file to bring is named.
    """

    def __init__(self, net: Literal["squeeze", "alex", "vgg"] = "squeeze", weights: str = "DEFAULT") -> None:
        if net not in _TRUNKS:
            raise ValueError(f"there is no LPIPS of {net}: choose one of {', '.join(_TRUNKS)}")
        trunk = _TRUNKS[net]
        try:
            features = FrozenFeatures(trunk.network, layers=trunk.layers, weights=weights, image_size=None)
        except FileNotFoundError as error:
            url = next(iter(get_model_weights(trunk.network))).url
            cache = Path(torch.hub.get_dir()) / "checkpoints"
            raise FileNotFoundError(
                f"LPIPS has no weights {weights} of {trunk.network}: bring {url} into {cache}, or name the file of it"
            ) from error
        super().__init__(features, net)
        for index, head in enumerate(load_weights(_HEADS / f"{net}.pth").values()):
            self.register_buffer(f"head_{index}", head, persistent=False)  # (1, C, 1, 1)

    @classmethod
    def named(cls, given: str) -> Self:
        """The one of `NET` or `NET:FILE`, as commands take it."""
        net, _, weights = given.partition(":")
        return cls(net, weights or "DEFAULT")  # type: ignore[arg-type]  # it looks itself

    def _compare(self, index: int, preds: Tensor, target: Tensor) -> Tensor:
        head: Any = getattr(self, f"head_{index}")
        return (head * (_unit(preds) - _unit(target)).square()).sum(dim=1).mean(dim=(1, 2))


class FeatureDistance(Perceptual):
    """Squared distance of features (Dosovitskiy and Brox 2016b, arXiv 1602.02644), the mean over the layers.

    It is relative to the squared norm of the target's features, so that layers of any scale count alike: 0 for images
    of the same features, and 1 where those of the reconstruction are all 0.

    Args:
        features: The network, and its layer or layers.
    """

    def __init__(self, features: FrozenFeatures) -> None:
        super().__init__(features, f"{features.network_name} {features.layer}")

    def _compare(self, index: int, preds: Tensor, target: Tensor) -> Tensor:
        preds, target = preds.flatten(1), target.flatten(1)
        relative = (preds - target).square().sum(dim=1) / target.square().sum(dim=1).clamp(min=1e-12)
        return relative / len(self.features.layers)


def _unit(features: Tensor) -> Tensor:
    """Features `(B, C, h, w)` of norm 1 at every pixel; torchmetrics' constant keeps those that are 0 finite."""
    return features * (features.square().sum(dim=1, keepdim=True) + 1e-8).rsqrt()
