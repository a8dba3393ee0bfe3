"""`preimage predict --network`: the codes of a folder of images by any network, with no training and no config."""

import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path

from preimage.errors import CommandParser, at_least


def main(args: Sequence[str]) -> None:
    """Runs the command."""
    epilog = "Without --network, preimage predict takes a config and a checkpoint: see preimage predict --help."
    parser = CommandParser("preimage predict", description=__doc__, epilog=epilog)
    add = parser.add_argument
    network = "name of a network of torchvision, as alexnet; timm/NAME, hf/NAME, module:pkg.fn, or a run"
    add("--network", required=True, help=network)
    add("--layer", required=True, help="one of its layers, as preimage layers lists them")
    add("--weights", default="DEFAULT", help="DEFAULT, a name of torchvision's, a file, or random")
    size = "height and width at which the network looks, by default its own"
    add("--image_size", type=at_least(1), help=size)
    tokens = "of tokens and maps: all as they are, grid of the patches, class token cls, or mean"
    add("--tokens", choices=("all", "grid", "cls", "mean"), default="all", help=tokens)
    add("--out", type=_table, metavar="FILE", help="an .npz or .parquet, by default ./NETWORK_LAYER.npz")
    add("--data.root", dest="root", required=True, metavar="DIR", help="folder or zip file of images")
    layouts = ("auto", "folders", "splits", "csv", "flat")
    add("--data.layout", dest="layout", choices=layouts, default="auto", help="how they are laid out; auto looks")
    add("--data.table", dest="table", metavar="FILE", help="file of their labels")
    for column in ("filename", "label"):
        add(f"--data.{column}_column", dest=f"{column}_column", metavar="NAME", help=f"its column of {column}s")
    bad = "stop at an image that cannot be read, or leave it out"
    add("--data.on_bad_image", dest="on_bad_image", choices=("error", "skip"), default="error", help=bad)
    options = parser.parse_args(args)
    if options.out is None:
        name = re.sub(r"[^\w.-]+", "_", f"{options.network}_{options.layer}").strip("_.")
        options.out = Path(f"{name[-200:]}.npz")
    from preimage.codes import write_codes

    write_codes(**vars(options))


def _table(text: str) -> Path:
    """The type of a file whose ending says how it is written."""
    if Path(text).suffix not in (".npz", ".parquet"):
        raise ArgumentTypeError(f"give a file that ends in .npz or .parquet, not {text}")
    return Path(text)
