"""What shape features have: maps, tokens of which some stand for no patch, or vectors; and how one becomes another."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Tokens = Literal["all", "grid", "cls", "mean"]
MAP_VALUES = 1024
Join = Literal["concat", "sum"]

#: How libraries call the parameters of tokens that stand for no patch; the first of a layer's tokens is of the class.
_CLASS = {"cls_token", "class_token", "class_embedding"}
_OTHERS = {"dist_token", "distillation_token", "reg_token", "register_tokens", "storage_tokens"}


class LayerError(ValueError):
    """A layer does not give what is asked of it."""


class Layout(NamedTuple):
    """How a network orders its tokens.

    Attributes:
        prefix: Tokens before those of the patches; None where the others do not lie in the order of the patches.
        has_class: The first of them is the class token.
        pools: How the network itself makes a vector of its tokens.
    """

    prefix: int | None = 0
    has_class: bool = False
    pools: Literal["cls", "mean"] = "mean"


def layout_of(network: nn.Module) -> Layout:
    """Finds the layout of a network's tokens by the names of its parameters, which the libraries agree upon."""
    if any(hasattr(module, "reroll") for module in network.modules()):
        return Layout(prefix=None)  # Hiera's
    named = [(name.rpartition(".")[2], value) for name, value in network.named_parameters()]
    counts = [value.shape[-2] if value.ndim > 1 else 1 for name, value in named if name in _CLASS | _OTHERS]
    has_class = any(name in _CLASS for name, _ in named)
    by_mean = not has_class or getattr(network, "global_pool", None) == "avg"
    return Layout(sum(counts), has_class, "mean" if by_mean else "cls")


def side_of(count: int, layout: Layout) -> int | None:
    """Height and width of the square grid of patches among a number of tokens; None where they make none."""
    for prefix in () if layout.prefix is None else (layout.prefix, 0):
        side = math.isqrt(max(0, count - prefix))
        if side > 1 and side * side == count - prefix:
            return side
    return None


def kind_of(shape: Sequence[int], layout: Layout) -> str:
    """What the features of one image are, images being square.

    Args:
        shape: Their shape, without the batch.
        layout: That of the network's tokens.

    Returns:
        `map` for `(C, h, w)`, `map, channels last` for `(h, w, C)`, `tokens` for `(T, D)` with a grid of patches in
        them, `vector`, or `other`.
    """
    if len(shape) == 3:
        return "map" if shape[1] == shape[2] else "map, channels last" if shape[0] == shape[1] else "other"
    if len(shape) == 2:
        return "tokens" if side_of(shape[0], layout) else "other"
    return "vector" if len(shape) == 1 else "other"


def take(features: Tensor, what: Tokens, layout: Layout, layer: str) -> Tensor:
    """Takes a grid, a vector, or all of a layer's features `(B, ...)`.

    Args:
        features: What the layer gives.
        what: `grid` for `(B, C, h, w)`, `cls` or `mean` (over patches or pixels) for `(B, D)`, `all` for what there is.
        layout: That of the network's tokens.
        layer: Name of the layer, for the message.

    Raises:
        LayerError: It has no such thing.
    """
    shape = tuple(features.shape[1:])
    kind = kind_of(shape, layout)
    if what == "all" or (what, kind) in (("grid", "map"), ("mean", "vector")):
        return features
    if kind == "map, channels last":
        features, kind = features.permute(0, 3, 1, 2).contiguous(), "map"
    if kind == "tokens":
        side = side_of(shape[0], layout) or 0
        if what == "cls" and layout.has_class and shape[0] > side * side:
            return features[:, 0]
        if what != "cls":
            features, kind = features[:, -side * side :].mT.unflatten(2, (side, side)).contiguous(), "map"
    if kind == "map" and what in ("grid", "mean"):
        return features if what == "grid" else features.mean(dim=(2, 3))
    wanted = {"grid": "grid of patches", "cls": "class token", "mean": "patches to average"}[what]
    raise LayerError(f"{layer} gives {' x '.join(map(str, shape))}, which has no {wanted}: set encoder.tokens to all")


def pooled(features: Tensor, layout: Layout) -> Tensor:
    """Makes vectors `(B, D)` of tokens `(B, T, D)` as their network does: the class token, or the patches' mean.

    Maps become `(B, C, h, w)`, and all else stays as it is.
    """
    if kind_of(features.shape[1:], layout) == "map, channels last":
        return take(features, "grid", layout, "")
    if features.ndim != 3:
        return features
    side = side_of(features.shape[1], layout)
    patches = features.shape[1] if side is None else side * side
    if layout.pools == "cls" and features.shape[1] > patches:
        return features[:, 0]
    return features[:, -patches:].mean(dim=1)


def probe_vectors(codes: Tensor, encoder: nn.Module | None = None, most: int = MAP_VALUES) -> Tensor:
    """Makes float32 vectors `(B, D)` of codes `(B, ...)`, short enough for probes.

    Tokens `(B, T, D)` become one, as the encoder's own `vectors` says, or else their mean. Maps of more values than
    `most` are averaged over space: to as fine a square grid as these allow, and at least one value per channel.

    Args:
        codes: Codes, as the encoder gives them.
        encoder: What gave them.
        most: Values of a map.
    """
    vectors = getattr(encoder, "vectors", None)
    if vectors is not None:
        codes = vectors(codes)
    elif codes.ndim == 3:
        codes = codes.mean(dim=1)
    if codes.ndim == 4 and codes[0].numel() > most:
        side = max(1, int((most / codes.shape[1]) ** 0.5))
        codes = F.adaptive_avg_pool2d(codes.float(), (min(side, codes.shape[2]), min(side, codes.shape[3])))
    return codes.flatten(1).float()


def join(parts: Sequence[Tensor], how: Join, layers: Sequence[str]) -> Tensor:
    """Joins the features of several layers: maps at the size of the largest, by their channels or as a sum.

    Args:
        parts: Features of the layers, all `(B, C, h, w)`, all `(B, T, D)` or all `(B, D)`.
        how: `concat` along channels, or `sum`.
        layers: Their names, for the message.

    Raises:
        LayerError: They do not go together.
    """
    shapes = [tuple(part.shape[1:]) for part in parts]
    if all(part.ndim == 4 and part.shape[2] == part.shape[3] for part in parts):
        side = max(part.shape[2] for part in parts)
        parts = [
            part if part.shape[2] == side else F.interpolate(part, (side, side), mode="bilinear", antialias=True)
            for part in parts
        ]
    dim = 2 if parts[0].ndim == 3 else 1
    others = [range(1, part.ndim) if how == "sum" else [i for i in range(1, part.ndim) if i != dim] for part in parts]
    if len({tuple(part.shape[i] for i in kept) for part, kept in zip(parts, others, strict=True)}) > 1:
        given = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in zip(layers, shapes, strict=True))
        raise LayerError(
            f"the layers do not go together by {how} ({given}): choose another join, or tokens=grid or mean"
        )
    return torch.cat(list(parts), dim) if how == "concat" else torch.stack(list(parts)).sum(dim=0)
