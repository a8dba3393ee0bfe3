"""Names of other packages that promise nothing: what fails here is the name that a newer version has dropped."""

import inspect
from collections.abc import Callable
from pydoc import locate
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.plugins.environments import ClusterEnvironment
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torchmetrics import MeanMetric
from wandb.sdk.interface.interface_shared import InterfaceShared
from wandb.sdk.wandb_run import Run

from preimage import private_api as api

METHODS = [(owner, name, arguments) for owner, methods in api.METHODS.items() for name, arguments in methods.items()]
ATTRIBUTES = [(owner, name) for owner, names in api.ATTRIBUTES.items() for name in names]


@pytest.mark.parametrize(("owner", "name", "arguments"), METHODS)
def test_methods(owner: str, name: str, arguments: str | None) -> None:
    method = inspect.getattr_static(locate(owner), name)
    if arguments is None:
        assert isinstance(method, property)
    else:
        assert " ".join(inspect.signature(method).parameters) == arguments


@pytest.mark.parametrize(("owner", "name"), ATTRIBUTES)
def test_attributes(owner: str, name: str) -> None:
    made: Any = locate(owner)
    assert name in vars(made())


class Ask(Callback):
    """Asks at every step what can be known of a training alone."""

    def __init__(self) -> None:
        self.can_stop_early: list[bool] = []
        self.validates_next: list[bool] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.can_stop_early.append(api.can_stop_early(trainer))
        self.validates_next.append(api.validates_next(trainer))


@pytest.fixture(scope="module")
def trained() -> tuple[Trainer, Ask]:
    """After two epochs of two steps, each with a validation, of which three steps were asked for at the least."""
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    limits = {"max_epochs": 2, "min_steps": 3, "limit_train_batches": 2, "limit_val_batches": 1}
    ask = Ask()
    trainer = Trainer(accelerator="cpu", callbacks=[ask], **limits, **off)  # type: ignore[arg-type]
    trainer.fit(BoringModel())
    return trainer, ask


def loaders_are_restored(trainer: Trainer, ask: Ask) -> bool:
    loop: Any = trainer.fit_loop
    states = [{"at": 1}]
    loop._restarting, loop._combined_loader, loop._combined_loader_states_to_load = True, Mock(CombinedLoader), states
    api.restore_loaders(trainer)
    return bool(loop._combined_loader._load_state_dicts.call_args.args == (states,))


def a_module_is_compiled(*_: Any) -> bool:
    before, module = nn.Identity(), nn.Identity()
    module.compile()
    return not api.is_compiled(before) and api.is_compiled(module)


def a_hook_is_seen(*_: Any) -> bool:
    module = nn.Identity()
    before = api.has_pre_hook(module, print)
    module.register_forward_pre_hook(print, with_kwargs=True)
    return not before and api.has_pre_hook(module, print)


def a_type_is_changed(*_: Any) -> bool:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--untyped")
    parser.add_argument("--one", type=float | str)
    (action,) = api.typed_actions(parser)
    before = api.type_of(action)
    api.set_type(action, int)
    api.wrap_check(action, lambda check, value, append=False, cfg=None, mode=None: -check(value, append, cfg, mode))
    return before == float | str and repr(parser.parse_args(["--one=1"]).one) == "-1"


CHECKS: dict[str, Callable[[Trainer, Ask], bool]] = {
    "trainer_of": lambda trainer, ask: (
        api.trainer_of(BoringModel()) is None and api.trainer_of(trainer.lightning_module) is trainer
    ),
    "can_stop_early": lambda trainer, ask: ask.can_stop_early == [False, False, True, True],
    "validates_next": lambda trainer, ask: ask.validates_next == [False, True, False, True],
    "restore_loaders": loaders_are_restored,
    "cluster_environment": lambda trainer, ask: isinstance(api.cluster_environment(trainer), ClusterEnvironment),
    "requeue_from": lambda trainer, ask: (
        hasattr(trainer._checkpoint_connector, "hpc_save_path")
        and "trainer._checkpoint_connector.hpc_save_path(" in inspect.getsource(_SignalConnector)
    ),
    "has_instructions": lambda trainer, ask: (
        {type(api.has_instructions(dtype)) for dtype in (torch.bfloat16, torch.float16)} == {bool}
    ),
    "is_compiled": a_module_is_compiled,
    "has_pre_hook": a_hook_is_seen,
    "typed_actions": a_type_is_changed,
    "type_of": a_type_is_changed,
    "set_type": a_type_is_changed,
    "wrap_check": a_type_is_changed,
    "guard_publishing": lambda trainer, ask: (
        "_interface" in Run.__annotations__
        and list(inspect.signature(InterfaceShared._publish).parameters) == ["self", "record", "nowait"]
    ),
}
FUNCTIONS = [name for name, value in vars(api).items() if getattr(value, "__module__", "") == api.__name__]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(trained: tuple[Trainer, Ask], name: str) -> None:
    assert CHECKS[name](*trained)


def test_the_updates_of_a_metric_are_counted_there() -> None:
    metric = MeanMetric()
    setattr(metric, api.UPDATE_COUNT, 7)
    assert metric.update_count == 7
