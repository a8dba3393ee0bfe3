"""What a config may name: another one that it varies, as `base: other.yaml`, and what is to be called."""

import inspect
import pydoc
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.utils.data import Dataset

_BASE = re.compile(r"""^\ufeff?(["']?)base\1[ \t]*:(?!\S)[ \t]*(.*?)[ \t]*((?<!\S)#.*)?$""", re.MULTILINE)
#: What functions may return; an optimiser or a schedule is made later, by a function that is given by its name alone.
_KINDS = (nn.Module, LightningDataModule, Dataset, Callback, Logger)


def with_bases(args: Sequence[str]) -> list[str]:
    """Puts before every config on a command line the configs that it varies.

    Raises:
        ValueError: A config is a variation of itself, or of one that is not there.
    """
    expanded: list[str] = []
    for index, arg in enumerate(args):
        if joined := re.fullmatch(r"(--config=|-c=?)(.+)", arg):
            expanded += [f"--config={path}" for path in chain(Path(joined[2]))]
        elif index and args[index - 1] in ("--config", "-c"):
            expanded[-1:] = [f"--config={path}" for path in chain(Path(arg))]
        else:
            expanded.append(arg)
    return expanded


def with_run(args: Sequence[str]) -> list[str]:
    """Gives a command that asks a run for its figures or codes the config of that run, where it names none itself."""
    split = [(*arg.partition("=")[::2], following) for arg, following in pairwise([*args, ""])]
    runs = [Path(value or following) for name, value, following in split if name == "--ckpt_path"]
    named = any(name == "--model" or re.match("--config$|-c", name) for name, _, _ in split)
    if args[:1] and args[0] in ("validate", "test", "predict") and runs and not named:
        config = (runs[-1] if runs[-1].is_dir() else runs[-1].parent.parent) / "config.yaml"
        if config.is_file():
            return [args[0], f"--config={config}", *args[1:]]
    return list(args)


def chain(path: Path, varied_by: tuple[Path, ...] = ()) -> list[Path]:
    """A config behind the configs that it varies, in the order in which they are read."""
    try:
        named = _BASE.search(path.read_text())
    except (OSError, UnicodeDecodeError):  # the parser says what is wrong with it
        named = None
    if named is None:
        return [path]
    base = path.parent / named[2].strip("\"'")
    if not base.is_file():
        raise ValueError(f"{path}: its base {base} is not there: give the path from the folder of this file")
    varied_by = (*varied_by, path.resolve())
    if base.resolve() in varied_by:
        raise ValueError(f"{path}: its base {base} varies it in turn")
    return [*chain(base, varied_by), path]


def without_base(text: str) -> str:
    """The text of a config without the line that names its base; all others keep their numbers."""
    return _BASE.sub("", text)


def check_class_paths(config: Any, path: str = "") -> None:
    """Looks at everything that is to be called, before anything is.

    jsonargparse compares classes with the types of their arguments, but calls any function that takes the place of a
    class in an argument of a callable type, and any class where an argument has no type.

    Args:
        config: A parsed configuration, or a part of one.
        path: Where the part is, for the message.

    Raises:
        ValueError: A class path names a function that is not annotated to return a part of a training, or a class of
            Python's own.
    """
    if isinstance(config, list | tuple):
        config = {str(index): part for index, part in enumerate(config)}
    if not isinstance(config, Namespace | dict):
        return
    parts = vars(config) if isinstance(config, Namespace) else config
    class_path = parts.get("class_path")
    if isinstance(class_path, str) and not _may_be_called(pydoc.locate(class_path)):
        kinds = ", ".join(kind.__name__ for kind in _KINDS)
        raise ValueError(
            f"{path}: {class_path} is not called: with init_args give a class, or a function that is annotated to"
            f" return one of {kinds}"
        )
    for key, part in parts.items():
        check_class_paths(part, path if key == "init_args" else f"{path}.{key}".lstrip("."))


def _may_be_called(target: Any) -> bool:
    if inspect.isclass(target):
        return target.__module__.split(".")[0] not in sys.stdlib_module_names
    try:
        returned = get_type_hints(target).get("return")
    except (TypeError, NameError):  # no function, or names that are known to a type checker alone
        returned = None
    return inspect.isclass(returned) and issubclass(returned, _KINDS)
