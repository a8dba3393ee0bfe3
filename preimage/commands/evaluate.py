"""`preimage evaluate`: reconstruction, generation, classification, time and memory of trained runs, in one table."""

import argparse
from collections.abc import Sequence

from preimage.errors import CommandParser


def parse(args: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads the arguments; those that are not the command's own change the data of every run."""
    epilog = "--data.NAME VALUE changes the data of every run, for example --data.root DIR."
    parser = CommandParser("preimage evaluate", description=__doc__, epilog=epilog)
    parser.add_argument(
        "--ckpt_path", required=True, nargs="+", metavar="RUN", help="run directories, or checkpoints inside them"
    )
    parser.add_argument(
        "--extractor",
        help="whose features FID and KID compare: a run, a checkpoint or NETWORK:LAYER[:WEIGHTS] of torchvision;"
        " by default Inception, if torch-fidelity is installed",
    )
    parser.add_argument("--images", type=int, default=10000, help="most images that are drawn for FID and KID")
    parser.add_argument(
        "--labels_per_class", type=int, nargs="*", default=[1, 10, 100], help="of the readers on a few labels"
    )
    parser.add_argument("--overwrite", action="store_true", help="measure again where there is an evaluation.json")
    options, rest = parser.parse_known_args(args)
    if unknown := [arg for arg in rest if arg.startswith("--") and not arg.startswith("--data.")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.images < 2 or min(options.labels_per_class, default=1) < 1:
        parser.error("--images must be at least 2, and --labels_per_class at least 1")
    return options, rest


def main(args: Sequence[str]) -> None:
    """Runs the command.

    Args:
        args: The arguments after `evaluate`.
    """
    options, flags = parse(args)
    from preimage.evaluation.evaluate import evaluate_runs

    evaluate_runs(options, flags)
