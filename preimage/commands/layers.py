"""`preimage layers`: the layers of a network, and the shapes of their features."""

from collections.abc import Sequence

from preimage.errors import CommandParser, at_least


def print_layers(network: str, image_size: int) -> None:
    """Lists the layers of a network in order, each with the shape of one image's features and shorter names."""
    from lightning_modules.networks.features import layer_shapes, short_names

    shapes = layer_shapes(network, image_size)
    longest = max(map(len, shapes))
    shorts = short_names(network, shapes)
    for node, shape in shapes.items():
        names = ", ".join(short for short, target in shorts.items() if target == node)
        print(f"{node:{longest}}  {' x '.join(map(str, shape)):16}  {names}".rstrip())


def main(args: Sequence[str]) -> None:
    """Runs the command."""
    parser = CommandParser("preimage layers", description=__doc__)
    parser.add_argument("--network", required=True, help="name of a torchvision classification network, as alexnet")
    size = "height and width of the images, by default 224"
    parser.add_argument("--image_size", type=at_least(1), default=224, help=size)
    options = parser.parse_args(args)
    print_layers(options.network, options.image_size)
