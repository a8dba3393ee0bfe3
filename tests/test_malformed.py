"""Whatever is wrong with a config, a file or a folder of images, one line names it."""

import gzip
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import ImageFolderDataModule, MNISTDataModule, TinyImageNetDataModule
from preimage.errors import explain
from tests.conftest import QUICK, Fails, write_idx

CONFIGS = [
    ("[" * 2000, 2, "config.yaml cannot be read: it is nested too deep"),
    ("trainer: &a {max_epochs: *a}\n", 2, "config.yaml cannot be read: it is nested too deep, or within itself"),
    ("model: &m {class_path: Autoencoder, init_args: {encoder: *m}}\n", 2, "config.yaml cannot be read: it is nested"),
    ("trainer: {max_epochs: " + "9" * 400 + "}\n", 2, "config.yaml cannot be read: int too large"),
    ("trainer: {max_epochs: " + "9" * 5000 + "}\n", 2, "config.yaml cannot be read: Exceeds the limit"),
    ("name: !!binary aGk=\n", 2, "config.yaml cannot be read: it holds a bytes"),
    ("name: a\n---\nname: b\n", 2, "config.yaml cannot be read: line 2"),
    (
        "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: val/x,"
        " mode: min}}]}\n",
        1,
        "error: Early stopping conditioned on metric `val/x` which is not available",
    ),
    ("model: [\n", 2, "line 2"),
    ("\tmodel: x\n", 2, "line 1"),
    ("model: *nothing\n", 2, "config.yaml"),
    ("- model\n", 2, "config.yaml"),
    ("model\n", 2, "config.yaml"),
    ("\x00", 2, "config.yaml"),
    ("model: !!python/object/apply:os.mkdir [executed]\n", 2, "python/object/apply:os.mkdir"),
    ("model: !!python/name:os.system\n", 2, "python/name:os.system"),
    ("modle: {max_epochs: 3}\n", 2, "modle"),
    ("name: [a]\n", 2, "name"),
    ("seed_everything: many\n", 2, "seed_everything"),
    ("model: {class_path: Nothing}\n", 2, "Nothing"),
    ("model: {class_path: os.system}\n", 2, "os.system"),
    ("model: {class_path: torch.nn.Linear}\n", 2, "torch.nn.Linear"),
    ("model: {init_args: {encoder: 3}}\n", 2, "encoder"),
    (
        "model: {init_args: {encoder: {class_path: MNISTEncoder, init_args: {latent_dim: -1}}}}\n",
        1,
        "MNISTEncoder.latent_dim=-1 must be at least 1",
    ),
    (
        "model: {init_args: {encoder: {class_path: MNISTEncoder, init_args: {latent_dim: 100000000000000}}}}\n",
        1,
        "a size of the model is too large for this machine",
    ),
    ("model: {init_args: {encoder: {class_path: MNISTDecoder}}}\n", 1, "does not take the data's images (1, 28, 28)"),
    ("model: {init_args: {optimizer: {class_path: torch.optim.Adm}}}\n", 2, "torch.optim.Adm"),
    ("model: {init_args: {optimizer: {class_path: torch.optim.Adam, init_args: {lr: fast}}}}\n", 2, "lr"),
    ("model: {init_args: {optimizer: {class_path: torch.optim.Adam, init_args: {lr: -1}}}}\n", 1, "learning rate: -1"),
    ("model: {init_args: {scheduler: {class_path: Nothing}}}\n", 2, "Nothing"),
    ("data: {init_args: {batch_size: many}}\n", 2, "batch_size"),
    ("data: {init_args: {batch_size: 0}}\n", 1, "data.batch_size"),
    ("data: {init_args: {val_size: 99999}}\n", 1, "data.val_size=99999"),
    ("data: {init_args: {num_labels: 7}}\n", 1, "num_labels=7"),
    ("data: {init_args: {augmentations: [{class_path: Nothing}]}}\n", 2, "Nothing"),
    ("trainer: {max_epochs: -5}\n", 1, "max_epochs"),
    ("trainer: {devices: -3}\n", 1, "devices"),
    ("trainer: {precision: 17}\n", 2, "precision"),
    ("trainer: {accelerator: abacus}\n", 1, "abacus"),
    ("trainer: {strategy: nothing}\n", 1, "nothing"),
    ("trainer: {limit_train_batches: -1}\n", 1, "limit_train_batches"),
    ("trainer: {devices: many}\n", 1, "error: trainer: `devices`"),
    (
        "seed_everything: -1\n",
        1,
        "error: -1 is not in bounds, numpy accepts from 0 to 4294967295: give another seed_everything",
    ),
    (
        "model: {init_args: {scheduler: null, optimizer: {class_path: torch.optim.Adam, init_args: {lr: 1.0e+38}}}}\n",
        1,
        "without overflow: a setting of the optimizer, most often lr, is too large",
    ),
    ("trainer: {callbacks: [{class_path: Nothing}]}\n", 2, "Nothing"),
    ("trainer: {callbacks: [{class_path: ReconstructionGrid, init_args: {color: red}}]}\n", 2, "color"),
    ("trainer: {logger: [{class_path: Nothing}]}\n", 2, "trainer.logger"),
    ("checkpoint: {monitor: val/nothing}\n", 1, "val/nothing"),
    ("checkpoint: {mode: median}\n", 2, "median"),
    ("last_checkpoint: {every_n_steps: 0}\n", 1, "last_checkpoint.every_n_steps=0"),
    (
        "stop_on_nan: {class_path: callbacks.StopOnNaN, init_args: {every_n_steps: 0}}\n",
        1,
        "stop_on_nan.every_n_steps=0",
    ),
]


@pytest.mark.parametrize(("text", "code", "culprit"), CONFIGS)
def test_configs(
    fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int, culprit: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(text)
    assert culprit in fails("fit", *QUICK, "--config", "config.yaml", code=code)
    assert not Path("executed").exists()


FLAGS = [
    (["--config", "."], 2, "."),
    (["--ckpt_path", "nowhere.ckpt"], 1, "nowhere.ckpt"),
    (["--ckpt_path", "."], 1, "no checkpoint at checkpoints/last.ckpt"),
    (["--ckpt_path", "text.ckpt"], 1, "text.ckpt is truncated or no checkpoint"),
    (["--ckpt_path", "tensor.ckpt"], 1, "tensor.ckpt is no Lightning checkpoint"),
    (["--ckpt_path", "last"], 1, "--ckpt_path last"),
    (["--model.encoder_checkpoint", "nowhere.ckpt"], 1, "nowhere.ckpt"),
    (["--run_dir", "text.ckpt"], 1, "text.ckpt"),
]


@pytest.mark.parametrize("text", ["name: café".encode("latin-1"), "name: a".encode("utf-16"), bytes(range(256))])
def test_a_config_that_is_no_text_is_named(fails: Fails, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(text)
    assert "config.yaml cannot be read: 'utf-8' codec" in fails("fit", "--config", tmp_path / "config.yaml", code=2)


@pytest.mark.parametrize(("flags", "code", "culprit"), FLAGS)
def test_flags(
    fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], code: int, culprit: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.ckpt").write_text("no checkpoint")
    torch.save(torch.zeros(3), "tensor.ckpt")
    assert culprit in fails("fit", *QUICK, *flags, code=code)


def pictures(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(name)


def folder(**files: bytes) -> Callable[[], None]:
    """Two classes of four pictures, and other files."""

    def make() -> None:
        pictures(*(f"data/{name}/{index}.png" for name in "ab" for index in range(4)))
        for name, content in files.items():
            Path("data", name.replace("__", "/").replace("_dot_", ".")).write_bytes(content)

    return make


def empty() -> None:
    Path("data").mkdir()


def archive() -> None:
    with zipfile.ZipFile("data", "w") as file:
        file.writestr("../a.png", b"")


def half_an_archive() -> None:
    with zipfile.ZipFile("data", "w") as file:
        file.writestr("a/1.png", bytes(1000))
    Path("data").write_bytes(Path("data").read_bytes()[:-30])


def digits(change: Callable[[], Any]) -> Callable[[], None]:
    """The files of MNIST with few images, and a change to them."""

    def make() -> None:
        for split in ("train", "t10k"):
            write_idx(Path(f"data/{split}-images-idx3-ubyte"), np.zeros((100, 28, 28), np.uint8))
            write_idx(Path(f"data/{split}-labels-idx1-ubyte"), np.arange(100, dtype=np.uint8) % 10)
        change()

    return make


IMAGES, LABELS = Path("data/train-images-idx3-ubyte"), Path("data/train-labels-idx1-ubyte")
FOLDER, MNIST = partial(ImageFolderDataModule, image_size=32), partial(MNISTDataModule, "mnist")
TINY = TinyImageNetDataModule
TREES = [
    (lambda: None, FOLDER, "no images at data"),
    (empty, FOLDER, "data holds 0 images"),
    (
        lambda: pictures("data/1.png", "data/2.png"),
        partial(FOLDER, layout="splits"),
        "data holds 2 images, but not",
    ),
    (lambda: pictures("data/a/1.png", "data/a/2.png"), partial(FOLDER, layout="folders"), "1 class ['a']"),
    (lambda: pictures("data/a/1.png", "data/b/2.png"), FOLDER, "too few images (2) for data.test_fraction=0.2"),
    (lambda: pictures("data/bus/1.png", "data/train/2.png"), FOLDER, "train/ beside bus/ may be a class or a split"),
    (lambda: pictures("data/train/n01443537/images/1.JPEG"), FOLDER, "TinyImageNetDataModule takes it"),
    (lambda: pictures("data/train/a/1.png"), TINY, "ImageFolderDataModule takes other images"),
    (lambda: pictures("data/train/a/1.png"), MNIST, "ImageFolderDataModule takes other images"),
    (digits(lambda: None), FOLDER, "MNISTDataModule takes them"),
    (lambda: pictures("data/a/1.png", "data/b/2.png"), partial(FOLDER, test_fraction=0.5), "too few images"),
    (folder(a__text_dot_png=b"no picture"), FOLDER, "a/text.png cannot be read"),
    (folder(a__empty_dot_png=b""), FOLDER, "a/empty.png cannot be read"),
    (folder(labels_dot_csv=b"filename,label\nnone.png,a\n"), FOLDER, "labels.csv, row 2 names none.png"),
    (folder(labels_dot_csv=b"filename,label\na/1.png,x\nb/1.png\n"), FOLDER, "labels.csv, row 3 gives no label"),
    (folder(labels_dot_csv=b"filename,label\n../../1.png,x\n"), FOLDER, "row 2: ../../1.png leaves the folder"),
    (folder(labels_dot_csv=b'filename,label\na/1.png,"' + b"x" * 200_000), FOLDER, "field larger than field limit"),
    (folder(), partial(FOLDER, val_fraction=1.5), "data.val_fraction=1.5"),
    (folder(), partial(FOLDER, image_size=0), "data.image_size=0 must be at least 1"),
    (folder(), TINY, "no images of Tiny ImageNet in data"),
    (archive, FOLDER, "../a.png leaves the archive"),
    (half_an_archive, FOLDER, "data is no folder and no whole zip file"),
    (digits(lambda: LABELS.unlink()), MNIST, "train-labels-idx1"),
    (digits(lambda: IMAGES.write_bytes(IMAGES.read_bytes()[:-1])), MNIST, "train-images-idx3-ubyte is truncated"),
    (digits(lambda: IMAGES.write_bytes(b"\x1f\x8b")), MNIST, "train-images-idx3-ubyte is not an IDX file"),
    (digits(lambda: IMAGES.rename(f"{IMAGES}.gz")), MNIST, "train-images-idx3-ubyte.gz is truncated or damaged"),
    (digits(lambda: LABELS.write_bytes(gzip.compress(b""))), MNIST, "train-labels-idx1-ubyte is not an IDX file"),
    (digits(lambda: write_idx(LABELS, np.zeros(99, np.uint8))), MNIST, "do not belong together"),
    (digits(lambda: write_idx(LABELS, np.full(100, 10, np.uint8))), MNIST, "has a label 10"),
    (digits(lambda: write_idx(IMAGES, np.zeros((100, 8, 8), np.uint8))), MNIST, "(100, 8, 8)"),
]


@pytest.mark.parametrize(("make", "data", "culprit"), TREES)
def test_trees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], None], data: Callable[..., Any], culprit: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make()
    with pytest.raises((ValueError, OSError)) as error:
        module = data(root="data", cache_dir="cache")
        module.prepare_data()
        module.setup("fit")
    assert culprit in explain(error.value)


COLOUR = ["--data=ImageFolderDataModule", "--data.image_size=32", "--model.encoder=ConvGaussianEncoder"]
COLOUR += ["--model.encoder.width=1", "--model.decoder=ConvDecoder"]


@pytest.mark.parametrize(
    ("make", "flags", "culprit"),
    [
        (lambda: pictures("data/test/a/1.png"), COLOUR, "no image to train on, since all are for test"),
        (folder(a__text_dot_png=b"no picture"), COLOUR, "a/text.png cannot be read"),
        (digits(lambda: LABELS.unlink()), ["--data.dataset=mnist"], "train-labels-idx1"),
    ],
)
def test_a_command_ends_with_the_line_of_its_data(
    fails: Fails,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[], None],
    flags: list[str],
    culprit: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    make()
    assert culprit in fails("fit", *QUICK[:-2], "--data.cache_dir=cache", *flags, "--data.root=data")
