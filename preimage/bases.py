"""Configs that name the config which they vary: `base: other.yaml`, relative to themselves."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_BASE = re.compile(r"""^\ufeff?(["']?)base\1[ \t]*:(?!\S)[ \t]*(.*?)[ \t]*((?<!\S)#.*)?$""", re.MULTILINE)


def with_bases(args: Sequence[str]) -> list[str]:
    """Puts before every config on a command line the configs that it varies.

    Args:
        args: Arguments of a command.

    Raises:
        ValueError: A config is a variation of itself, or of one that is not there.
    """
    expanded: list[str] = []
    for place, arg in enumerate(args):
        if joined := re.fullmatch(r"(--config=|-c=?)(.+)", arg):
            expanded += [f"--config={path}" for path in chain(Path(joined[2]))]
        elif place and args[place - 1] in ("--config", "-c"):
            expanded[-1:] = [f"--config={path}" for path in chain(Path(arg))]
        else:
            expanded.append(arg)
    return expanded


def chain(path: Path) -> list[Path]:
    """A config behind the configs that it varies, in the order in which they are read."""
    return list(_chain(path, ()))[::-1]


def _chain(path: Path, before: tuple[Path, ...]) -> Iterator[Path]:
    yield path
    try:
        found = _BASE.search(path.read_text())
    except (OSError, UnicodeDecodeError):
        return  # the parser says what is wrong with it
    if found is None:
        return
    base = path.parent / found[2].strip("\"'")
    if not base.is_file():
        raise ValueError(f"{path}: its base {base} is not there: give the path from the folder of this file")
    if base.resolve() in before:
        raise ValueError(f"{path}: its base {base} varies it in turn")
    yield from _chain(base, (*before, path.resolve()))


def without_base(text: str) -> str:
    """The text of a config without the line that names its base; all others keep their numbers."""
    return _BASE.sub("", text)
