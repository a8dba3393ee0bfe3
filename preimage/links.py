"""What follows from one choice: image size, channels, length of the code and number of classes are given once."""

import pydoc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace

from preimage.files import read_plain

#: Options that are one number. What is none of the arguments of a class may be an attribute of it.
LINKS = (
    (
        "data.image_size",
        "data.augmentations.size",
        "model.encoder.image_size",
        "model.decoder.image_size",
        "model.auxiliary_decoder.image_size",
    ),
    (
        "data.channels",
        "model.channels",
        "model.encoder.in_channels",
        "model.decoder.out_channels",
        "model.auxiliary_decoder.out_channels",
    ),
    (
        "model.latent_dim",
        "model.encoder.latent_dim",
        "model.decoder.latent_dim",
        "model.auxiliary_decoder.latent_dim",
        "model.head.in_features",
        "model.decoder.in_features",
    ),
    ("data.wnids", "data.num_classes", "model.num_classes", "model.head.num_classes", "model.head.out_features"),
)


class _Option(NamedTuple):
    """An argument in the configuration; `rank` is 3 if a flag gives it, 2 a file, 1 the class itself, else 0."""

    arguments: Namespace
    key: str
    value: int
    in_files: int | None
    rank: int


def link(config: Namespace, given: Namespace, flags: Sequence[str]) -> None:
    """Gives options that are one number, but for those that are given otherwise, the same value.

    What a class is known to be goes before all, a flag before a file, and a file before the defaults. The options that
    are not given follow, and those of files that agreed with each other; what is given on purpose in two ways stays.

    Args:
        config: The configuration of a command, with all defaults; changed in place.
        given: What files and flags give of it.
        flags: The command line.
    """
    paths = [Path(str(path)) for path in given.get("config") or []]
    files = [read_plain(path) for path in paths if path.is_file()]
    for names in LINKS:
        options = [option for name in names for option in _options(name, config, files, given, flags)]
        leading = [option for option in options if option.key != "size"]  # a crop may be smaller than the image
        if not leading:
            continue
        first = max(leading, key=lambda option: (option.rank == 1, option.rank))  # what the data is cannot be changed
        agreed = next((option.in_files for option in options if option.in_files is not None), None)
        for option in options:
            if option.rank < 2 or (option.rank < first.rank and option.in_files == agreed):
                _set(option, first.value)


def _options(
    name: str, config: Namespace, files: list[Any], given: Namespace, flags: Sequence[str]
) -> Iterator[_Option]:
    """The arguments of a name in a configuration: none, one, or one for each augmentation."""
    *path, key = name.split(".")
    for place in _places(config, path):
        arguments = _get(config, [*place, "init_args"])
        class_path = _get(config, [*place, "class_path"])
        kind = pydoc.locate(class_path) if isinstance(class_path, str) else None
        if key == "image_size" and getattr(kind, "resizes", False):
            continue  # its size is its own
        *read, value = (_number(_get(source, [*place, "init_args", key])) for source in (*files, given))
        in_files = next((number for number in reversed(read) if number is not None), None)
        if value is not None:
            typed = any(flag.split("=")[0].replace(".init_args", "") == f"--{name}" for flag in flags)
            yield _Option(arguments, key, value, in_files, 3 if typed or value != in_files else 2)
        elif isinstance(arguments, Namespace) and (value := _number(arguments.get(key))) is not None:
            yield _Option(arguments, key, value, None, 0)
        elif (value := _number(getattr(kind, key, None))) is not None:
            yield _Option(Namespace(), key, value, None, 1)


def _places(config: Namespace, path: list[str]) -> list[list[str | int]]:
    """The places of a class: `model.encoder` is at `model.init_args.encoder`, and a list has one for each entry."""
    place: list[str | int] = []
    for name in path:
        place += ["init_args", name] if place else [name]
    found = _get(config, place)
    return [[*place, index] for index in range(len(found))] if isinstance(found, list) else [place]


def _get(source: Any, place: Sequence[str | int]) -> Any:
    for part in place:
        if isinstance(source, list) and isinstance(part, int) and part < len(source):
            source = source[part]
        elif isinstance(source, Namespace | dict) and isinstance(part, str):
            source = source.get(part)
        else:
            return None
    return source


def _number(value: Any) -> int | None:
    """A number, the side of a square `[n, n]`, or how many names there are."""
    if isinstance(value, list | tuple) and value:
        value = len(value) if isinstance(value[0], str) else value[0] if len(set(value)) == 1 else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _set(option: _Option, value: int) -> None:
    if option.key != "wnids" and value != option.value:
        side = option.arguments.get(option.key)
        option.arguments[option.key] = [value, value] if isinstance(side, list | tuple) else value
