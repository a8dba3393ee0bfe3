"""`preimage label-efficiency`: test error against the number of labels, by method, from one encoder."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from preimage.errors import CommandParser

READERS = ("linear", "knn", "mlp")
FITS = ("scratch", "finetune", "semi")
LABELS = ("10", "50", "100", "600", "1000", "3000", "all")


def parse(args: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads the arguments; those that are not the command's own are for every fit."""
    epilog = "All other flags go to every fit, for example --trainer.accelerator cpu."
    parser = CommandParser("preimage label-efficiency", description=__doc__, epilog=epilog)
    parser.add_argument("--dataset", default="mnist", help="which images: mnist, fashion_mnist or kmnist")
    parser.add_argument("--root", default="data", help="folder with the IDX files, see MNISTDataModule")
    parser.add_argument(
        "--encoder_checkpoint",
        type=Path,
        help="run of the encoder, by default runs/DATASET/autoencoder_all/version_0/checkpoints/last.ckpt",
    )
    parser.add_argument("--labels", nargs="+", default=list(LABELS), help="numbers of labels, or all")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[*READERS, "scratch", "finetune"],
        choices=[*READERS, *FITS],
        help="readers of the frozen code, and fits of the encoder; semi takes the other images too, and longest",
    )
    parser.add_argument("--seeds", type=int, default=5, help="draws of the labels, and of the weights")
    parser.add_argument(
        "--steps", type=int, default=1500, help="least steps of a fit from labels, of 100 images; at least 10 passes"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/label_efficiency"), help="folder of the table and fits")
    options, rest = parser.parse_known_args(args)
    if wrong := [count for count in options.labels if count != "all" and not count.isdigit()]:
        parser.error(f"--labels takes numbers or all, not {wrong[0]}")
    if min(options.seeds, options.steps) < 1:
        parser.error("--seeds and --steps must be at least 1")
    if options.encoder_checkpoint is None:
        options.encoder_checkpoint = Path(f"runs/{options.dataset}/autoencoder_all/version_0/checkpoints/last.ckpt")
    return options, rest


def main(args: Sequence[str]) -> None:
    """Runs the command.

    Args:
        args: The arguments after `label-efficiency`.
    """
    options, rest = parse(args)
    from preimage.evaluation.label_efficiency import measure_label_efficiency

    measure_label_efficiency(options, rest)
