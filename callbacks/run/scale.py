"""What a training amounts to: the memory that it takes, and what a step takes."""

import math
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn

#: Where Linux says what a container may take, in cgroups of version 2 and 1.
CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


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


class ModelParts(ModelSummary):
    """Says how many parameters each part of a model has and how many of them train, in place of Lightning's summary."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the lines, from rank 0."""
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for name, parameter in pl_module.named_parameters():
            for part in (name.partition(".")[0], ""):
                counts[part][0] += parameter.numel()
                counts[part][1] += parameter.numel() * parameter.requires_grad
        counts["in all"] = counts.pop("")
        rows = [["part", "class", "parameters", "trained"]]
        for part, numbers in counts.items():
            rows.append([part, type(getattr(pl_module, part, pl_module)).__name__, *(f"{n:,}" for n in numbers)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(str.format, ("{:{}}", "{:{}}", "{:>{}}", "{:>{}}"), row, widths)) for row in rows)
        rank_zero_info("\n".join(lines))


class EffectiveBatch(Callback):
    """Says at the start of a training how many images a step takes, the learning rates, and the number of steps.

    Nothing is scaled with the number of processes: who adds some may want to raise the learning rate.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the line, from rank 0."""
        accumulated = min(trainer.accumulate_grad_batches, trainer.num_training_batches)  # an epoch's end is a step's
        size, whole = _images_of_a_step(trainer, accumulated)
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        rates = dict.fromkeys(f"{group.get('initial_lr', group['lr']):g}" for group in groups)
        schedules = dict.fromkeys(type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs)
        epochs = f" in {trainer.max_epochs} epochs" if (trainer.max_epochs or -1) > 0 else ""
        rank_zero_info(
            f"a step: batch of {size} x {trainer.world_size} processes x {accumulated} accumulated = {whole},"
            f" learning rate {', '.join(rates)} ({', '.join(schedules) or 'constant'}), neither scaled by the other;"
            f" {trainer.estimated_stepping_batches:,} steps{epochs}"
        )


def training_memory(model: nn.Module, shards: int = 1) -> int:
    """Bytes that a model takes in training with Adam, without its feature maps.

    Args:
        model: The model.
        shards: Processes that share the gradients and moments out among themselves.
    """
    weights = sum(part.numel() * part.element_size() for part in model.parameters())
    trained = sum(part.numel() * part.element_size() for part in model.parameters() if part.requires_grad)
    return weights + 3 * trained // shards  # the gradients, and the two moments of Adam


def device_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, or that the machine or container has in all for any other device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [path.read_text().strip() for path in CONTAINER_LIMITS if path.is_file()]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(int(text) for text in limits if text.isdigit())])


def _images_of_a_step(trainer: Trainer, accumulated: float) -> tuple[float | None, str]:
    """Images in a batch of one process, and in words those of a step on all of them."""
    loader: Any = trainer.train_dataloader
    size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    if size is None:
        return None, "an unknown number of images"
    sampler = getattr(loader, "sampler", None)
    there = len(sampler) if hasattr(sampler, "__len__") else math.inf  # type: ignore[arg-type]
    images = min(size * trainer.num_training_batches, there)
    step = min(size * accumulated, images)
    rest = images % step if step < images < math.inf else 0
    last = f" (the last of an epoch: {rest * trainer.world_size:,})" if rest else ""
    return min(size, images), f"{step * trainer.world_size:,} images{last}"
