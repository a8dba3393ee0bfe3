"""What only a GPU shows. It has never run: no machine with one was at hand when it was written."""

import math
import sys
from pathlib import Path

import pytest
import torch

from lightning_modules.neighbours import nearest
from preimage.evaluation import linear_probe
from preimage.evaluation.linear_probe import LinearProbe
from preimage.evaluation.runs import figures_of
from tests.conftest import ROOT, Run
from tests.preimage.evaluation.test_probes import classes

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
sys.path.append(str(ROOT / "benchmarks"))
import gpu  # noqa: E402


@pytest.fixture
def loss(run: Run, tmp_path: Path) -> float:
    """The loss of a narrow network after six steps on the CPU."""
    return trained(run, tmp_path, "cpu", "--trainer.accelerator=cpu", "--trainer.precision=32-true")


def trained(run: Run, tmp_path: Path, name: str, *flags: str) -> float:
    narrow = gpu.flags_of(gpu.FULL, gpu.faces(tmp_path / "faces", True), True)[:-2]
    folder = tmp_path / name
    run("fit", *narrow, "--seed_everything=1", "--data.augmentations=null", *flags, f"--run_dir={folder}")
    return figures_of(folder)["train/loss"]


@pytest.mark.parametrize("way", gpu.WAYS)
def test_every_way_to_train_comes_to_the_loss_of_the_cpu(way: str, run: Run, tmp_path: Path, loss: float) -> None:
    found = trained(run, tmp_path, "gpu", "--trainer.accelerator=gpu", *gpu.WAYS[way], "--trainer.devices=1")
    assert math.isfinite(loss)
    assert found == pytest.approx(loss, rel=0.05)


def test_probes_on_a_gpu_say_what_they_say_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, labels = classes(4000, 64, 5, 0)
    for part, other in zip(nearest(codes, codes[:500], 10), nearest(codes.cuda(), codes[:500], 10), strict=True):
        assert (part - other.cpu()).abs().double().mean() < 1e-3
    monkeypatch.setattr(linear_probe, "LARGE", 0)
    fits = [LinearProbe(1.0, device=device).fit(codes, labels).predict(codes) for device in ("cpu", "cuda")]
    assert (fits[0] == fits[1]).float().mean() > 0.998
