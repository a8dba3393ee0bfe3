"""The processes of one run: whether all are there, and what they agree on before they have a process group."""

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

_TOLD = "PREIMAGE_RUN"


def agree(choose: Callable[[], Any], num_nodes: int, held: ExitStack) -> tuple[Any, bool]:
    """Lets the first process of a run choose, and tells the others.

    Those that Lightning starts read it in their environment, and those that torchrun, SLURM or a user has started at
    the address where they are to meet anyway.

    Args:
        choose: Makes the choice, of plain values.
        num_nodes: `trainer.num_nodes`.
        held: What ends with the command.

    Returns:
        The choice, and whether this process made it.

    Raises:
        ValueError: The first process could not choose.
    """
    told = os.environ.pop(_TOLD, None)
    if told is not None and int(os.environ.get("LOCAL_RANK", 0)):
        return json.loads(told), False
    if torch.distributed.is_available() and torch.distributed.is_initialized():  # by an earlier run of these processes
        first = torch.distributed.get_rank() == 0

        def exchange(text: str) -> str:
            texts = [text]
            torch.distributed.broadcast_object_list(texts)
            return texts[0]
    else:
        environment, rank, size = _meeting(num_nodes)
        first = rank == 0

        def exchange(text: str) -> str:
            return _exchange(environment, rank, size, text, held) if size > 1 else text

    error, answer = None, {}
    if first:
        try:
            answer = {"choice": choose()}
        except Exception as failure:
            error, answer = failure, {"error": str(failure)}
    answer = json.loads(exchange(json.dumps(answer)))
    if "error" in answer:
        raise error or ValueError(answer["error"])
    os.environ[_TOLD] = json.dumps(answer["choice"])  # for the processes that Lightning starts from this one
    held.callback(os.environ.pop, _TOLD, None)
    return answer["choice"], first


def _meeting(num_nodes: int) -> tuple[ClusterEnvironment, int, int]:
    """Who has started the processes, as Lightning finds it out, and which one of how many this is.

    Lightning itself starts the processes of each of `trainer.num_nodes` nodes from its first.
    """
    for kind in (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment):
        if kind.detect():
            started: ClusterEnvironment = kind()
            return started, started.global_rank(), started.world_size()
    environment = LightningEnvironment()
    if "LOCAL_RANK" in os.environ:  # each process was started by hand
        size = int(os.environ.get("WORLD_SIZE", 1))
        rank = environment.node_rank() * (size // num_nodes) + environment.local_rank()
        return environment, rank if size > 1 else 0, size
    return environment, environment.node_rank(), num_nodes


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
    there = max(trainer.world_size, _meeting(trainer.num_nodes)[2])
    wanted = trainer.num_devices * trainer.num_nodes
    if there != wanted:
        raise ValueError(
            f"{there} processes were started for trainer.devices x trainer.num_nodes ="
            f" {trainer.num_devices} x {trainer.num_nodes}: a part of the data would be left out in silence; start"
            f" {wanted} (SLURM: --ntasks-per-node={trainer.num_devices} --nodes={trainer.num_nodes}), or change the two"
        )


def _exchange(environment: ClusterEnvironment, rank: int, size: int, text: str, held: ExitStack) -> str:
    store, _, _ = next(
        torch.distributed.rendezvous(f"tcp://{environment.main_address}:{environment.main_port}", rank, size)
    )
    held.callback(lambda: store)  # kept for the process group, which is to be served at the same port
    key = f"preimage/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    if rank == 0:
        store.set(key, text)
        store.wait([f"{key}/{other}" for other in range(1, size)])  # the first may end at once, and the store with it
        return text
    text = store.get(key).decode()
    store.set(f"{key}/{rank}", "read")
    return text
