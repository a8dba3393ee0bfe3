"""Runs that are there: their models and data; and runs that are to be there, which several processes may share."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from jsonargparse import ArgumentError
from lightning.pytorch import LightningDataModule, LightningModule

from datamodules import InMemoryDataModule
from lightning_modules.base import EncoderModule
from lightning_modules.checkpoints import load_checkpoint
from preimage.configs import chain, check_class_paths
from preimage.files import read_metrics, read_plain
from preimage.locks import Busy
from preimage.parsing import OneLineErrorParser, condense
from preimage.runs import Run


def default_device() -> torch.device:
    """The GPU, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def find_run(path: str | Path) -> Run:
    """Finds a run by its directory, of which it takes the best checkpoint, or by one of its checkpoints.

    Raises:
        FileNotFoundError: There is no such run, or it lacks its configuration or a checkpoint.
        ValueError: The configuration cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no run at {path}: give a run directory or a checkpoint inside one")
    run = Run(path) if path.is_dir() else Run(path.parent.parent, path)
    config = run.folder / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(f"{run.folder} is no run directory: it has no config.yaml")
    if not run.kept.is_file():
        raise FileNotFoundError(f"no checkpoint in {run.folder / 'checkpoints'}: train the run first")
    read_plain(config)  # says what is wrong with it
    try:
        _ = run.config["model"]["class_path"], run.config["data"]["class_path"]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{config} does not say what model and data the run has") from error
    return run


def load_model(run: Run) -> EncoderModule:
    """The model of a run with the weights of its checkpoint, in eval mode on the CPU.

    Args:
        run: The run; where it has no configuration, the checkpoint alone says what the model is.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: The configuration builds no model of this project, or one that the checkpoint does not fit.
    """
    checkpoint = load_checkpoint(run.kept)
    if "model" not in run.config:
        alone: Any = LightningModule.load_from_checkpoint(run.kept, map_location="cpu", weights_only=True)
        return cast(EncoderModule, alone.eval())
    model: EncoderModule = _instantiate(run.folder / "config.yaml", EncoderModule, "model", [run.config["model"]])
    try:
        model.on_load_checkpoint(checkpoint)
    except ValueError as error:
        raise ValueError(f"{run.kept} does not fit {run.folder / 'config.yaml'}: {error}") from error
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()


def load_data(run: Run, flags: Sequence[str] = (), ready: bool = True) -> InMemoryDataModule:
    """The data module of a run, with all labels, however few the run had: probes of two runs are to be comparable.

    Args:
        run: The run.
        flags: What to change, for example `--data.root=DIR`.
        ready: Look for its images and read them.
    """
    return _data([run.config], flags, run.folder / "config.yaml", ready)


def read_data(configs: Sequence[str], flags: Sequence[str]) -> InMemoryDataModule:
    """The data module of an experiment that is no run yet, with all labels.

    Args:
        configs: Its configs; later ones win.
        flags: What to change, for example `--data.root=DIR`.
    """
    return _data(read_configs(configs), flags, Path(configs[-1]), ready=True)


def read_configs(configs: Sequence[str]) -> list[dict[str, Any]]:
    """The content of configs, each behind those that it varies."""
    return [read_plain(path) or {} for name in configs for path in chain(Path(name))]


def _data(configs: Sequence[dict[str, Any]], flags: Sequence[str], where: Path, ready: bool) -> InMemoryDataModule:
    parts = []
    for config in configs:
        if part := config.get("data"):
            parts.append(part | {"init_args": {**(part.get("init_args") or {})}})
            parts[-1]["init_args"].pop("num_labels", None)
    data: InMemoryDataModule = _instantiate(where, InMemoryDataModule, "data", parts, flags)
    if ready:
        data.prepare_data()
        data.setup("test")
    return data


def _instantiate(
    where: Path,
    base: type[LightningModule | LightningDataModule],
    key: str,
    configs: Sequence[dict[str, Any]],
    flags: Sequence[str] = (),
) -> Any:
    parser = OneLineErrorParser(exit_on_error=False)
    parser.add_subclass_arguments(base, key)
    try:
        parsed = parser.parse_args([*(f"--{key}={json.dumps(config)}" for config in configs), *flags])
    except ArgumentError as error:
        raise ValueError(f"{where}: {condense(str(error))}") from error
    check_class_paths(parsed)
    with torch.random.fork_rng():
        return getattr(parser.instantiate(parsed), key)


@contextmanager
def left_to_others(name: str) -> Iterator[None]:
    """Skips what another process is at work on, and says so; `claimed` goes inside, for what this one begins.

    Args:
        name: What is skipped.
    """
    try:
        yield
    except Busy as error:
        print(f"{name}: {error}, left out here; the same command adds it when it is done", flush=True)


def train(folder: Path, *flags: str) -> None:
    """Trains and tests a run, or goes on with one that was interrupted.

    Args:
        folder: The run directory.
        flags: Configuration of the `fit`.

    Raises:
        Busy: Another process is at it.
    """
    from preimage.cli import PreimageCLI  # which takes seconds, and who asks a model does without

    PreimageCLI(["fit", *flags, f"--run_dir={folder}", "--ckpt_path=auto", "--test_after_fit"])


def figures_of(folder: Path) -> dict[str, float]:
    """The last value of every figure that a run has logged.

    Raises:
        FileNotFoundError: It has logged none.
        ValueError: `metrics.csv` is damaged.
    """
    return {key: value for row in read_metrics(folder / "metrics.csv") for key, value in row.items()}
