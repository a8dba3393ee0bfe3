"""`preimage evaluate`: reconstruction, generation, classification, time and memory of trained runs, in one table."""

from collections.abc import Sequence

from preimage.errors import CommandParser, at_least


def main(args: Sequence[str]) -> None:
    """Runs the command; arguments that are not its own change the data of every run."""
    epilog = "--data.NAME VALUE changes the data of every run, for example --data.root DIR."
    parser = CommandParser("preimage evaluate", description=__doc__, epilog=epilog)
    add = parser.add_argument
    add("--ckpt_path", required=True, nargs="+", metavar="RUN", help="run directories, or checkpoints inside them")
    extractor = "whose features FID, KID and rFID compare: a run, a checkpoint or NETWORK:LAYER[:WEIGHTS];"
    add("--extractor", help=f"{extractor} by default Inception, if torch-fidelity is installed")
    add("--images", type=at_least(2), default=10000, help="most images that FID, KID and rFID compare")
    lpips = "also LPIPS of the reconstructions on squeeze, alex or vgg; FILE has torchvision's weights of the network,"
    add("--lpips", metavar="NET[:FILE]", help=f"{lpips} which are else downloaded")
    few = "of the probes on a few labels"
    add("--labels_per_class", type=at_least(1), nargs="*", default=[1, 10, 100], help=few)
    add("--overwrite", action="store_true", help="measure again where there is an evaluation.json")
    options, flags = parser.parse_known_args(args)
    if unknown := [flag for flag in flags if flag.startswith("--") and not flag.startswith("--data.")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    from preimage.evaluation.evaluate import evaluate_runs

    evaluate_runs(options, flags)
