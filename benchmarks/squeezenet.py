"""The atlas of SqueezeNet on Tiny ImageNet, and its layers under `original.yaml` in the same wall time.

Run as `python benchmarks/squeezenet.py WEIGHTS ROOT [OUT]`: the file of torchvision's weights of squeezenet1_1, the
folder or zip file of the images, and a folder for the runs, in which a second start skips what is done.
"""

import sys
from pathlib import Path

import pandas as pd
from clock import CONFIGS, preimage

LAYERS = ["features.2", "features.5", "features.8", "features.12", "flatten"]


def atlas(weights: str, root: str, out: Path, layers: list[str], *flags: str) -> dict[str, dict[str, float]]:
    """Makes an atlas of some layers, and returns its rows by layer."""
    own = ["--network=squeezenet1_1", f"--weights={weights}", "--feature_size=129", f"--out={out}"]
    preimage("atlas", *own, "--layers", *layers, "--measure", "keeps", f"--data.root={root}", *flags)
    rows = pd.read_csv(out / "atlas.csv", index_col="layer", keep_default_na=False, na_values=[""])
    rows.index = rows.index.where(rows.index != "", "mean image")
    return {str(layer): row.to_dict() for layer, row in rows.select_dtypes("number").iterrows()}


def main(weights: str, root: str, out: str = "runs/atlas") -> None:
    """Trains both and prints a table."""
    rows = atlas(weights, root, Path(out, "squeezenet1_1"), LAYERS, "--optimize=6")
    configs = [f"--config={CONFIGS / 'tiny_imagenet' / name}" for name in ("atlas.yaml", "original.yaml")]
    lines = []
    for layer in LAYERS:
        row = rows[layer]
        # The limit is of training alone, while ours counts start, caching and test.
        limit = f"--trainer.max_time={{days: 0, hours: 0, minutes: 0, seconds: {int(60 * row['minutes'])}}}"
        original = atlas(weights, root, Path(out, "original", layer), [layer], *configs, limit)[layer]["psnr_64"]
        psnr = f"{row['psnr_64']:8.2f}{original:10.2f}{row['psnr_64_search']:8.2f}"
        lines.append(f"{layer:12}{row['minutes']:8.2f}{psnr}{rows['mean image']['psnr_64']:8.2f}")
    print(f"\n{'layer':12}{'minutes':>8}{'PSNR':>8}{'original':>10}{'search':>8}{'mean':>8}", *lines, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
