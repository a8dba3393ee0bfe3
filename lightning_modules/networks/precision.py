"""Networks in another precision than float32: what they are given, and what is computed from what they give."""

from typing import Any

import torch
from lightning.fabric.utilities.apply_func import apply_to_collection
from torch import Tensor, nn

from preimage.private_api import has_pre_hook


def full(values: Tensor) -> Tensor:
    """The values in float32, in which losses and metrics are computed; those in float64 stay as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def follow_dtype(model: nn.Module) -> None:
    """Has every layer of a model take its inputs in the type of its weights, so that images and codes may be exact."""
    for layer in model.modules():
        weights = [] if layer is model else [p for p in layer.parameters(recurse=False) if p.is_floating_point()]
        if weights and not has_pre_hook(layer, _cast):  # a test after the training finds it there
            layer.register_forward_pre_hook(_cast, with_kwargs=True)


def _cast(layer: nn.Module, args: Any, kwargs: Any) -> Any:
    dtype = next(p.dtype for p in layer.parameters(recurse=False) if p.is_floating_point())
    return apply_to_collection((args, kwargs), Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x)
