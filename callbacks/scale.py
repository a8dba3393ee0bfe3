"""What a training amounts to on several processes: how many there are, and what a step takes."""

import math
import os
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from preimage.processes import meeting


class EffectiveBatch(Callback):
    """Says at the start of a training how many images a step takes, the learning rates, and the number of steps.

    Nothing is scaled with the number of processes: who adds some may want to raise the learning rate.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the line, from rank 0."""
        processes = trainer.world_size
        accumulated = min(trainer.accumulate_grad_batches, trainer.num_training_batches)  # an epoch's end is a step's
        size, whole = _images_of_a_step(trainer, accumulated)
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        rates = dict.fromkeys(f"{group.get('initial_lr', group['lr']):g}" for group in groups)
        schedules = dict.fromkeys(type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs)
        epochs = f" in {trainer.max_epochs} epochs" if (trainer.max_epochs or -1) > 0 else ""
        rank_zero_info(
            f"a step: batch of {size} x {processes} processes x {accumulated} accumulated = {whole},"
            f" learning rate {', '.join(rates)} ({', '.join(schedules) or 'constant'}), neither scaled by the other;"
            f" {trainer.estimated_stepping_batches:,} steps{epochs}"
        )


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


def check_slurm() -> None:
    """Looks, before a trainer is made, for a process that SLURM has not started, which would wait for the others.

    Raises:
        ValueError: SLURM is to start several processes, and this is none of them.
    """
    tasks = int(os.environ.get("SLURM_NTASKS", 1))
    if tasks < 2 or SLURMEnvironment.job_name() in ("bash", "interactive"):
        return
    cure = "start it by srun, or unset SLURM_NTASKS for a run of one process"
    if "SLURM_PROCID" not in os.environ:
        raise ValueError(f"SLURM_NTASKS={tasks}, and this process was not started by srun (no SLURM_PROCID): {cure}")
    if "SLURM_STEP_ID" not in os.environ:
        rank_zero_warn(
            f"SLURM_NTASKS={tasks}, and this process was not started by srun (no SLURM_STEP_ID): it may wait for the"
            f" {tasks - 1} others for ever; {cure}"
        )


def check_processes(trainer: Trainer) -> None:
    """Compares the processes that there are with those that were asked for, before a training on part of the data.

    Raises:
        ValueError: The numbers differ.
    """
    # Of several that are told to use one device each, none knows of the others.
    there = max(trainer.world_size, meeting(trainer.num_nodes)[2])
    wanted = trainer.num_devices * trainer.num_nodes
    if there != wanted:
        raise ValueError(
            f"{there} processes were started for trainer.devices x trainer.num_nodes ="
            f" {trainer.num_devices} x {trainer.num_nodes}: a part of the data would be left out in silence; start"
            f" {wanted} (SLURM: --ntasks-per-node={trainer.num_devices} --nodes={trainer.num_nodes}), or change the two"
        )
