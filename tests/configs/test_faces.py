"""The configs for faces run, on a folder of small synthetic images and at a small width."""

from pathlib import Path

import pytest
import yaml

from tests.configs.test_configs import SMALL, Kept
from tests.conftest import ROOT, Run
from tests.preimage.test_cli import values

FACES = ROOT / "configs/faces"
NARROW = ["--model.encoder.width=0.03", "--model.decoder.width=0.03", "--trainer.precision=32", "--data.batch_size=8"]


@pytest.mark.parametrize(
    "config",
    [
        "real_fake.yaml",
        *(pytest.param(f"real_fake_{kind}.yaml", marks=pytest.mark.slow) for kind in ("detached", "full")),
    ],
)
def test_experiment_runs(config: str, run: Run, face_root: Path, tmp_path: Path) -> None:
    data = [f"--data.root={face_root}", f"--data.cache_dir={tmp_path / 'cache'}"]
    keep = f"--trainer.callbacks+={Kept.__module__}.Kept"
    runs = run("fit", f"--config={FACES / config}", *NARROW, *SMALL, *data, keep)
    content = yaml.safe_load((FACES / config).read_text())
    run_dir = runs / content["name"] / "version_0"
    for metric in ("accuracy", "auroc", "average_precision", "calibration_error", "f1", "mse", "psnr", "ssim"):
        assert len(values(run_dir, f"test/{metric}")) == 1
    pictures = {str(path.relative_to(run_dir / "images")) for path in run_dir.glob("images/*/*.png")}
    assert {"labelled/test.png", "code_plane/test.png", "confusion/test.png"} <= pictures
    assert Kept.module.reconstruction == ("detached" if "detached" in config else "joint")


def test_the_full_size_is_that_of_the_system() -> None:
    small, full = (yaml.safe_load((FACES / name).read_text()) for name in ("real_fake.yaml", "real_fake_full.yaml"))
    networks = full["model"]["init_args"]
    assert [networks[part]["init_args"]["width"] for part in ("encoder", "decoder")] == [1.0, 1.0]
    assert full["base"] == "real_fake.yaml"
    assert small["trainer"]["precision"] == "bf16-mixed"
