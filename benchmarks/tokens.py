"""Two decoders of a vision transformer's tokens in equal time: one of their grid, and one of all of them flattened.

Run as `python benchmarks/tokens.py ROOT [NETWORK LAYER [MINUTES]]`: the folder or zip file of Tiny ImageNet, of which
two classes are taken, and a network of timm with random weights. The table says what each decoder costs and reaches.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lightning_modules import FrozenFeatures
from lightning_modules.checkpoints import load_checkpoint
from preimage.evaluation.atlas.decoders import decoder_for
from preimage.evaluation.runs import figures_of
from preimage.runs import Run

CONFIG = Path(__file__).parent.parent / "configs/tiny_imagenet/atlas.yaml"
COMMON = [
    "--data.num_classes=2",
    "--model.scheduler=null",
    "--model.optimizer.lr=0.001",
    "--trainer.max_epochs=-1",
    "--trainer.callbacks=null",
]
COMMON += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--curves=null"]


def measure(root: str, network: str, layer: str, tokens: str, minutes: float, folder: Path) -> str:
    """Trains one decoder in a process of its own, and returns its line of the table."""
    encoder = {"network": network, "layer": layer, "weights": "random", "tokens": tokens}
    features = FrozenFeatures(network, layer, "random", tokens="grid" if tokens == "grid" else "all")
    decoder = decoder_for(features.feature_shape(64), 64, 0.5)
    flags = ["--model.encoder=FrozenFeatures", f"--model.decoder={decoder['class_path']}"]
    flags += [f"--model.encoder.{key}={value}" for key, value in encoder.items()]
    flags += [f"--model.decoder.{key}={value}" for key, value in decoder["init_args"].items()]
    command = [sys.executable, "-m", "preimage", "fit", f"--config={CONFIG}", f"--data.root={root}", *COMMON, *flags]
    command += [f"--trainer.max_time=00:00:{minutes:02.0f}:00", f"--run_dir={folder / tokens}", "--test_after_fit"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the fit of {tokens} failed")
    run = Run(folder / tokens)
    last, figures = load_checkpoint(run.checkpoint("last")), figures_of(run.folder)
    parameters = sum(value.numel() for key, value in last["state_dict"].items() if key.startswith("decoder."))
    steps = last["global_step"]
    cells = [decoder["class_path"], f"{parameters / 1e6:.1f}", f"{60 * minutes / steps:.2f}", str(steps)]
    cells += [f"{usage.ru_maxrss / 1e6:.1f}", f"{figures['test/psnr_64']:.2f}", f"{figures['test/ssim_64']:.3f}"]
    return " | ".join([tokens, *cells])


def main(
    root: str, network: str = "timm/vit_base_patch16_224", layer: str = "blocks.11", minutes: float | str = 3
) -> None:
    """Trains both and prints the table."""
    print("tokens | decoder | million parameters | seconds a step | steps | memory, GB | PSNR at 64, dB | SSIM at 64")
    with tempfile.TemporaryDirectory() as folder:
        for tokens in ("grid", "all"):
            print(measure(root, network, layer, tokens, float(minutes), Path(folder)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
