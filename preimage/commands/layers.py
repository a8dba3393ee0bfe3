"""`preimage layers`: the layers of a network, and the shapes of their features."""

from collections.abc import Sequence

from preimage.errors import CommandParser, at_least


def print_layers(network: str, image_size: int | None = None) -> None:
    """Lists the layers of a network in order, each with kind and shape of one image's features and shorter names."""
    from lightning_modules.networks.features import list_layers

    rows = [
        (name, " x ".join(map(str, layer.shape)), layer.kind, ", ".join(layer.shorts))
        for name, layer in list_layers(network, image_size).items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


def main(args: Sequence[str]) -> None:
    """Runs the command."""
    parser = CommandParser("preimage layers", description=__doc__)
    network = "name of a network of torchvision, as alexnet; timm/NAME, hf/NAME, module:pkg.fn, or a run"
    parser.add_argument("--network", required=True, help=network)
    size = "height and width of the images, by default the network's own"
    parser.add_argument("--image_size", type=at_least(1), help=size)
    options = parser.parse_args(args)
    print_layers(options.network, options.image_size)
