import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from preimage.__main__ import main
from tests.conftest import QUICK, ROOT

PROBES = {"linear": 0.8, "knn": 0.85, "mlp": 0.9}
#: As `preimage atlas` writes it: two networks, of which the second was neither searched nor read with few labels.
ATLAS = """\
network,layer,shape,values,bits,normalized_error_64,normalized_error_64_sd,psnr_64,psnr_64_sd,psnr_64_twice,\
psnr_64_few,psnr_64_search,psnr_64_downscaled,lpips_64,linear,linear_sd,few_100,effective_rank,invariance_shift,seeds
pixels,64 x 64,3 x 64 x 64,12288,393216,0,,,,,,,,,0.2,,0.1,40,,
pixels,1 x 1,3,3,96,0.69,,11.6,,,,,,,0.05,,0.05,2,,
mean image,,,0,,0.7,,11.5,,,,,,0.9,,,,,,
net (random),conv.1,512 x 8 x 8,32768,1048576,0.3,0.01,21,0.5,21.25,20,14,25,0.4,0.3,0.02,0.15,300,0.6,3
net (random),conv.2,512,512,16384,0.5,0.02,17,0.25,17.5,,,18,0.6,0.5,0.01,,150,0.2,3
<b>,a $ layer,10,10,320,0.6,,15,,,,,,,0.6,,,inf,1.25,1
"""


def evaluation(seed: int, extractor: str | None = None) -> dict[str, Any]:
    reading: dict[str, Any] = {name: {"accuracy": value + seed / 100, "f1": value} for name, value in PROBES.items()}
    reading["few_labels"] = {"10": {"accuracy": 0.4}, "100": {"accuracy": 0.6 + seed / 10}, "1000": {"accuracy": 0.7}}
    return {
        "version": 1,
        "reconstruction": {"mse": 0.02, "psnr": 17.0 + seed, "ssim": 0.5, "normalized_error": 0.3},
        "generation": extractor and {"fid": 10.0 + seed, "kid": 0.01, "images": 100, "extractor": extractor},
        "reading": reading,
        "active_units": 12,
        "parameters": 63421,
        "trainable_parameters": 63421,
        "training_minutes": None,
        "images_per_second": 1000.0,
        "peak_memory_gb": 0.5,
    }


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of an autoencoder and one of a classifier on digits, trained for a moment and evaluated by hand."""
    runs = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["preimage"])
        here = ["--trainer.default_root_dir", str(runs), "--test_after_fit"]
        for seed in ("0", "1"):
            main(["fit", *QUICK, *here, "--seed_everything", seed, "--data.label_seed", seed])
        digits = [
            "--data.dataset=digits5k",
            "--data.val_size=64",
            "--trainer.max_epochs=1",
            "--trainer.accelerator=cpu",
        ]
        digits += ["--trainer.limit_train_batches=3", "--trainer.enable_model_summary=false"]
        main(["fit", "--config", str(ROOT / "configs/mnist/classifier.yaml"), *digits, *here])
    for i, path in enumerate(sorted(runs.glob("quickstart/version_*"))):
        (path / "evaluation.json").write_text(json.dumps(evaluation(i, "inception")))
    other = evaluation(0, "mnist_classifier") | {"reconstruction": None}
    (runs / "classifier/version_0/evaluation.json").write_text(json.dumps(other))
    return runs


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """A folder with all files of an atlas but its pictures."""
    folder = tmp_path / "atlas"
    folder.mkdir()
    (folder / "atlas.csv").write_text(ATLAS)
    names = ["net (random) conv.1", "net (random) conv.2", "<b> a $ layer"]
    cka = pd.DataFrame([[1, 0.5, 0.25], [0.5, 1, 0.125], [0.25, 0.125, 1]], names, names)
    cka.to_csv(folder / "cka.csv", index_label="layer")
    shades = np.arange(2 * 4, dtype=np.uint8).reshape(4, 2, 1, 1, 1) * 30 + np.zeros((64, 64, 1), np.uint8)
    words = np.array(["cat", "dog (n1)"])
    np.savez(folder / "strips.npz", images=shades[0], names=words, layers=np.array(names), reconstructions=shades[1:])
    return folder


@pytest.fixture
def atlas_rows() -> pd.DataFrame:
    """The rows of that atlas, as texts."""
    return pd.read_csv(io.StringIO(ATLAS), dtype=str, keep_default_na=False)
