"""Errors in one line: of arguments, by parsers, and of runs, by `explain`."""

import argparse
import difflib
import errno
import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from traceback import walk_tb
from typing import Any, Literal, NoReturn

import torch
from jsonargparse import DefaultHelpFormatter, Namespace
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import callbacks
import datamodules
import lightning_modules
from files import read_plain
from parsing import FOLLOWERS, exact_numbers

#: Raised for users, by this project and by Lightning; their text says it all.
_KNOWN = (ValueError, OSError, FloatingPointError, MemoryError, ImportError, MisconfigurationException)
#: What torch says of mistakes in a configuration, and what these may be.
_HINTS = {
    "without overflow": "a setting of the optimizer, most often lr, is too large for the numbers of the model",
    "can't allocate memory": "a size of the model is too large for this machine",
}
_PACKAGES = ("lightning_modules.", "datamodules.", "callbacks.")


class CommandParser(argparse.ArgumentParser):
    """Parses what LightningCLI does not: it can hand on flags it does not know, as jsonargparse cannot."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        """Takes the arguments of `argparse.ArgumentParser`."""
        super().__init__(prog, allow_abbrev=False, **kwargs)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Joins `--key value` to `--key=value` in what is handed on, so that the same settings are the same text."""
        options, rest = super().parse_known_args(*args, **kwargs)
        flags: list[str] = []
        for flag in rest:
            if not flag.startswith("--") and flags and flags[-1].startswith("--") and "=" not in flags[-1]:
                flags[-1] += f"={flag}"
            else:
                flags.append(flag)
        return options, flags

    def error(self, message: str) -> NoReturn:
        """Says what is wrong and ends the process with code 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def at_least(least: int) -> Callable[[str], int]:
    """The type of a command's argument that is a whole number, and none below `least`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[-+]?\d{1,18}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"give a whole number from {least} up, not {text}")
        return int(text)

    return parse


class ShortHelpFormatter(DefaultHelpFormatter):
    """Lists, of the four hundred modules that torch and its kin define, none where there are some of ours."""

    def _expand_help(self, action: argparse.Action) -> str:
        text = super()._expand_help(action)
        listing = re.search(r"known subclasses: ([^)]*)", text)
        ours = [name for name in listing[1].split(", ") if name.startswith(_PACKAGES)] if listing else []
        return text.replace(listing[1], ", ".join(ours)) if listing and ours else text


class OneLineErrorParser(LightningArgumentParser):
    """LightningCLI's parser, whose errors are one line, without ninety lines of usage before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes the arguments of LightningArgumentParser."""
        self._file: Any = None
        super().__init__(*args, allow_abbrev=False, **{"formatter_class": ShortHelpFormatter} | kwargs)

    def add_class_arguments(self, theclass: type, *args: Any, **kwargs: Any) -> list[str]:
        """Takes 1 for the integer where both kinds of number are meant, and no mode for that of the metric."""
        added: list[str] = super().add_class_arguments(theclass, *args, **kwargs)
        for action in self._actions:
            if action.dest in added and hasattr(action, "_typehint"):
                action._typehint = exact_numbers(action._typehint)
                # Defaults that config.yaml could not hold.
                if isinstance(action.default, torch.device):
                    action.default = str(action.default)
                elif isinstance(action.default, Enum) and action._typehint is str:
                    action.default = action.default.value
                if action.dest.split(".")[-1] == "mode" and issubclass(theclass, FOLLOWERS):
                    action._typehint = Literal["min", "max"] | None
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

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Says what is wrong and ends the process with code 2; the parser of a part hands it to that of the whole."""
        message = message if self._file is None else f"{self._file}: {message}"
        if not self.exit_on_error:
            super().error(message, ex)
        self.exit(2, f"error: {condense(message)} (see {self.prog.split(' [')[0]} --help)\n")


def explain(error: Exception) -> str:
    """Puts an error of a run into one line, which begins with what is wrong and never with the name of its kind."""
    text = condense(str(error)) if "Does not validate" in str(error) else " ".join(str(error).split())
    text = re.sub(r"\.? Not a valid subclass of \w+", "", text)  # said of every class that could not be made
    text = re.sub(r"`Trainer\(([^)]*)\)`", lambda call: "--trainer." + call[1].replace(", ", " --trainer."), text)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f"{error.filename}: {error.strerror}{': make room on the disk, and start again' if full else ''}"
    for part, hint in _HINTS.items():
        if part in text:
            return f"{text}: {hint}"
    text = text if len(text) < 1000 else f"{text[:1000]} ..."
    # What Lightning raises itself, it raises for users.
    frames = [frame for frame, _ in walk_tb(error.__traceback__)] if isinstance(error, RuntimeError) else []
    if text and (isinstance(error, _KNOWN) or (frames and frames[-1].f_globals["__name__"].startswith("lightning."))):
        return text
    return f"unexpected {type(error).__name__}: {text}" if text else f"unexpected {type(error).__name__}"


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
    known = [*lightning_modules.__all__, *datamodules.__all__, *callbacks.__all__]
    guess = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {guess[0]}?" if guess else "give the import path of a class, or the name of one of ours"
    return text.replace(missing[0], f"there is no class {name}, {hint}").split(" Got value")[0]
