"""`preimage atlas`: a decoder for each of several layers of a network, in one table and one figure."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from preimage.errors import CommandParser, at_least


def parse(args: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads the arguments; those that are not the atlas's own are for the fit of each layer."""
    epilog = "All other flags go to the fit of each layer, for example --data.root DIR --trainer.max_epochs 20."
    parser = CommandParser("preimage atlas", description=__doc__, epilog=epilog)
    parser.add_argument("--network", required=True, help="name of a network, as `preimage layers` takes it")
    parser.add_argument("--weights", default="DEFAULT", help="name of the weights, a file, or random")
    parser.add_argument("--layers", required=True, nargs="+", help="nodes or aliases, from the image inwards")
    parser.add_argument(
        "--feature_size", type=at_least(1), help="image size at which the network looks, by default its own"
    )
    parser.add_argument("--image_size", type=at_least(1), default=64, help="size of the reconstructions, about")
    parser.add_argument("--width", type=float, default=0.5, help="width of the decoders, 1 for the paper's")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        help="experiment and overlays, by default configs/tiny_imagenet/atlas.yaml",
    )
    parser.add_argument("--out", type=Path, help="folder of the atlas, by default runs/atlas/NETWORK")
    parser.add_argument(
        "--optimize", type=at_least(0), default=0, help="images for the baseline that needs no training"
    )
    parser.add_argument("--images", type=at_least(1), default=4, help="test images in the figure")
    options, rest = parser.parse_known_args(args)
    suffix = "_random" if options.weights == "random" else ""
    options.out = options.out or Path("runs/atlas") / f"{options.network}{suffix}"
    return options, rest


def main(args: Sequence[str]) -> None:
    """Runs the command.

    Args:
        args: The arguments after `atlas`.
    """
    options, rest = parse(args)
    from preimage.evaluation.atlas import draw_atlas

    draw_atlas(options, rest)
