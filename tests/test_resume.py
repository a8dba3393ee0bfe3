"""A run that is killed and resumed ends as the run that was not, bit for bit."""

import multiprocessing
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer

from preimage.__main__ import main
from preimage.cli import PreimageCLI
from tests.conftest import ROOT

STEPS = 12  # per epoch
EPOCHS = 3
FLAGS = ["--config", str(ROOT / "configs/quickstart.yaml"), "--trainer.accelerator", "cpu"]
FLAGS += [
    "--trainer.enable_model_summary",
    "false",
    "--data.val_size",
    "64",
    "--last_checkpoint.every_n_steps",
    "5",
    "--curves=null",
]
FLAGS += ["--trainer.limit_train_batches", str(STEPS), "--trainer.max_epochs", str(EPOCHS)]
FLAGS += ["--trainer.callbacks", "null", "--trainer.callbacks+=tests.test_resume.Dice"]
FLAGS += ["--trainer.callbacks+=GradientNorms", "--trainer.log_every_n_steps", "4"]
VAE = ["--model", "VAE", "--model.encoder", "MNISTGaussianEncoder", "--model.encoder.latent_dim", "3"]
VAE += ["--model.decoder", "MNISTDecoder", "--model.decoder.latent_dim", "3", "--model.latent_dim", "3"]
VAE += ["--model.warmup_epochs", "3", "--data.augmentations", "[{class_path: PerImageAffine}]"]
TWO_ERRORS = [
    "--model",
    "ClassifierReconstructor",
    "--model.encoder",
    "MNISTEncoder",
    "--model.encoder.latent_dim",
    "3",
]
TWO_ERRORS += ["--model.decoder", "MNISTDecoder", "--model.decoder.latent_dim", "3", "--model.latent_dim", "3"]
TWO_ERRORS += ["--model.num_classes", "10"]
SEMI = [
    "--model",
    "SemiSupervisedClassifier",
    "--model.encoder",
    "MNISTEncoder",
    "--model.head",
    "MLPHead",
    "--data.num_labels",
    "100",
]
SEMI += ["--data.keep_unlabeled", "true", "--model.auxiliary_decoder", "MNISTDecoder"]
SEMI += ["--model.vat", "VirtualAdversarialTraining", "--model.vat.epsilon", "2.0"]
PLATEAU = ["--model.scheduler", "lightning.pytorch.cli.ReduceLROnPlateau", "--model.scheduler.monitor", "val/loss"]
PLATEAU += ["--model.scheduler.patience", "0", "--model.scheduler.threshold", "0.5"]
BOTH_TERMS = ["--model", "Inversion", "--model.encoder", "MNISTEncoder", "--model.decoder", "MNISTDecoder"]
BOTH_TERMS += [
    "--model.encoder_checkpoint",
    "null",
    "--model.perceptual",
    "LPIPS",
    "--model.perceptual.weights",
    "random",
]
BOTH_TERMS += ["--model.adversarial", "PatchDiscriminator", "--model.adversarial.width", "0.25"]
VIEWS = ["--model", "SelfSupervised", "--model.encoder", "MNISTEncoder", "--model.num_classes", "10"]
VIEWS += ["--model.method", "DINO", "--model.view", "[{class_path: PerImageAffine}]"]
MASKED = ["--model", "MaskedAutoencoder", "--model.encoder", "MNISTEncoder", "--model.decoder", "MNISTDecoder"]
MAX_STEPS = ["--trainer.max_steps", str(STEPS * EPOCHS - 5)]
TWO = ["--model.quantizer", "FSQ", "--trainer.devices", "2", "--trainer.strategy", "ddp_fork"]
KILLED = (-signal.SIGKILL, 1)  # 1 where a process has lost one that it started


class Dice(Callback):
    """Logs a draw of each kind of random number at every third step, so that `metrics.csv` tells their states."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        draws = {"python": random.random(), "numpy": np.random.rand(), "torch": torch.rand(()).item()}
        if trainer.global_step % 3 == 0:
            trainer.logger.log_metrics(draws, trainer.global_step)  # type: ignore[union-attr]


class Killer(Callback):
    """Kills its process with signal 9 when it has passed a hook for the n-th time."""

    def __init__(self, hook: str, count: int) -> None:
        self.left = count
        setattr(self, hook, self._count)

    def _count(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.left -= not trainer.sanity_checking
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def fit(folder: Path, *flags: str, killer: Callback | None = None, resume: bool = False) -> int:
    """Runs `fit` in a forked process, which needs no imports, and returns its exit code."""

    def child() -> None:
        sys.argv = ["preimage"]
        torch.set_num_threads(1)
        if killer is not None:
            instantiate = PreimageCLI.instantiate_trainer

            def with_killer(self: PreimageCLI, **kwargs: Any) -> Trainer:
                trainer = instantiate(self, **kwargs)
                trainer.callbacks.append(killer)  # type: ignore[attr-defined]
                return trainer

            PreimageCLI.instantiate_trainer = with_killer  # type: ignore[method-assign]
        root = ["--trainer.default_root_dir", str(folder)]
        main(["fit", *FLAGS, *flags, *root, *(["--ckpt_path", "last"] if resume else []), "--debug"])

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(600)
    assert process.exitcode is not None
    return process.exitcode


def same(first: Any, second: Any) -> bool:
    """Whether two states are equal bit for bit; paths may lie in different folders."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, torch.Tensor):
        return bool(torch.equal(first, second))
    if isinstance(first, str) and "checkpoints" in first:
        return Path(first).name == Path(second).name
    return bool(first == second)


def check_same(whole: Path, resumed: Path) -> None:
    assert [path.name for path in resumed.parent.iterdir()] == [resumed.name]
    assert (resumed / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    for name in ("last", "best"):
        first, second = (torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True) for run in (whole, resumed))
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "run_state", "global_step", "epoch"):
            assert same(first[key], second[key]), f"{name}.ckpt: {key}"
        for key, state in first["callbacks"].items():
            for part in state.keys() & {"best_model_score", "best_model_path", "kth_value"}:
                assert same(state[part], second["callbacks"][key][part]), f"{name}.ckpt: {key} {part}"


@pytest.mark.parametrize(
    "flags",
    [
        VAE + PLATEAU,
        TWO,
        *(
            pytest.param(flags, marks=pytest.mark.slow)
            for flags in (MAX_STEPS, TWO_ERRORS, SEMI, BOTH_TERMS + TWO, VIEWS, MASKED)
        ),
    ],
)
def test_a_killed_run_ends_like_one_that_was_not(tmp_path: Path, flags: list[str]) -> None:
    assert fit(tmp_path / "whole", *flags) == 0
    resumed = tmp_path / "resumed"
    hooks = {"on_train_batch_end": STEPS, "on_before_optimizer_step": STEPS, "on_validation_start": 1}
    generator = random.Random(str(flags))
    for attempt in range(3):
        hook = generator.choice(list(hooks))
        count = generator.randint(6 if attempt == 0 else 1, STEPS) * hooks[hook] // STEPS + 1
        assert fit(resumed, *flags, killer=Killer(hook, count), resume=attempt > 0) in KILLED
    assert fit(resumed, *flags, resume=True) == 0
    name = "quickstart/version_0"
    check_same(tmp_path / "whole" / name, resumed / name)


@pytest.mark.slow
def test_twenty_kills_at_random_times_lose_nothing(tmp_path: Path) -> None:
    flags = [*VAE, *PLATEAU, "--trainer.max_epochs", "30"]
    whole, resumed = (tmp_path / name / "quickstart/version_0" for name in ("whole", "resumed"))
    assert fit(tmp_path / "whole", *flags) == 0
    generator = random.Random(0)
    for _ in range(20):
        hook = generator.choice(["on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end"])
        resume = (resumed / "checkpoints/last.ckpt").exists()
        killer = Killer(hook, generator.randint(6, STEPS + 6))
        assert fit(tmp_path / "resumed", *flags, killer=killer, resume=resume) == -signal.SIGKILL
    assert fit(tmp_path / "resumed", *flags, resume=True) == 0
    check_same(whole, resumed)
