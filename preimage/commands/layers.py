"""`preimage layers`: the layers of a network, and the shapes of their features."""

from collections.abc import Sequence

from preimage.errors import CommandParser, at_least


def print_layers(network: str, image_size: int = 224) -> None:
    """Lists the layers of a network in order, each with the shape of one image's features and shorter names.

    Args:
        network: Name of a torchvision classification network, such as `alexnet`.
        image_size: Height and width of the images, in pixels.
    """
    from lightning_modules.networks.features import layer_shapes, short_names

    shapes = layer_shapes(network, image_size)
    longest = max(map(len, shapes))
    shorts: dict[str, list[str]] = {node: [] for node in shapes}
    for short, node in short_names(network, shapes).items():
        shorts[node].append(short)
    for node, shape in shapes.items():
        print(f"{node:{longest}}  {' x '.join(map(str, shape)):16}  {', '.join(shorts[node])}".rstrip())


def main(args: Sequence[str]) -> None:
    """Runs the command.

    Args:
        args: The arguments after `layers`.
    """
    parser = CommandParser("preimage layers", description=__doc__)
    parser.add_argument("--network", required=True, help="name of a torchvision classification network, as alexnet")
    parser.add_argument(
        "--image_size", type=at_least(1), default=224, help="height and width of the images, by default 224"
    )
    options = parser.parse_args(args)
    print_layers(options.network, options.image_size)
