"""Loading of Lightning checkpoints, and of one part of the model in them."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import __version__
from torch import Tensor, nn

from preimage.files import kept_checkpoint
from preimage.retired import renewed

from .networks.weights import check_fit, load_plain

#: The options that arguments of an encoder follow.
_FLAGS = {"image_size": "data.image_size"}


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a Lightning checkpoint on the CPU, memory-mapped and under `weights_only`; it has a `state_dict`.

    Args:
        path: The file, or a run directory, of which it is the best one.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, no checkpoint, or holds more than tensors and plain values.
    """
    path = kept_checkpoint(Path(path)) if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: train it first, or name the file of another run")
    checkpoint = load_plain(path, mmap=True)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise ValueError(f"{path} is no Lightning checkpoint: it has no state_dict")
    for name, value in checkpoint["state_dict"].items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{path} is damaged: {name} is no tensor, but {_shown(value)}")
    for key in ("hyper_parameters", "callbacks", "loops", "provenance", "run_state"):
        if not isinstance(checkpoint.get(key, {}), dict):
            raise ValueError(f"{path} is damaged: its {key} is {_shown(checkpoint[key])}")
    return checkpoint


def renewed_checkpoint(path: str | Path, name: str) -> str | Path | io.BytesIO:
    """A checkpoint whose hyperparameters are those of this version: its path, if they are that already.

    `name` is the class that is to be built, where the checkpoint does not say.
    """
    checkpoint = load_checkpoint(path)
    given = checkpoint.get("hyper_parameters", {})
    class_path, arguments = renewed(given.get("_class_path", name), given)
    if "_class_path" in given:
        arguments["_class_path"] = class_path
    if arguments == given:
        return path
    file = io.BytesIO()
    torch.save(checkpoint | {"hyper_parameters": arguments}, file)
    file.seek(0)
    return file


def join_groups(checkpoint: dict[str, Any]) -> None:
    """Joins the encoder's parameters, which earlier versions held as a group of their own, to those before them."""
    for state in checkpoint.get("optimizer_states", ()):
        first, *others = state["param_groups"]
        if others:
            state["param_groups"] = [first | {"params": [p for group in (first, *others) for p in group["params"]]}]
            for schedule in checkpoint["lr_schedulers"]:
                schedule |= {key: value[:1] for key, value in schedule.items() if isinstance(value, list)}


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"


def check_start(path: str | Path, model: nn.Module, loop: str, fresh: Mapping[str, Any]) -> None:
    """Looks, before anything is written, for what Lightning takes from a checkpoint, and whether it is of the model.

    Args:
        path: The `.ckpt` file.
        model: The model that is to take the weights.
        loop: Name of the loop that is to take its state; `fit_loop` goes on, for which weights are not enough.
        fresh: State of that loop before its start.

    Raises:
        ValueError: Something is missing, damaged, or of another model; the file and the culprit are named.
    """
    checkpoint = load_checkpoint(path)
    check_fit(model.state_dict(), checkpoint["state_dict"], str(path))
    kinds: dict[str, Any] = {"pytorch-lightning_version": str}
    if loop == "fit_loop":
        kinds |= {"epoch": int, "global_step": int, "loops": dict, "optimizer_states": list, "lr_schedulers": list}
    for key, kind in kinds.items():
        value = checkpoint.get(key)
        if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and value < 0):
            found = f"its {key} is {_shown(value)}" if key in checkpoint else f"it has no {key}"
            raise ValueError(f"{path} is refused: {found}, where a checkpoint of a training has {kind.__name__}")
    if loop == "fit_loop":
        _check_optimizers(path, checkpoint, getattr(model, "make_scheduler", None) is not None)
    # Another version of Lightning brings its state into the form of this one.
    if "loops" in checkpoint and checkpoint["pytorch-lightning_version"] == __version__:
        _check_form(path, f"loops.{loop}", checkpoint["loops"].get(loop), fresh)


def _check_optimizers(path: str | Path, checkpoint: Mapping[str, Any], scheduled: bool) -> None:
    states = checkpoint["optimizer_states"]
    for state in states:
        groups = state.get("param_groups") if isinstance(state, dict) else None
        if not isinstance(groups, list) or not groups or not all(isinstance(group, dict) for group in groups):
            raise ValueError(f"{path} is refused: its optimizer_states hold {_shown(state)}, and no param_groups")
        # Without momentum, SGD has no state.
        kept = any(group.get("momentum") or "betas" in group for group in groups)
        if kept and checkpoint["global_step"] and not isinstance(state.get("state"), dict | None):
            raise ValueError(f"{path} is damaged: the state of its optimizer is {_shown(state['state'])}")
        if kept and checkpoint["global_step"] and not state.get("state"):
            raise ValueError(
                f"{path} is refused: the state of its optimizer is empty after step {checkpoint['global_step']}"
            )
    for key, wanted in (("optimizer_states", True), ("lr_schedulers", scheduled)):
        if wanted and not checkpoint[key]:
            raise ValueError(f"{path} is refused: its {key} are empty, so that a training cannot go on from it")


def _check_form(path: str | Path, name: str, found: Any, fresh: Any) -> None:
    """Compares nested dictionaries of counts with those of a fresh loop."""
    if isinstance(fresh, dict):
        if not isinstance(found, dict):
            raise ValueError(f"{path} is damaged: its {name} is {_shown(found)}")
        for key, value in fresh.items():
            _check_form(path, f"{name}.{key}", found.get(key), value)
    elif isinstance(fresh, int) and not isinstance(found, int):
        raise ValueError(f"{path} is damaged: its {name} is {_shown(found)}")


def load_part(module: nn.Module, path: str | Path, name: str, built: Any = None) -> None:
    """Fills a module with one part of a run's model, by its name there, for example `encoder`.

    Args:
        module: The module.
        path: The `.ckpt` file.
        name: Name of the part.
        built: Class path and arguments of the module, if they are known, for the message where it does not fit.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: It cannot be read, or does not fit the module.
    """
    prefix = f"{name}."
    checkpoint = load_checkpoint(path)
    weights = checkpoint["state_dict"]
    part = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    try:
        check_fit(module.state_dict(), part, f"the {name} in {path}")
    except ValueError as error:
        there, here = (_arguments(source) for source in (checkpoint.get("hyper_parameters", {}).get(name), built))
        other = [key for key in there if key in here and there[key] != here[key]]
        if not other:
            raise
        trained, wanted = (", ".join(f"{key}={source[key]}" for key in other) for source in (there, here))
        mend = " ".join(f"--{_FLAGS.get(key, f'model.{name}.{key}')} {there[key]}" for key in other)
        raise ValueError(f"{error}: it was trained with {trained}, and here is {wanted}; give {mend}") from error
    module.load_state_dict(part)


def _arguments(built: Any) -> dict[str, Any]:
    arguments = built.get("init_args") if isinstance(built, dict) else None
    return arguments if isinstance(arguments, dict) else {}
