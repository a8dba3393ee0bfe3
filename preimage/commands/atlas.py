"""`preimage atlas`: what layers of networks keep, and what can be read out of them, in one table and one plane."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preimage.errors import CommandParser, at_least

MEASURES = ("keeps", "reads", "shape", "invariance", "cost")


class _OfNetwork(argparse.Action):
    """An option of the network that was named last; before the first, of all."""

    def __call__(self, parser: Any, options: argparse.Namespace, value: Any, flag: str | None = None) -> None:
        """Notes it."""
        networks = options.networks
        if self.dest == "network":
            networks.append({"network": value})
        else:
            (networks[-1] if networks else options.of_all)[self.dest] = value


def main(args: Sequence[str]) -> None:
    """Runs the command; arguments that are not its own are for the fit of each decoder."""
    epilog = (
        "All other flags go to the fit of each decoder, for example --data.root DIR --trainer.max_epochs 20. Images"
        " other than Tiny ImageNet: --config configs/images/atlas.yaml --data.root YOUR_IMAGES. Several"
        " processes, as the tasks of a SLURM array, may share an atlas: each takes what no other is at work on."
    )
    parser = CommandParser("preimage atlas", description=__doc__, epilog=epilog)
    parser.set_defaults(networks=[], of_all={})
    of = parser.add_argument_group("of each network", "They follow its --network; before the first, they are for all.")

    def add_of(flag: str, **kwargs: Any) -> None:
        of.add_argument(flag, action=_OfNetwork, default=argparse.SUPPRESS, **kwargs)

    add_of("--network", required=True, help="name of a network, as `preimage layers` takes it; may be given again")
    add_of("--layers", required=True, nargs="+", help="nodes or aliases, from the image inwards")
    add_of("--weights", help="name of the weights, a file, or random; by default the usual ones")
    add_of("--feature_size", type=at_least(1), help="image size at which it looks, by default its own")
    add_of("--label", help="what it is called, by default its name and weights")
    add = parser.add_argument
    add("--measure", nargs="+", choices=MEASURES, default=MEASURES, help="of each layer, by default all")
    config = (
        "experiment and overlays: configs/tiny_imagenet/atlas.yaml; configs/images/atlas.yaml takes your own images"
    )
    add("--config", action="append", default=[], help=config)
    add("--seeds", nargs="+", type=at_least(0), default=[0], help="seeds of the decoders, by default 0")
    add("--parameters", type=at_least(1), default=300_000, help="of each decoder, within a tenth (300000)")
    add("--twice", action="store_true", help="also train a decoder of twice the parameters for twice the epochs")
    add("--image_size", type=at_least(1), default=64, help="size of the reconstructions, about (64)")
    add("--optimize", type=at_least(0), default=0, help="test images for the search that needs no training (0)")
    add(
        "--lpips", metavar="NET[:FILE]", help="also LPIPS by squeeze, alex or vgg, with torchvision's weights or a file"
    )
    add("--extractor", help="also rFID on the features of NETWORK:LAYER[:WEIGHTS], a run, or Inception")
    add("--labels_per_class", type=at_least(1), nargs="*", default=[5], help="of the probe on few labels (5)")
    add("--images", type=at_least(1), default=4, help="test images in the figure (4)")
    add("--out", type=Path, help="folder of the atlas, by default runs/atlas/NETWORK")
    add("--wandb", metavar="PROJECT", help="also log table, pictures and plane to W&B; without an account, offline")
    add("--jobs", type=at_least(1), default=1, help="processes that work side by side (1)")
    add("--worker", action="store_true", help=argparse.SUPPRESS)  # one of these
    options, rest = parser.parse_known_args(args)
    for network in options.networks:
        network |= options.of_all | network
        if "layers" not in network:
            parser.error(f"--network {network['network']} has no --layers: `preimage layers` lists them")
    options.args = list(args)
    from preimage.evaluation.atlas import draw_atlas

    draw_atlas(options, rest)
