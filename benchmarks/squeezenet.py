"""The atlas of SqueezeNet on Tiny ImageNet, and its layers under `original.yaml` in the same wall time.

Run as `python benchmarks/squeezenet.py WEIGHTS ROOT [OUT]`: the file of torchvision's weights of squeezenet1_1, the
folder or zip file of the images, and a folder for the runs, in which a second start skips what is done.
"""

import csv
import json
import sys
from pathlib import Path

from preimage.__main__ import main as preimage

CONFIGS = Path(__file__).parent.parent / "configs/tiny_imagenet"
LAYERS = ["features.2", "features.5", "features.8", "features.12", "flatten"]


def psnr(out: Path) -> dict[str, dict[str, str]]:
    """The rows of an atlas by layer."""
    with (out / "atlas.csv").open() as file:
        return {row["layer"]: row for row in csv.DictReader(file)}


def main() -> None:
    """Trains both and prints a table."""
    weights, root, out = sys.argv[1], sys.argv[2], Path(sys.argv[3] if len(sys.argv) > 3 else "runs/atlas")
    sys.argv = sys.argv[:1]
    own = ["atlas", "--network=squeezenet1_1", f"--weights={weights}", "--feature_size=129", "--width=0.25"]
    data = f"--data.root={root}"
    preimage([*own, "--layers", *LAYERS, f"--out={out / 'squeezenet1_1'}", "--optimize=40", data])
    rows = psnr(out / "squeezenet1_1")
    print(f"\n{'layer':12}{'minutes':>8}{'PSNR':>8}{'original':>10}{'search':>8}{'mean':>8}")
    for layer in LAYERS:
        minutes = json.loads((out / "squeezenet1_1" / layer / "done.json").read_text())["minutes"]
        configs = [f"--config={CONFIGS / name}" for name in ("atlas.yaml", "original.yaml")]
        # The limit is of training alone, while ours counts start, caching and test.
        time = f"--trainer.max_time={{days: 0, hours: 0, minutes: 0, seconds: {int(60 * minutes)}}}"
        preimage([*own, "--layers", layer, *configs, f"--out={out / 'original' / layer}", data, time])
        theirs = psnr(out / "original" / layer)[layer]["psnr_64"]
        minutes, ours = (float(rows[layer][key]) for key in ("minutes", "psnr_64"))
        search, mean = float(rows[layer]["psnr_64_search"]), float(rows["mean image"]["psnr_64"])
        print(f"{layer:12}{minutes:8.2f}{ours:8.2f}{float(theirs):10.2f}{search:8.2f}{mean:8.2f}")


if __name__ == "__main__":
    main()
