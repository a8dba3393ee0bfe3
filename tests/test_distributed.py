"""Two processes on the CPU give what one gives."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules import MNISTDataModule
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


def test_two_processes_learn_from_batches_without_a_label(tmp_path: Path) -> None:
    config = str(ROOT / "configs/mnist/classifier_100_semi.yaml")
    flags = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu", "--trainer.max_epochs=1"]
    flags += ["--trainer.limit_train_batches=3", "--trainer.callbacks=[]", "--trainer.enable_model_summary=false"]
    flags += ["--data.dataset=digits5k", "--data.num_labels=10", "--data.label_repeat=1", "--data.batch_size=8"]
    flags += ["--model.encoder_checkpoint=null", "--model.fixmatch.threshold=0.1", "--model.decoder=MNISTDecoder"]
    command = [sys.executable, str(ROOT / "main.py"), "fit", "--config", config, *flags, f"--run_dir={tmp_path}/run"]
    subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert values(tmp_path / "run", "train/pseudo_labelled") == [1.0]
    assert 0 < values(tmp_path / "run", "train/mse")[0] < 0.5
    assert values(tmp_path / "run", "train/loss")[0] > 1
