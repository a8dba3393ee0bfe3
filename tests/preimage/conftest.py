import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from preimage.__main__ import main
from tests.conftest import QUICK, ROOT

PROBES = {"linear": 0.8, "knn": 0.85, "mlp": 0.9}


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
