"""The memory that a training takes, known before it is asked for."""

import os
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn

#: Where Linux says what a container may take, in cgroups of version 2 and 1.
CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
STATES = 4  # the weights, their gradients, and the two moments of Adam


class ModelMemory(Callback):
    """Says what memory a model takes in training, and refuses one that the machine cannot hold.

    Counted are the weights and, of those that train, the gradients and the two moments that Adam and its variants keep;
    plain SGD takes less. The feature maps of a batch come on top.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compares, before gradients and moments are made."""
        if stage != "fit":
            return
        device = trainer.strategy.root_device
        shards = trainer.world_size if isinstance(trainer.strategy, FSDPStrategy) else 1
        needed, there = training_memory(pl_module, shards), device_memory(device)
        if device.type != "cuda":
            there //= trainer.num_devices  # processes that share the machine
        count = sum(parameter.numel() for parameter in pl_module.parameters())
        text = f"{count / 1e6:.1f} M parameters take {needed / 1e9:.2f} GB with their gradients and two moments (Adam)"
        if needed > there:
            raise ValueError(
                f"the model's {text}, and {device} has {there / 1e9:.2f} GB for each process: take a smaller model,"
                " for example by the width of its networks, or a machine with more memory"
            )
        rank_zero_info(f"memory: {text}, of {there / 1e9:.2f} GB; the feature maps of a batch come on top")


def training_memory(model: nn.Module, shards: int = 1) -> int:
    """Bytes that a model takes in training with Adam, without its feature maps.

    Args:
        model: The model.
        shards: Processes that share the gradients and moments out among themselves.
    """
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        sizes[parameter.requires_grad] += parameter.numel() * parameter.element_size()
    return sizes[True] + sizes[False] + (STATES - 1) * sizes[True] // shards


def device_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, or that the machine or container has in all for any other device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [path.read_text().strip() for path in CONTAINER_LIMITS if path.is_file()]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(int(text) for text in limits if text.isdigit())])
