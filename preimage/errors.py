"""Errors in one line: of the arguments of a command, and of runs, by `explain`."""

import argparse
import errno
import os
import re
from collections.abc import Callable
from traceback import walk_tb
from typing import Any, NoReturn

#: Raised for users, by this project; their text says it all.
_KNOWN = (ValueError, OSError, FloatingPointError, MemoryError, ImportError)
#: What torch says of mistakes in a configuration, and what these may be.
_HINTS = {
    "loaded state dict": "the checkpoint is of another optimizer, start without --ckpt_path",
    "is not in bounds, numpy accepts": "give another seed_everything",
    "without overflow": "a setting of the optimizer, most often lr, is too large for the numbers of the model",
    "per-parameter options": "leave out model.encoder_lr, which makes a second group",
    "can't allocate memory": "a size of the model is too large for this machine",
}

_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
#: What to do where a file cannot be written.
_CURES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), ": make room on the disk, and start again") | dict.fromkeys(
    _FORBIDDEN,
    ": take a folder that you may write to, for runs by trainer.default_root_dir, for caches by data.cache_dir",
)


class CommandParser(argparse.ArgumentParser):
    """Parses what LightningCLI does not: it can hand on flags it does not know, as jsonargparse cannot."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, allow_abbrev=False, **kwargs)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Joins `--key value` to `--key=value` in what is handed on, so that the same settings are the same text."""
        options, rest = super().parse_known_args(*args, **kwargs)
        flags: list[str] = []
        for flag in rest:
            if not flag.startswith("--") and flags and re.fullmatch("--[^=]+", flags[-1]):
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


def explain(error: Exception) -> str:
    """Puts an error of a run into one line, which begins with what is wrong and never with the name of its kind."""
    if type(error).__name__ == "ProcessRaisedException":  # with the traceback of a process that Lightning has forked
        return re.sub(r"^[\w.]+: ", "", str(error).strip().splitlines()[-1])
    text = " ".join(str(error).split())
    if "Does not validate" in text:
        from preimage.parsing import condense  # which imports all that can be named

        text = condense(str(error))
    text = re.sub(r"\.? Not a valid subclass of \w+", "", text)  # said of every class that could not be made
    text = re.sub(r" HINT: Did you call `log\(.*`LightningModule`\?", "", text)  # it is not the user who would
    text = re.sub(r"`Trainer\(([^)]*)\)`", lambda call: "--trainer." + call[1].replace(", ", " --trainer."), text)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        there = os.path.exists(error.filename) and not os.path.isdir(error.filename)  # and so it was to be read
        cure = "" if there and error.errno in _FORBIDDEN else _CURES.get(error.errno or 0, "")
        return f"{error.filename}: {error.strerror}{cure}"
    for part, hint in _HINTS.items():
        if part in text:
            return f"{text}: {hint}"
    text = text if len(text) < 1000 else f"{text[:1000]} ..."
    # What Lightning raises itself, it raises for users; to import its MisconfigurationException would take seconds.
    frames = [frame for frame, _ in walk_tb(error.__traceback__)] if isinstance(error, RuntimeError) else []
    lightnings = type(error).__name__ == "MisconfigurationException" or (
        frames and frames[-1].f_globals["__name__"].startswith("lightning.")
    )
    if text and (isinstance(error, _KNOWN) or lightnings):
        return text
    return f"unexpected {type(error).__name__}: {text}" if text else f"unexpected {type(error).__name__}"
