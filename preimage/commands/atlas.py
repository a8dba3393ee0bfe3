"""`preimage atlas`: a decoder for each of several layers of a network, in one table and one figure."""

from collections.abc import Sequence
from pathlib import Path

from preimage.errors import CommandParser, at_least


def main(args: Sequence[str]) -> None:
    """Runs the command; arguments that are not its own are for the fit of each layer."""
    epilog = "All other flags go to the fit of each layer, for example --data.root DIR --trainer.max_epochs 20."
    parser = CommandParser("preimage atlas", description=__doc__, epilog=epilog)
    add = parser.add_argument
    add("--network", required=True, help="name of a network, as `preimage layers` takes it")
    add("--weights", default="DEFAULT", help="name of the weights, a file, or random")
    add("--layers", required=True, nargs="+", help="nodes or aliases, from the image inwards")
    size = "image size at which the network looks, by default its own"
    add("--feature_size", type=at_least(1), help=size)
    add("--image_size", type=at_least(1), default=64, help="size of the reconstructions, about")
    add("--width", type=float, default=0.5, help="width of the decoders, 1 for the paper's")
    config = "experiment and overlays, by default configs/tiny_imagenet/atlas.yaml"
    add("--config", action="append", default=[], help=config)
    add("--out", type=Path, help="folder of the atlas, by default runs/atlas/NETWORK")
    add("--optimize", type=at_least(0), default=0, help="images for the baseline that needs no training")
    add("--images", type=at_least(1), default=4, help="test images in the figure")
    options, rest = parser.parse_known_args(args)
    suffix = "_random" if options.weights == "random" else ""
    options.out = options.out or Path("runs/atlas") / f"{options.network}{suffix}"
    from preimage.evaluation.atlas import draw_atlas

    draw_atlas(options, rest)
