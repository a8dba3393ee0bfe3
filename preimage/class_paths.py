"""What a configuration may have called: classes, and functions that say that they return a network or the like."""

import inspect
import pydoc
import sys
from typing import Any, get_type_hints

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.utils.data import Dataset

#: What functions may return; an optimiser or a schedule is made later, by a function that is given by its name alone.
KINDS = (nn.Module, LightningDataModule, Dataset, Callback, Logger)


def check_class_paths(config: Any, path: str = "") -> None:
    """Looks at everything that is to be called, before anything is.

    jsonargparse compares classes with the types of their arguments, but calls any function that takes the place of a
    class in an argument of a callable type, and any class where an argument has no type.

    Args:
        config: A parsed configuration, or a part of one.
        path: Where the part is, for the message.

    Raises:
        ValueError: A class path names a function that does not say that it returns one of `KINDS`, or a class of
            Python's own.
    """
    if isinstance(config, Namespace | dict):
        entries = vars(config) if isinstance(config, Namespace) else config
        class_path = entries.get("class_path")
        if isinstance(class_path, str) and not _may_be_called(pydoc.locate(class_path)):
            kinds = ", ".join(kind.__name__ for kind in KINDS)
            raise ValueError(
                f"{path.replace('.init_args', '')}: {class_path} is not called: with init_args give a class, or a"
                f" function that is annotated to return one of {kinds}"
            )
        for key, value in entries.items():
            check_class_paths(value, f"{path}.{key}".lstrip("."))
    elif isinstance(config, list | tuple):
        for index, value in enumerate(config):
            check_class_paths(value, f"{path}.{index}")


def _may_be_called(target: Any) -> bool:
    if inspect.isclass(target):
        return target.__module__.split(".")[0] not in sys.stdlib_module_names
    try:
        returned = get_type_hints(target).get("return")
    except (TypeError, NameError):  # no function, or names that are known to a type checker alone
        returned = None
    return inspect.isclass(returned) and issubclass(returned, KINDS)
