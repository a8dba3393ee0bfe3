"""`preimage label-efficiency`: test error against the number of labels, by method, from one encoder."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from preimage.errors import CommandParser, at_least
from preimage.files import kept_checkpoint


def _labels(text: str) -> str:
    if text != "all" and not text.isdigit():
        raise argparse.ArgumentTypeError(f"give numbers or all, not {text}")
    return text


def main(args: Sequence[str]) -> None:
    """Runs the command; arguments that are not its own are for every fit."""
    epilog = "All other flags go to every fit, for example --trainer.accelerator cpu."
    parser = CommandParser("preimage label-efficiency", description=__doc__, epilog=epilog)
    add = parser.add_argument
    add("--dataset", default="mnist", help="which images: mnist, fashion_mnist or kmnist")
    add("--root", default="data", help="folder with the IDX files, see MNISTDataModule")
    checkpoint = "runs/DATASET/autoencoder_all/version_0/checkpoints/last.ckpt"
    add("--encoder_checkpoint", type=Path, help=f"run of the encoder, by default {checkpoint}")
    counts = ["10", "50", "100", "600", "1000", "3000", "all"]
    add("--labels", type=_labels, nargs="+", default=counts, help="numbers of labels, or all")
    methods = "probes of the frozen code, and fits of the encoder; semi takes the other images too, and longest"
    known = ["linear", "knn", "mlp", "scratch", "finetune", "semi"]
    add("--methods", nargs="+", default=known[:-1], choices=known, help=methods)
    add("--seeds", type=at_least(1), default=5, help="draws of the labels, and of the weights")
    steps = "least steps of a fit from labels, of 100 images; at least 10 passes"
    add("--steps", type=at_least(1), default=1500, help=steps)
    add("--out", type=Path, default=Path("runs/label_efficiency"), help="folder of the table and fits")
    options, rest = parser.parse_known_args(args)
    path = options.encoder_checkpoint or Path(checkpoint.replace("DATASET", options.dataset))
    options.encoder_checkpoint = kept_checkpoint(path) if path.is_dir() else path
    from preimage.evaluation.label_efficiency import measure_label_efficiency

    measure_label_efficiency(options, rest)
