"""Every private name of other packages that this project relies on; a test says which of them a newer version lacks.

Seen in lightning 2.6.6, torch 2.15, torchmetrics 1.9, jsonargparse 4.53 and wandb 0.31.
"""

from __future__ import annotations

from argparse import Action, ArgumentParser
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

#: Methods with their arguments, and properties with None, that classes of ours call on themselves or override.
METHODS: dict[str, dict[str, str | None]] = {
    "lightning.pytorch.cli.LightningCLI": {
        "_get": "self config key default",
        "_parser": "self subcommand",
        "_prepare_subcommand_parser": "self klass subcommand kwargs",
        "_parse_ckpt_path": "self",
        "_instantiate_trainer": "self config callbacks",
        "_run_subcommand": "self subcommand",
    },
    "lightning.pytorch.callbacks.ModelCheckpoint": {
        "_legacy_state_key": None,
        "_get_metric_interpolated_filepath_name": "self monitor_candidates trainer del_filepath",
        "_save_topk_checkpoint": "self trainer monitor_candidates",
        "_save_checkpoint": "self trainer filepath",
        "_remove_checkpoint": "self trainer filepath",
    },
    "torch.nn.Module": {"_apply": "self fn recurse"},
    "jsonargparse.DefaultHelpFormatter": {"_expand_help": "self action"},
}
#: Attributes of instances that classes of ours read or set on themselves.
ATTRIBUTES = {
    "lightning.pytorch.callbacks.WeightAveraging": (
        "_kwargs",
        "_average_model",
        "_device",
        "_latest_update_step",
        "_latest_update_epoch",
    ),
    "lightning.pytorch.callbacks.BatchSizeFinder": ("_batch_arg_name",),
    "lightning.pytorch.loggers.WandbLogger": ("_experiment", "_wandb_init"),
}

#: What batch norms of every number of dimensions are.
BatchNorm = _BatchNorm
#: The attribute of a metric that counts its updates; what reads it, `update_count`, cannot be set.
UPDATE_COUNT = "_update_count"


def trainer_of(module: LightningModule) -> Trainer | None:
    """The trainer of a module, or None: to ask `trainer` of a module without one raises."""
    return module._trainer


def can_stop_early(trainer: Trainer) -> bool:
    """Whether as many epochs and steps are made as are asked for at the least: before, nothing stops a training."""
    return trainer.fit_loop._can_stop_early


def restore_loaders(trainer: Trainer) -> None:
    """Takes up the loaders' states: Lightning leaves it out where a schedule has asked for the loader before."""
    trainer.fit_loop._load_combined_loader_states()


def validates_next(trainer: Trainer) -> bool:
    """Whether a validation follows this step; only the loop can tell."""
    loop = trainer.fit_loop
    return loop._data_fetcher is not None and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def cluster_environment(trainer: Trainer) -> Any:
    """What has started the processes: a strategy of a single device does not say it."""
    return trainer._accelerator_connector.cluster_environment


def requeue_from(trainer: Trainer, path: str) -> None:
    """Has Lightning's handler of SLURM's signal save to this file: its own would be shared by all runs."""
    connector: Any = trainer._checkpoint_connector
    connector.hpc_save_path = lambda folder: path


def has_instructions(dtype: torch.dtype) -> bool:
    """Whether the CPU computes in a type of half precision by itself, and torch has it do so.

    Args:
        dtype: `torch.bfloat16` or `torch.float16`.
    """
    if not torch.backends.mkldnn.is_available():
        return False  # torch's own kernels convert number by number
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    # With any AVX-512, torch leaves it to oneDNN, which without AVX512_BF16 is slower than in float32.
    emulated = torch.cpu._is_avx512_supported() and not torch.cpu._is_avx512_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and not emulated


def is_compiled(module: nn.Module) -> bool:
    """Whether `module.compile` was called: a second call would compile anew."""
    return module._compiled_call_impl is not None


def has_pre_hook(module: nn.Module, hook: Callable[..., Any]) -> bool:
    """Whether the function is called before the module's forward; a second registration would call it twice."""
    return hook in module._forward_pre_hooks.values()


def typed_actions(parser: ArgumentParser) -> list[Any]:
    """The arguments of a parser that have a type."""
    return [action for action in parser._actions if hasattr(action, "_typehint")]


def type_of(action: Any) -> Any:
    """The type of an argument."""
    return action._typehint


def set_type(action: Any, typehint: Any) -> None:
    """Changes the type of an argument: a class that is not ours can be annotated no better."""
    action._typehint = typehint


def wrap_check(action: Action, wrapper: Callable[..., Any]) -> None:
    """Has `wrapper(check, value, append, cfg, mode)` check the values of an argument."""
    action._check_type = partial(wrapper, action._check_type)  # type: ignore[attr-defined]


def guard_publishing(run: Any, attempt: Callable[..., Any]) -> None:
    """Has `attempt(publish, record)` send what a run of W&B sends: imports and `config` do so without the logger."""
    interface = getattr(run, "_interface", None)
    if interface is not None and "_publish" not in vars(interface):
        interface._publish = partial(attempt, interface._publish)
