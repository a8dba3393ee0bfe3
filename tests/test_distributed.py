"""Two processes on the CPU give what one gives."""

import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules import MNISTDataModule
from main import main
from tests.conftest import QUICK, ROOT, Run
from tests.test_cli import values


def test_two_processes_make_one_run_and_count_every_image_once(run: Run, tmp_path: Path) -> None:
    run_dir = tmp_path / "runs/quickstart/version_0"
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.default_root_dir", str(tmp_path / "runs")]

    def start(command: str, *flags: str) -> str:
        process = [sys.executable, str(ROOT / "main.py"), command, *QUICK, *two, *flags]
        done = subprocess.run(process, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    out = start("fit", "--test_after_fit")
    assert out.count("epoch 1/1  train/loss") == 1  # from rank 0 only
    assert {path.name for path in run_dir.parent.iterdir()} == {"version_0"}
    assert len(list(run_dir.glob("images/**/*.png"))) == 3
    start("predict", "--ckpt_path", "last")
    predictions = np.load(run_dir / "predictions.npz")
    data = MNISTDataModule()
    data.setup("predict")
    assert predictions["label"].tolist() == data.test_set.labels.tolist()  # all of them, in the data's order
    run("test", *QUICK, "--ckpt_path", "last")
    for metric in ("mse", "psnr", "ssim"):
        distributed, single = values(run_dir, f"test/{metric}")
        assert distributed == pytest.approx(single, rel=1e-5)
    images = data.test_set.images.numpy() / 255
    assert values(run_dir, "test/mse")[0] == pytest.approx(
        ((predictions["reconstruction"] - images) ** 2).mean(), rel=1e-4
    )


class OneBadImage(Callback):
    """Gives one of the processes an image that is no number."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 1:
            batch[0].fill_(float("nan"))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_loss_that_is_no_number_on_one_process_ends_all(tmp_path: Path, precision: str) -> None:
    def child() -> None:
        sys.argv = ["preimage"]
        flags = ["--trainer.devices", "2", "--trainer.strategy", "ddp_fork", "--trainer.precision", precision]
        flags += ["--trainer.callbacks", "tests.test_distributed.OneBadImage", "--run_dir", str(tmp_path / "run")]
        main(["fit", *QUICK, *flags])

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(600)
    assert process.exitcode == 1
    assert not (tmp_path / "run/checkpoints/last.ckpt").exists()
