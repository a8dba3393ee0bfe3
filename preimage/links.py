"""What follows from one choice: image size, channels, length of the code and number of classes are given once."""

import pydoc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_modules.checkpoints import load_checkpoint
from preimage.files import read_plain
from preimage.retired import renewed_config

#: Options that are one number. What is none of the arguments of a class may be an attribute of it.
_LINKS = (
    "data.image_size data.augmentations.size model.view.size model.encoder.image_size model.decoder.image_size"
    " model.auxiliary_decoder.image_size",
    "data.channels model.channels model.encoder.in_channels model.decoder.out_channels"
    " model.auxiliary_decoder.out_channels model.adversarial.in_channels",
    "model.latent_dim model.encoder.latent_dim model.decoder.latent_dim model.auxiliary_decoder.latent_dim"
    " model.head.in_features model.decoder.in_features model.quantizer.in_features model.method.in_features",
    "data.wnids data.num_classes model.num_classes model.head.num_classes model.head.out_features",
)
_READ = 2.5


class _Option(NamedTuple):
    """An argument in the configuration.

    `rank` is 3 if a flag gives it, `_READ` the checkpoint of the encoder, 2 a file, 1 the class itself, else 0.
    """

    arguments: Namespace
    key: str
    value: int
    in_files: int | None
    rank: float


def link(config: Namespace, args: Sequence[str]) -> None:
    """Gives options that are one number, but for those that are given otherwise, the same value.

    What a class is known to be goes before all, a flag before a file, and a file before the defaults. The options that
    are not given follow, and those of files that agreed with each other; what is given on purpose in two ways stays.
    An encoder that is read from a checkpoint is built as it is there: its sizes go before a file's, and what else it
    has before the defaults.

    Args:
        config: The configuration of a command, with all defaults; changed in place.
        args: The command line.
    """
    files = [_with_parts(str(path), Path()) for path in config.get("config") or []]
    flags = list(_flags(args))
    checkpoint, there = _read_encoder(config)
    encoder = _get(config, ["model", "encoder"]).init_args if there else Namespace()
    before = vars(encoder.clone())
    for key in set(there) & set(before):
        if all(_get(source, ["model", "encoder", key]) is None for source in (*files, *flags)):
            encoder[key] = there[key]
    for names in _LINKS:
        options = [option for name in names.split() for option in _options(config, name.split("."), files, flags)]
        if all(option.rank < 3 for option in options):
            options = [_as_read(option, there) if option.arguments is encoder else option for option in options]
        leading = [option for option in options if option.key != "size"]  # a crop may be smaller than the image
        if not leading:
            continue
        first = max(leading, key=lambda option: (option.rank == 1, option.rank))  # what the data is cannot be changed
        agreed = next((option.in_files for option in options if option.in_files is not None), None)
        for option in options:
            follows = option.rank < 2 or (option.rank < first.rank and option.in_files == agreed)
            if follows and option.key != "wnids" and option.value != first.value:
                square = isinstance(option.arguments.get(option.key), list | tuple)
                option.arguments[option.key] = [first.value, first.value] if square else first.value
    if taken := [f"{key}={value}" for key, value in vars(encoder).items() if value != before[key] and key in there]:
        rank_zero_info(f"the encoder has {', '.join(taken)} as in {checkpoint}, from which it is read")


def _read_encoder(config: Namespace) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that a fit reads its encoder from, and the numbers, switches and words that built it there.

    There are none for an encoder of another class, and where a checkpoint of the whole model is given.
    """
    path = _get(config, ["model", "encoder_checkpoint"])
    if not isinstance(path, str) or config.get("ckpt_path") not in (None, "last", "best", "auto"):
        return Path(), {}
    checkpoint = Path(path) if Path(path).exists() else Path(config.trainer.default_root_dir) / path
    try:
        there = load_checkpoint(checkpoint).get("hyper_parameters", {}).get("encoder")
    except (OSError, ValueError):  # the fit says what is wrong with it
        return checkpoint, {}
    here = _get(config, ["model", "encoder"])
    known = isinstance(here, Namespace) and here.get("init_args") and isinstance(there, dict)
    if not known or there.get("class_path") != here.class_path:
        return checkpoint, {}
    arguments = there.get("init_args") or {}
    return checkpoint, {key: value for key, value in arguments.items() if isinstance(value, int | float | str)}


def _as_read(option: _Option, there: dict[str, Any]) -> _Option:
    if (value := _number(there.get(option.key))) is None:
        return option
    option.arguments[option.key] = there[option.key]
    return option._replace(value=value, rank=_READ)


def _flags(args: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What each flag gives, as a file would give it: `--model.latent_dim 5` is `{"model": {"latent_dim": 5}}`."""
    for arg, following in zip(args, (*args[1:], ""), strict=True):
        name, equals, text = arg.partition("=")
        inline = name == "--config" and text.startswith("{")
        if not (inline or name.startswith(("--model", "--data"))):
            continue
        try:
            value = _with_parts(yaml.safe_load(text if equals else following), Path())
        except yaml.YAMLError:  # a text that is meant as it stands
            continue
        for key in [] if inline else reversed(name.removeprefix("--").removesuffix("+").split(".")):
            value = {key: value}
        yield value


def _with_parts(content: Any, folder: Path) -> Any:
    """What a file holds, with that of the files that it names in place of a class and its arguments."""
    if isinstance(content, dict):
        return {key: _with_parts(value, folder) for key, value in content.items()}
    if isinstance(content, str) and content.endswith((".yaml", ".yml", ".json")) and (folder / content).is_file():
        path = folder / content
        return _with_parts(renewed_config(read_plain(path)), path.parent)
    return content


def _options(config: Namespace, names: list[str], files: list[Any], flags: list[Any]) -> Iterator[_Option]:
    """The arguments of a name in a configuration: none, one, or one for each augmentation."""
    *path, key = names
    for place in _places(config, path):
        part = _get(config, place)
        class_path = part.get("class_path") if isinstance(part, Namespace) else None
        kind = pydoc.locate(class_path) if isinstance(class_path, str) else None
        if key == "image_size" and getattr(kind, "resizes", False):
            continue  # its size is its own
        arguments = part.get("init_args", part) if isinstance(part, Namespace) else None
        if isinstance(arguments, Namespace) and (value := _number(arguments.get(key))) is not None:
            in_files, in_flags = (_last(sources, [*place, key]) for sources in (files, flags))
            rank = 3 if in_flags is not None else 2 if in_files == value else 0
            yield _Option(arguments, key, value, in_files if rank else None, rank)
        elif (value := _number(getattr(kind, key, None))) is not None:
            yield _Option(Namespace(), key, value, None, 1)


def _places(config: Namespace, path: list[str]) -> list[list[str | int]]:
    """The places of a class: its path, and of a list one for each entry."""
    part = _get(config, path)
    return [[*path, index] for index in range(len(part))] if isinstance(part, list) else [[*path]]


def _get(part: Any, place: Sequence[str | int]) -> Any:
    """What is at a place, whose names leave out `init_args`; a flag leaves out the indices of lists too."""
    for name in place:
        if isinstance(part, Namespace | dict):
            part = part.get("init_args", part)
            part = part.get(name) if isinstance(name, str) else part
        else:
            part = part[name] if isinstance(part, list) and isinstance(name, int) and name < len(part) else None
    return part


def _last(sources: list[Any], place: Sequence[str | int]) -> int | None:
    numbers = (_number(_get(source, place)) for source in reversed(sources))
    return next((number for number in numbers if number is not None), None)


def _number(value: Any) -> int | None:
    """A number, the side of a square `[n, n]`, or how many names there are."""
    if isinstance(value, list | tuple) and value:
        value = len(value) if isinstance(value[0], str) else value[0] if len(set(value)) == 1 else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
