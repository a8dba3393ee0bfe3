"""LightningCLI's parser, which guesses less of what a user means, and whose errors are one line."""

import argparse
import difflib
import re
import types
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import torch
from jsonargparse import DefaultHelpFormatter, Namespace
from lightning.pytorch.cli import LightningArgumentParser

import callbacks
import datamodules
import lightning_modules
from preimage import loggers
from preimage.configs import without_base
from preimage.files import read_plain
from preimage.private_api import set_type, type_of, typed_actions, wrap_check
from preimage.retired import renewed_text
from preimage.trainer_options import FOLLOWERS

_PACKAGES = ("lightning_modules.", "datamodules.", "callbacks.", "preimage.")


class _HelpFormatter(DefaultHelpFormatter):
    """Lists, of the four hundred modules that torch and its kin define, none where there are some of ours."""

    def _expand_help(self, action: argparse.Action) -> str:
        text = super()._expand_help(action)
        listing = re.search(r"known subclasses: ([^)]*)", text)
        ours = [name for name in listing[1].split(", ") if name.startswith(_PACKAGES)] if listing else []
        return text.replace(listing[1], ", ".join(ours)) if listing and ours else text


class OneLineErrorParser(LightningArgumentParser):
    """LightningCLI's parser, whose errors are one line, without ninety lines of usage before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._file: Any = None
        super().__init__(*args, allow_abbrev=False, **{"formatter_class": _HelpFormatter} | kwargs)

    def add_class_arguments(self, theclass: type, *args: Any, **kwargs: Any) -> list[str]:
        """Takes 1 for the integer where both are meant, a list as it stands, and no mode for that of the metric."""
        added: list[str] = super().add_class_arguments(theclass, *args, **kwargs)
        for action in typed_actions(self):
            if action.dest in added:
                set_type(action, _exact_numbers(type_of(action)))
                wrap_check(action, _as_it_stands)
                # Defaults that config.yaml could not hold.
                if isinstance(action.default, torch.device):
                    action.default = str(action.default)
                elif isinstance(action.default, Enum) and type_of(action) is str:
                    action.default = action.default.value
                if action.dest.split(".")[-1] == "mode" and issubclass(theclass, FOLLOWERS):
                    set_type(action, Literal["min", "max"] | None)
                    action.default = None
                    action.help = "Whether less (min) or more (max) is better; by default what holds for the metric."
        return added

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Namespace:
        """Looks whether a file can be read at all, and remembers which of several it is that cannot be parsed."""
        try:
            read_plain(Path(str(path)))
        except ValueError as error:
            self.error(str(error))
        except OSError:  # of which the parser says more
            pass
        self._file = path
        config: Namespace = super().parse_path(path, *args, **kwargs)
        self._file = None
        return config

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Namespace:
        """Takes what an earlier version wrote, too, and one that sets nothing; the base has been read before."""
        text = renewed_text(without_base(content))
        text = text if re.search(r"^\s*(?!---)[^#\s]", text, re.MULTILINE) else "{}"
        config: Namespace = super().parse_string(text, *args, **kwargs)
        return config

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """Writes a configuration; it was parsed and is valid, and to look at it again takes a sixth of the start."""
        text: str = super().dump(*args, **{"skip_validation": True} | kwargs)
        return text

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Says what is wrong and ends the process with code 2; the parser of a part hands it to that of the whole."""
        message = message if self._file is None else f"{self._file}: {message}"
        if not self.exit_on_error:
            super().error(message, ex)
        self.exit(2, f"error: {condense(message)} (see {self.prog.split(' [')[0]} --help)\n")


def _as_it_stands(
    check: Callable[..., Any], value: Any, append: bool = False, cfg: Any = None, mode: Any = None
) -> Any:
    """Hides from a list the one that it replaces, whose n-th class jsonargparse has the new n-th one inherit from."""
    replaces = isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))
    return check(value, append=append, cfg=None if replaces and not append else cfg, mode=mode)


def _exact_numbers(typehint: Any) -> Any:
    """Puts int before float in every union of a type, so that 1 stays 1 and 1.0 stays 1.0.

    `typing` holds unions of the same types for equal, and so hands out whichever order was asked for first.
    """
    origin, args = get_origin(typehint), get_args(typehint)
    if not args or origin is Literal or origin is Callable:
        return typehint
    new = [_exact_numbers(arg) for arg in args]
    union = origin in (Union, types.UnionType)
    if union and int in new and float in new:
        low, high = sorted((new.index(int), new.index(float)))
        new[low], new[high] = int, float
    if all(one is other for one, other in zip(args, new, strict=True)):
        return typehint
    return Union[tuple(new)] if union else origin[tuple(new)]  # noqa: UP007


def condense(message: str) -> str:
    """Puts jsonargparse's tree of parse errors into one line, and suggests a class for a name that is none.

    Args:
        message: Indented lines, from the option down to the reason, with alternatives that do not apply in between.

    Returns:
        The path to the culprit and the reason.
    """
    noise = re.compile(
        r"(- )?(Does not validate|Subtypes:|Errors:|Expected a <class 'NoneType'>|Expected a path but|Given)"
    )
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    kept = [line.removeprefix("- ") for line in lines if not noise.match(line)]
    given = lines[-1].removeprefix("Given value: ")
    if lines[-1].startswith("Given value: ") and "Got value" not in message and "(" not in given and "{" not in given:
        kept.append(f"Got value: {given[:80]}")
    text = re.sub(r"<class '([\w.]+)'>", r"\1", " ".join(kept))
    text = re.sub(r" Subclass types expect one of: .*", "", text)
    denied = r"\1 is refused, since it could run or overwrite anything: give a part of a training"
    text = re.sub(r"Importing '(\S+)' is not allowed.*? to allow it\.", denied, text)
    text = re.sub(r"Type \S*Callable\b.*? expects a function or a callable class: ", "", text)
    text = re.sub(r" Got value: Namespace\(class_path='([^']*)'.*", r" Got value: \1", text)
    missing = re.search(r"Expected a dot import path string: (\S+)", text)
    if missing is None:
        return text
    name = missing[1]
    if number := re.match(r"(.*Expected an? (?:float|int))\b", text):  # where a number is wanted, it is not a class
        return f"{number[1]}. Got value: {name}"
    known = [*lightning_modules.__all__, *datamodules.__all__, *callbacks.__all__, *loggers.__all__]
    guess = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {guess[0]}?" if guess else "give the import path of a class, or the name of one of ours"
    return text.replace(missing[0], f"there is no class {name}, {hint}").split(" Got value")[0]
