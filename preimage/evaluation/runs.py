"""The model and data that the `config.yaml` of a run rebuilds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError
from lightning.pytorch import LightningDataModule, LightningModule

from datamodules import InMemoryDataModule
from lightning_modules.base import EncoderModule
from lightning_modules.checkpoints import load_checkpoint
from preimage.configs import check_class_paths
from preimage.files import read_plain
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
    folder = path if path.is_dir() else path.parent.parent
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{folder} is no run directory: it has no config.yaml")
    run = Run(folder, None if path.is_dir() else path)
    if not run.kept.is_file():
        raise FileNotFoundError(f"no checkpoint in {folder / 'checkpoints'}: train the run first")
    read_plain(folder / "config.yaml")  # says what is wrong with it
    try:
        _ = run.config["model"]["class_path"], run.config["data"]["class_path"]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{folder / 'config.yaml'} does not say what model and data the run has") from error
    return run


def load_model(run: Run) -> EncoderModule:
    """The model of a run with the weights of its checkpoint, in eval mode on the CPU.

    Raises:
        ValueError: The configuration builds no model of this project, or one that the checkpoint does not fit.
    """
    model: EncoderModule = _instantiate(run.folder, EncoderModule, "model", run.config["model"])
    checkpoint = load_checkpoint(run.kept)
    try:
        model.on_load_checkpoint(checkpoint)
    except ValueError as error:
        raise ValueError(f"{run.kept} does not fit {run.folder / 'config.yaml'}: {error}") from error
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()


def load_data(folder: Path, flags: Sequence[str] = (), ready: bool = True) -> InMemoryDataModule:
    """The data module of a run.

    Args:
        folder: The run directory.
        flags: What to change, for example `--data.root=DIR`.
        ready: Look for its images and read them.
    """
    config = read_plain(folder / "config.yaml")["data"]
    # All labels, however few the run had: else the readers of two runs could not be compared.
    (config.get("init_args") or {}).pop("num_labels", None)
    data: InMemoryDataModule = _instantiate(folder, InMemoryDataModule, "data", config, flags)
    if ready:
        data.prepare_data()
        data.setup("test")
    return data


def _instantiate(
    folder: Path,
    base: type[LightningModule | LightningDataModule],
    key: str,
    config: dict[str, Any],
    flags: Sequence[str] = (),
) -> Any:
    parser = OneLineErrorParser(exit_on_error=False)
    parser.add_subclass_arguments(base, key)
    try:
        parsed = parser.parse_args([f"--{key}={json.dumps(config)}", *flags])
    except ArgumentError as error:
        raise ValueError(f"{folder / 'config.yaml'}: {condense(str(error))}") from error
    check_class_paths(parsed)
    with torch.random.fork_rng():
        return getattr(parser.instantiate(parsed), key)
