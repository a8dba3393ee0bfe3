"""Features of a trained network at one or several of its layers, frozen for good."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Self

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from PIL import Image
from torch import Tensor, nn

from preimage.checks import check_range

from .sources import build, find
from .taps import all_outputs, tap
from .tokens import Join, LayerError, Layout, Tokens, join, kind_of, layout_of, pooled, side_of, take
from .weights import weights_hash


class FrozenFeatures(nn.Module):
    """What a network says of an image at one of its layers, or at several; the network never learns.

    Maps images `(B, 3, H, W)` or `(B, 1, H, W)` in [0, 1] to features `(B, ...)`. The network stays in eval mode and
    without gradients, though they flow to images that ask for them. A checkpoint holds only the hash of its weights:
    they are built anew from the arguments, and refused if they are others.

    Attributes:
        resizes: Its `image_size` is its own, and need not be that of the data.
        weights_hash: SHA-256 of the weights (of a network whose graph is known, up to the layer), in hexadecimal.

    Args:
        network: Name of one of torchvision's networks, such as `alexnet` (of one that segments or detects, its
            backbone is meant), of one of timm's, as `timm/vit_small_patch14_dinov2`, or of transformers', as
            `hf/facebook/dinov2-small`; `module:pkg.fn` for what a function returns; a run or checkpoint of ours
            by its path, for its encoder; or a module of your own.
        layer: Name of a layer as `preimage layers` lists them: of a node, for example `features.3`, or of a module.
            Of alexnet also `conv1` to `conv5`, `fc6`, `fc7` (after ReLU and max-pool) and `fc8`.
        weights: `DEFAULT`, or a name of torchvision's, such as `IMAGENET1K_V1`; file of a state dict, safetensors
            or checkpoint; or `random`.
        image_size: Height and width to which images are resized; `own` is the network's, and null leaves images as
            they are.
        normalize: Subtract the mean of the channels and divide by their standard deviation, the network's own.
        seed: Seed of random weights.
        layers: Several layers in place of `layer`, whose features are joined.
        tokens: Of tokens and of maps: `all` as they are, `grid` of the patches `(B, C, h, w)`, class token `cls` or
            `mean` of the patches or pixels, both `(B, D)`.
        join: Several layers by `concat` of their channels or as a `sum`, maps at the size of the largest.
        mean: Mean of each channel, for weights that were trained with others than the network's usual.
        std: Their standard deviation.
        crop: Cut the middle out of images that are resized, as the network's own evaluation does.
        precision: Of the network; `bfloat16` is taken where there is a GPU. The features have that of the images.
    """

    resizes = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: str | nn.Module,
        layer: str | None = None,
        weights: str = "DEFAULT",
        image_size: int | Literal["own"] | None = "own",
        normalize: bool = True,
        seed: int = 0,
        layers: list[str] | None = None,
        tokens: Tokens = "all",
        join: Join = "concat",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        crop: bool = False,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__()
        check_range("FrozenFeatures", "[1, inf)", image_size=None if image_size == "own" else image_size)
        if (layer is None) == (not layers):
            raise ValueError("FrozenFeatures takes one layer as layer=NAME, or several as layers=[...]")
        self.network_name = network if isinstance(network, str) else type(network).__name__
        self.layers = list(layers or [str(layer)])
        self.layer = " + ".join(self.layers)
        self.weights = weights
        opened = build(network, weights, seed, image_size if isinstance(image_size, int) else None)
        own = opened.statistics
        self.statistics = replace(own, mean=tuple(mean or own.mean), std=tuple(std or own.std))
        self._given = [f", {key}={value}" for key, value in (("mean", mean), ("std", std)) if value]
        self.image_size = self.statistics.size if image_size == "own" else image_size
        self.normalize = normalize
        self.colour = len(self.statistics.mean) == 3 and (normalize or isinstance(network, str))
        self.tokens, self.join, self.crop, self.precision = tokens, join, crop, precision
        trunk = opened.module.get_submodule(opened.trunk)
        self.layout = layout_of(trunk)
        self.network = tap(trunk, self.layers, self.network_name, opened.traced)
        self.weights_hash = weights_hash(self.network)
        self._freeze()

    def _freeze(self) -> None:
        for name in ("mean", "std"):
            values = torch.tensor(getattr(self.statistics, name))[:, None, None]
            self.register_buffer(name, values, persistent=False)
        if self.precision == "bfloat16" and not torch.cuda.is_available():
            rank_zero_info(f"{self.network_name} is frozen in float32: encoder.precision=bfloat16 is for GPUs")
            self.precision = "float32"
        if self.precision == "bfloat16":
            self.network.to(torch.bfloat16)
        self.requires_grad_(False).eval()
        self.register_state_dict_post_hook(_leave_out)
        self.register_load_state_dict_pre_hook(_put_back)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images `(B, 3, H, W)` or `(B, 1, H, W)` in [0, 1] to features `(B, ...)`."""
        parts = self.each(images)
        return parts[0] if len(parts) == 1 else join(parts, self.join, self.layers)

    def each(self, images: Tensor) -> list[Tensor]:
        """Maps images `(B, 3, H, W)` or `(B, 1, H, W)` in [0, 1] to the features `(B, ...)` of each layer."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            if self.image_size is not None and images.shape[-2:] != (self.image_size, self.image_size):
                images = self.statistics.resize(images, self.image_size, self.crop)
            if self.colour and images.shape[1] == 1:
                images = images.expand(-1, 3, -1, -1)
            if self.normalize:
                images = (images - self.mean) / self.std
            if self.precision == "float32":
                return self._features(images)
            return [part.to(images.dtype) for part in self._features(images.to(torch.bfloat16))]

    def _features(self, images: Tensor) -> list[Tensor]:
        outputs = self.network(images)
        parts = []
        for layer in self.layers:
            output = outputs.get(layer)
            if not isinstance(output, Tensor):
                what = "nothing" if output is None else f"a {type(output).__name__}"
                raise LayerError(
                    f"{layer} of {self.network_name} gives {what} and no tensor: choose a layer of `preimage layers`"
                )
            parts.append(take(output, self.tokens, self.layout, layer))
        return parts

    def picture(self, image: Image.Image) -> Tensor:
        """Brings a picture to the network's size as its own evaluation does: uint8 `(C, S, S)`."""
        return self.statistics.picture(image, self.image_size or min(image.size))

    def vectors(self, features: Tensor) -> Tensor:
        """Makes vectors `(B, D)` of tokens `(B, T, D)` as the network does, for probes, and maps `(B, C, h, w)`."""
        return pooled(features, self.layout)

    def kind(self, image_size: int, channels: int | None = None) -> str:
        """What the features of one image are: `map`, `map, channels last`, `tokens`, `vector` or `other`."""
        return kind_of(self.feature_shape(image_size, channels), self.layout)

    def feature_shape(self, image_size: int, channels: int | None = None) -> tuple[int, ...]:
        """Shape of the features of one image.

        Args:
            image_size: Height and width of the images that are given, which matters where they are not resized.
            channels: Channels of the images, by default the network's own.
        """
        images = self.mean.new_zeros(1, channels or len(self.mean), image_size, image_size)
        return tuple(_run(self, images).shape[1:])

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, so that no dropout or statistic comes alive."""
        return super().train(False)

    def extra_repr(self) -> str:
        """What the features depend on, besides the layers that torch lists; a cache of them is found by it."""
        given = f"{self.network_name}, layer={self.layer}, weights_hash={self.weights_hash[:12]}"
        given += f", image_size={self.image_size}, normalize={self.normalize}"
        usual = {"tokens": "all", "join": "concat", "crop": False, "precision": "float32"}
        others = [f", {key}={getattr(self, key)}" for key, value in usual.items() if getattr(self, key) != value]
        return "".join([given, *others, *self._given])

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


class Layer(NamedTuple):
    """What a layer gives of one image.

    Attributes:
        shape: Its shape, without the batch.
        kind: `map`, `map, channels last`, `tokens` (with those before the patches, and their grid), `vector`, `other`.
        shorts: Other names of the layer.
    """

    shape: tuple[int, ...]
    kind: str
    shorts: tuple[str, ...] = ()


def list_layers(
    network: str | nn.Module, image_size: int | None = None, channels: int | None = None
) -> dict[str, Layer]:
    """Lists the layers of a network whose features can be taken, in order.

    Args:
        network: See `FrozenFeatures`.
        image_size: Height and width of the images; by default the network's own.
        channels: Channels of the images; by default the network's own.

    Raises:
        ValueError: There is no such network, or it does not take such images.
    """
    with torch.device("meta"):  # shapes need neither memory nor time
        opened = find(copy.deepcopy(network)).create(image_size)
        statistics, trunk = opened.statistics, opened.module.get_submodule(opened.trunk).to("meta").eval()
        size = image_size or statistics.size or 224
        images = torch.zeros(7, channels or len(statistics.mean), size, size)
    with torch.no_grad():
        name = network if isinstance(network, str) else ""
        outputs, shorts = _run(lambda batch: all_outputs(trunk, batch, name, opened.traced), images)
    # A constant or a size is no feature: those have one row for each of the images.
    shapes = {
        name: tuple(value.shape[1:])
        for name, value in outputs.items()
        if isinstance(value, Tensor) and value.shape[:1] == (len(images),)
    }
    layout = layout_of(trunk)
    return {
        name: Layer(shape, _described(shape, layout), tuple(short for short, node in shorts.items() if node == name))
        for name, shape in shapes.items()
    }


def _described(shape: Sequence[int], layout: Layout) -> str:
    kind = kind_of(shape, layout)
    side = side_of(shape[0], layout) if kind == "tokens" else None
    return kind if side is None else f"tokens, {shape[0] - side * side} + {side} x {side}"


def _run(network: Callable[[Tensor], Any], images: Tensor) -> Any:
    try:
        return network(images)
    except LayerError:
        raise
    except Exception as error:  # whatever a network may raise
        shape = " x ".join(map(str, images.shape[1:]))
        raise ValueError(f"the network does not take images of {shape} ({error}): choose another image_size") from error


def _leave_out(module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    """Takes the network's tensors out of a state dict."""
    for key in [key for key in state_dict if key.startswith(f"{prefix}network.")]:
        del state_dict[key]


def _put_back(module: FrozenFeatures, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
    """Adds the network's own tensors to a state dict that is loaded, so that none is missing."""
    state_dict.update(module.network.state_dict(prefix=f"{prefix}network."))
