"""Networks of one's own: a module, what a function returns, and the encoder of a run."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from ..statistics import Statistics, statistics_of
from ..weights import load_plain
from .base import Network, Source, draw_anew, first_line


class Given(Source):
    """A module that is there already; it is filled in place, and may say its statistics in a `pretrained_cfg`."""

    def __init__(self, module: nn.Module) -> None:
        """Takes the module."""
        super().__init__(type(module).__name__)
        self.module = module

    def create(self, image_size: int | None) -> Network:
        """The module, with its weights drawn anew."""
        draw_anew(self.module)
        return self.pretrained("random", image_size)

    def pretrained(self, weights: str, image_size: int | None) -> Network:
        """The module with the weights it has."""
        config = getattr(self.module, "pretrained_cfg", {})
        return Network(self.module, statistics_of(config if isinstance(config, dict) else {}), traced=True)


class Made(Given):
    """What a function or class returns that is called without arguments, as `module:pkg.fn`.

    Raises:
        ValueError: It cannot be imported, is not to be called, or returns no module.
    """

    def __init__(self, path: str) -> None:
        package, _, name = path.rpartition(".")
        if not package or package.split(".")[0] in sys.stdlib_module_names:
            raise ValueError(f"module:{path} is not called: give the import path of a function of your own")
        try:
            function = getattr(importlib.import_module(package), name)
            # A checkpoint may name it: what does not say that it makes a network is not called.
            kind = function if inspect.isclass(function) else get_type_hints(function).get("return")
        except (ImportError, AttributeError, NameError, TypeError) as error:
            raise ValueError(f"module:{path} cannot be imported as a function: {error}") from error
        if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
            raise ValueError(f"module:{path} is not called: annotate it to return a torch.nn.Module")
        try:
            module = function()
        except TypeError as error:
            raise ValueError(f"module:{path} cannot be called without arguments: {error}") from error
        super().__init__(module)


class Trained(Source):
    """The encoder of a run of this project, or of one of its checkpoints."""

    def create(self, image_size: int | None) -> Network:
        """The encoder, with its weights drawn anew."""
        network = self.pretrained("DEFAULT", image_size)
        draw_anew(network.module)
        return network

    def pretrained(self, weights: str, image_size: int | None) -> Network:
        """The encoder with the weights of the checkpoint; of a run, the best one.

        Raises:
            FileNotFoundError: The run has no checkpoint.
            ValueError: The checkpoint cannot be read, or its model has no encoder.
        """
        from lightning.pytorch import LightningModule

        path = Path(self.name)
        if path.is_dir():
            kept = [path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
            path = next((file for file in kept if file.is_file()), kept[-1])
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {path}: train the run first, or name a checkpoint")
        checkpoint = load_plain(path, mmap=True)
        if not isinstance(checkpoint, dict) or "pytorch-lightning_version" not in checkpoint:
            raise ValueError(f"{path} is no checkpoint of a run: a file of weights goes with the network's name")
        try:
            with torch.device("cpu"):  # whatever device the shapes of the layers are asked on
                model: Any = LightningModule.load_from_checkpoint(path, map_location="cpu", weights_only=True)
        except (TypeError, RuntimeError) as error:  # of a model that was built in Python
            raise ValueError(f"{path} does not say how its model is built: {first_line(error)}") from error
        if not isinstance(getattr(model, "encoder", None), nn.Module):
            raise ValueError(f"{path} is no model with an encoder, but {type(model).__name__}")
        convolutions = (part.in_channels for part in model.encoder.modules() if isinstance(part, nn.Conv2d))
        channels = next(convolutions, 1)
        own = Statistics((0.0,) * channels, (1.0,) * channels, size=None)  # it takes images in [0, 1], of any size
        return Network(model.encoder, own, traced=True)
