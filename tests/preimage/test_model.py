import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from datamodules.image_cache import decode, square
from lightning_modules import Classifier, FrozenFeatures
from preimage.evaluation.runs import find_run, load_model
from preimage.model import Model, load
from tests.conftest import QUICK, ROOT, Run

FACES = ["--data=ImageFolderDataModule", "--data.image_size=16", "--data.batch_size=4"]
FACES += ["--model.encoder=ConvGaussianEncoder", "--model.decoder=ConvDecoder", "--model=VAE", "--model.latent_dim=4"]


@pytest.fixture
def digits_run(run: Run) -> Path:
    return run("fit", *QUICK, "--trainer.callbacks=null") / "quickstart/version_0"


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Pictures of several sizes and modes, in two folders."""
    generator = np.random.default_rng(0)
    for index, (mode, size) in enumerate([("RGB", (40, 30)), ("L", (32, 32)), ("RGBA", (50, 64)), ("RGB", (32, 32))]):
        path = tmp_path / "pictures" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (size[1], size[0], len(mode) if mode != "L" else 1), dtype=np.uint8)
        Image.fromarray(pixels.squeeze()).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def colour(tmp_path: Path) -> Model:
    """A model of colour images of 32 pixels, without a run."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    return Model(encoder, lambda image: torch.from_numpy(square(image, 32).copy()), (3, 32, 32), "cpu")


def test_a_run_is_asked_in_three_lines(digits_run: Path) -> None:
    model = load(digits_run)
    images = torch.randint(0, 256, (70, 1, 28, 28), dtype=torch.uint8)
    own = load_model(find_run(digits_run))
    with torch.no_grad():
        codes, rebuilt = own.encode(images.float() / 255), own(images.float() / 255)
    assert torch.allclose(model.encode(images), codes, atol=1e-6)
    assert torch.allclose(model.reconstruct(images), rebuilt, atol=1e-6)
    assert torch.allclose(model.decode(codes), rebuilt, atol=1e-6)
    assert torch.allclose(model.decode(codes.double().numpy()), rebuilt, atol=1e-6)
    assert not model.module.training
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert torch.allclose(load(digits_run / "checkpoints/last.ckpt").encode(images), codes, atol=1e-6)
    with pytest.raises(ValueError, match="Autoencoder cannot classify, only encode, decode, reconstruct"):
        model.classify(images)


def test_what_is_loaded_is_for_reading(run: Run, tmp_path: Path) -> None:
    flags = ["--data.dataset=digits5k", "--model.head.dropout=0.5", "--trainer.limit_train_batches=2"]
    flags += ["--trainer.max_epochs=1", "--trainer.callbacks=null", "--curves=null"]
    folder = run("fit", "--config", ROOT / "configs/mnist/classifier.yaml", *flags) / "classifier/version_0"
    path = Path(shutil.copy(folder / "checkpoints/last.ckpt", tmp_path / "alone.ckpt"))
    images = torch.rand(6, 1, 28, 28)
    for model in (load(folder), load(path)):
        assert not any(module.training for module in model.module.modules())
        parts = [*model.module.parameters(), *model.module.buffers()]
        assert {(part.device, part.requires_grad) for part in parts} == {(model.device, False)}
        assert model.classify(images).equal(model.classify(images))
    # Lightning's own way is there for who trains on, as Lightning documents it.
    module = Classifier.load_from_checkpoint(path, map_location="cpu")
    assert module.training and all(parameter.requires_grad for parameter in module.parameters())
    assert not module.classify(images).equal(module.classify(images))
    assert torch.allclose(module.eval().classify(images), model.classify(images), atol=1e-6)


def test_digits_come_as_pictures_of_any_kind(digits_run: Path) -> None:
    model = load(digits_run)
    gray = torch.randint(0, 256, (28, 28), dtype=torch.uint8)
    picture = Image.fromarray(gray.numpy())
    expected = model.encode(gray[None, None])
    for same in (picture, picture.convert("RGB"), [picture], gray[None], gray[None].numpy(), gray[None].float() / 255):
        assert torch.allclose(model.encode(same), expected, atol=1e-6)
    wide = Image.fromarray(np.pad(gray.numpy(), ((0, 0), (10, 10))))
    assert torch.allclose(model.encode(wide), expected, atol=1e-6)  # its middle square
    colour = gray.expand(3, -1, -1)
    assert torch.allclose(model.encode(colour), expected, atol=1e-6)


def test_files_folders_and_archives_are_converted_as_the_data_module_does(faces: Path, colour: Model) -> None:
    paths = [faces / "a/0.png", faces / "a/2.png", faces / "b/1.png", faces / "b/3.png"]
    pixels = torch.stack([torch.from_numpy(decode(path.read_bytes(), 32).copy()) for path in paths])
    expected = colour.encode(pixels)
    with zipfile.ZipFile(faces.parent / "pictures.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.relative_to(faces))
    names = np.array([str(path) for path in paths])
    for same in (
        faces,
        str(faces),
        paths,
        names,
        names.astype(object),
        map(Image.open, paths),
        faces.parent / "pictures.zip",
    ):
        assert torch.allclose(colour.encode(same), expected, atol=1e-6)  # type: ignore[arg-type]
    assert torch.allclose(colour.encode([paths[2], paths[0]]), expected[[2, 0]], atol=1e-6)
    assert torch.allclose(colour.encode([faces, pixels[:1], paths[1]]), expected[[0, 1, 2, 3, 0, 1]], atol=1e-6)


def test_a_layer_of_a_network_is_asked_too(faces: Path) -> None:
    torch.manual_seed(0)
    model = load("alexnet", "conv1", weights="random", image_size=64)
    features = FrozenFeatures("alexnet", "conv1", weights="random", image_size=64)
    pixels = torch.from_numpy(decode((faces / "a/0.png").read_bytes(), 64).copy())
    assert torch.allclose(model.encode(faces / "a/0.png"), features(pixels[None] / 255), atol=1e-5)
    assert model.encode(torch.rand(3, 3, 20, 30)).shape == model.encode(torch.rand(3, 3, 64, 64)).shape


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(2, 3, 32, 32) * 255, r"must be in \[0, 1\], and these are in"),
        (torch.full((1, 3, 32, 32), float("nan")), r"must be in \[0, 1\]"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int64), "int64 have no known range"),
        (torch.rand(2, 5, 32, 32), r"\(2, 5, 32, 32\) is no shape of images"),
        (torch.rand(32, 32), "is no shape of images"),
        (np.zeros((32, 32, 3), np.uint8), r"^\(32, 32, 3\) is no shape of images"),
        ([], "there is no image"),
        (3, "int is no image"),
        (["b/text.png"], r"text\.png: its content is no image"),
    ],
)
def test_what_is_no_image_is_named(
    colour: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("b").mkdir()
    Path("b/text.png").write_text("no picture")
    with pytest.raises(ValueError, match=words):
        colour.encode(images)


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run at"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no images at"):
        Model(nn.Flatten(), None).encode(tmp_path / "nowhere")


def test_a_network_of_timm_sees_pictures_as_its_own_evaluation_does() -> None:
    timm = pytest.importorskip("timm")
    model = load("timm/convnext_atto", "stages.0", weights="random")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 260, 3), np.uint8))
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg("convnext_atto").to_dict())
    expected = timm.data.create_transform(**config)(picture)[None]
    features = model.module
    assert isinstance(features, FrozenFeatures)
    assert model.encode(picture).allclose(features.network(expected)["stages.0"], atol=1e-4)
    white, clear = Image.new("RGB", (40, 30), "white"), Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    assert model.encode(clear).equal(model.encode(white))
    assert load("timm/convnext_atto", "stages.0", "random", tokens="mean").encode(picture).shape == (1, 40)
