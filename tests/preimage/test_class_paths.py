"""A configuration names what is built of it; nothing that builds no part of a training is called."""

import json
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentError

from lightning_modules import Autoencoder
from tests.conftest import QUICK, Fails, Run

OWN = """
import pathlib
from collections.abc import Callable
import torch
from torch import nn
def adam(params, lr: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=lr)
def step(optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.StepLR(optimizer, 1)
def network(latent_dim: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, latent_dim))
def write(path: str):
    pathlib.Path(path).write_text("")
def write_number(path: str) -> int:
    pathlib.Path(path).write_text("")
class Network(nn.Sequential):
    def __init__(self, activation: Callable = nn.ReLU, norm: Callable[..., nn.Module] = nn.Identity, anything=None):
        super().__init__(nn.Flatten(), nn.Linear(784, 12))
"""
EXECUTE = '{"class_path": "os.system", "init_args": {"command": "touch executed"}}'
POPEN = '{"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "executed"]}}'
WRITE = '{"class_path": "own_calls.write", "init_args": {"path": "executed"}}'
NUMBER = '{"class_path": "own_calls.write_number", "init_args": {"path": "executed"}}'
MORE = '{"class_path": "own_calls.Network", "dict_kwargs": {"more": %s}}'
NESTED = '{"class_path": "own_calls.Network", "init_args": {"%s": %s}}'
LAMBDA = '[{"class_path": "LambdaCallback", "init_args": {"on_fit_start": %s}}]'
TRANSFORM = '[{"class_path": "torchvision.transforms.v2.Lambda", "init_args": {"lambd": %s}}]'
REFUSED = [
    *(("model.optimizer", value) for value in (EXECUTE, POPEN, WRITE, NUMBER, "os.system", "own_calls.write")),
    *(("model.scheduler", value) for value in (EXECUTE, POPEN, WRITE, "torch.optim.Adam")),
    *(("model.encoder", value) for value in (EXECUTE, POPEN, WRITE)),
    *(("model.encoder", NESTED % (key, WRITE)) for key in ("activation", "norm", "anything")),
    ("model.encoder", NESTED % ("anything", EXECUTE)),
    ("model.encoder", NESTED % ("anything", POPEN)),
    ("model.encoder", MORE % WRITE),
    ("model.optimizer", '{"class_path": "torch.os.system", "init_args": {"command": "touch executed"}}'),
    ("model.optimizer", '{"class_path": "builtins.eval", "init_args": {"source": "1"}}'),
    ("model.optimizer", '{"class_path": "functools.partial", "init_args": {"func": "own_calls.write"}}'),
    ("model.optimizer", '{"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "a/b", "model": "c"}}'),
    ("data.augmentations", f"[{WRITE}]"),
    ("data.augmentations", TRANSFORM % WRITE),
    ("trainer.callbacks", f"[{WRITE}]"),
    ("trainer.callbacks", LAMBDA % WRITE),
    ("trainer.logger", f"[{WRITE}]"),
    ("trainer.plugins", f"[{WRITE}]"),
    ("trainer.strategy", WRITE),
    ("trainer.profiler", WRITE),
]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_calls.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_nothing_else_is_called(own: None, fails: Fails, key: str, value: str) -> None:
    fails("fit", *QUICK, f"--{key}={value}", code=1 if key in ("trainer.strategy", "trainer.profiler") else 2)
    assert not Path("executed").exists()


def test_the_message_says_what_may_be_given(own: None, fails: Fails) -> None:
    line = fails("fit", *QUICK, f"--model.optimizer={WRITE}", code=2)
    assert "model.optimizer: own_calls.write is not called: with init_args give a class, or a function" in line
    assert "os.system is refused, since it could run or overwrite anything" in fails(
        "fit", *QUICK, f"--model.encoder={EXECUTE}", code=2
    )


def test_a_checkpoint_calls_nothing_either(own: None, run: Run) -> None:
    path = run("fit", *QUICK, "--trainer.callbacks=[]") / "quickstart/version_0/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["optimizer"] = json.loads(EXECUTE)
    torch.save(checkpoint, path)
    with pytest.raises((SystemExit, ValueError, ArgumentError)):
        Autoencoder.load_from_checkpoint(path, weights_only=True)
    assert not Path("executed").exists()


ALLOWED = [
    ("model.optimizer", "own_calls.adam"),
    ("model.scheduler", "own_calls.step"),
    ("model.encoder", "own_calls.network"),
    ("model.encoder", '{"class_path": "own_calls.network", "init_args": {"latent_dim": 12}}'),
    ("model.encoder", NESTED % ("activation", '{"class_path": "torch.nn.GELU"}')),
    ("model.encoder", NESTED % ("activation", '"torch.relu"')),
    ("model.encoder", NESTED % ("norm", '{"class_path": "torch.nn.BatchNorm2d", "init_args": {"eps": 0.1}}')),
    ("model.encoder", NESTED % ("anything", '{"class_path": "torch.nn.ReLU"}')),
]


@pytest.mark.parametrize(("key", "value"), ALLOWED)
def test_networks_and_functions_of_ones_own_are(own: None, run: Run, key: str, value: str) -> None:
    run("fit", *QUICK, "--trainer.fast_dev_run=true", f"--{key}={value}")
