import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules.image_cache import decode
from lightning_modules import FrozenFeatures
from preimage.__main__ import main
from tests.conftest import PLAIN, Run

pytestmark = [pytest.mark.filterwarnings("ignore:.*RANDOM weights"), pytest.mark.usefixtures("elsewhere")]

VIT = ["--network=timm/vit_tiny_patch16_224", "--layer=blocks.1", "--weights=random", "--image_size=64"]
ALEXNET = ["--network", "alexnet", "--layer", "conv1", "--weights", "random", "--image_size", "64"]
NAMES = [f"{split}/{kind}/{index}.png" for split in ("test", "train") for kind in ("cat", "dog") for index in range(2)]


def write_images(root: Path, names: list[str]) -> Path:
    """Pictures of a size that a network neither has nor divides."""
    generator = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(root / name)
    return root


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_images(tmp_path / "pets", NAMES)


def predict(*args: object) -> None:
    main(["predict", *map(str, args)])


def arrays(path: str = "codes.npz") -> dict[str, Any]:
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize("tokens", ["all", "cls"])
def test_the_codes_of_a_labelled_folder_are_those_of_the_layer(pets: Path, tokens: Any) -> None:
    pytest.importorskip("timm")
    predict(*VIT, "--tokens", tokens, f"--data.root={pets}", "--out=codes.npz")
    found = arrays()
    features = FrozenFeatures("timm/vit_tiny_patch16_224", "blocks.1", "random", 64, tokens=tokens)
    images = torch.stack([features.picture(Image.open(pets / name)) for name in NAMES])
    expected = features(images / 255)
    assert expected.shape == ((8, 192) if tokens == "cls" else (8, 17, 192))
    assert found["code"].dtype == np.float32
    assert torch.from_numpy(found["code"]).allclose(expected, atol=1e-5)
    assert found["name"].tolist() == NAMES
    assert found["label"].tolist() == [0, 0, 1, 1] * 2
    assert found["class_names"].tolist() == ["cat", "dog"]


def alexnets(root: Path, names: list[str]) -> Tensor:
    features = FrozenFeatures("alexnet", "conv1", "random", 64)
    pixels = np.stack([decode((root / name).read_bytes(), 64) for name in names])
    return features(torch.from_numpy(pixels) / 255)


def test_images_without_labels_come_straight_from_a_zip_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{index:02}.png" for index in range(70)]  # more than a batch
    root = write_images(tmp_path / "some", names)
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for name in reversed(names):
            archive.write(root / name, name)
    predict(*ALEXNET, "--data.root", "some.zip")
    assert "alexnet_conv1.npz: code (70, 64, 7, 7), label (70,)" in capsys.readouterr().out
    found = arrays("alexnet_conv1.npz")
    assert torch.from_numpy(found["code"]).allclose(alexnets(root, names), atol=1e-5)
    assert found["name"].tolist() == names
    assert found["label"].tolist() == [-1] * 70
    assert found["class_names"].tolist() == []


def test_images_of_a_test_without_labels_are_not_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    names = [*(name for name in NAMES if name.startswith("train")), "test/1.png", "test/2.png"]
    predict(*ALEXNET, "--data.root", write_images(tmp_path / "pets", names), "--out=codes.npz")
    found = arrays()
    assert found["name"].tolist() == names
    assert found["label"].tolist() == [0, 0, 1, 1, -1, -1]
    assert "left out" not in capsys.readouterr().err + caplog.text


def test_labels_come_from_a_table_in_its_order(pets: Path) -> None:
    rows = ["file,label", *(f"{NAMES[index]},{'xy'[index % 2]}" for index in (5, 0, 6, 3))]
    (pets / "labels.csv").write_text("\n".join(rows))
    predict(*ALEXNET, "--data.root", pets, "--data.layout", "csv", "--out", "below/codes.npz")
    found = arrays("below/codes.npz")
    names = [NAMES[index] for index in (5, 0, 6, 3, 1, 2, 4, 7)]  # and then those without a row
    assert found["name"].tolist() == names
    assert found["label"].tolist() == [1, 0, 0, 1, -1, -1, -1, -1]
    assert found["class_names"].tolist() == ["x", "y"]
    assert torch.from_numpy(found["code"]).allclose(alexnets(pets, names), atol=1e-5)


@pytest.mark.parametrize("layout", ["auto", "flat"])
def test_a_parquet_file_holds_the_same(pets: Path, layout: str) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    for out in ("codes.npz", "codes.parquet"):
        predict(*ALEXNET, "--data.root", pets, "--data.layout", layout, "--out", out)
    expected, frame = arrays(), pd.read_parquet("codes.parquet")
    codes = np.stack(frame["code"].tolist()).reshape(len(frame), *frame.attrs["code_shape"])
    assert np.array_equal(codes, expected["code"]) and codes.dtype == np.float32
    assert frame["name"].tolist() == expected["name"].tolist()
    assert frame["label"].tolist() == expected["label"].tolist()
    classes = [] if layout == "flat" else ["cat", "cat", "dog", "dog"] * 2
    assert frame.get("class_name", pd.Series(dtype=str)).tolist() == classes


def test_without_its_library_no_parquet_file_is_promised(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert error(capsys, *ALEXNET, f"--data.root={pets}", "--out=a.parquet").startswith(
        "error: pyarrow is not installed: pip install 'preimage[parquet]' brings it"
    )


def test_a_bad_image_ends_it_or_is_left_out(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pets / NAMES[1]).write_bytes(b"no picture")
    said = error(capsys, *ALEXNET, f"--data.root={pets}")
    assert f"the image {NAMES[1]} cannot be read (its content is no image); mend or remove it" in said
    assert not Path("alexnet_conv1.npz").exists()
    predict(*ALEXNET, f"--data.root={pets}", "--data.on_bad_image=skip", "--out=codes.npz")
    found, good = arrays(), [NAMES[0], *NAMES[2:]]
    assert found["name"].tolist() == good
    assert found["label"].tolist() == [0, 1, 1, 0, 0, 1, 1]
    assert torch.from_numpy(found["code"]).allclose(alexnets(pets, good), atol=1e-5)
    for name in NAMES:
        (pets / name).write_bytes(b"")
    said = error(capsys, *ALEXNET, f"--data.root={pets}", "--data.on_bad_image=skip")
    assert f"no image can be read, as {NAMES[0]} (the file is empty)" in said


def error(capsys: pytest.CaptureFixture[str], *args: str, code: int = 1) -> str:
    with pytest.raises(SystemExit) as stop:
        predict(*args)
    assert stop.value.code == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--data.root=nowhere"], 1, "no images at nowhere: expected a folder or zip file with class folders"),
        (["--layer=conv9"], 1, "alexnet has no layer conv9: the nearest are conv5"),
        (["--network=alxnet"], 1, "torchvision has no network alxnet: the nearest are alexnet"),
        (["--layer=conv5", "--image_size=16"], 1, "the network does not take images of 3 x 16 x 16"),
        (["--network=timm/resnet18"], 1, "timm is not installed: pip install 'preimage[encoders]' brings it"),
        (["--weights=nofile.pt"], 1, "alexnet has no weights nofile.pt"),
        (["--tokens=cls"], 1, "conv1 gives 64 x 7 x 7, which has no class token"),
        (["--data.table=labels.csv", "--data.layout=flat"], 1, "data.layout=flat reads no table"),
        (["--out=codes.txt"], 2, "give a file that ends in .npz or .parquet, not codes.txt"),
        (["--image_size=0"], 2, "give a whole number from 1 up, not 0"),
        (["--config=x.yaml"], 2, "unrecognized arguments: --config=x.yaml"),
    ],
)
def test_errors_are_one_line(
    pets: Path,
    flags: list[str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert words in error(capsys, *ALEXNET, f"--data.root={pets}", *flags, code=code)
    assert {path.name for path in Path().iterdir()} == {"pets"}


def test_a_run_of_ones_own_is_a_network_too(pets: Path, run: Run) -> None:
    (run("fit", *PLAIN) / "quickstart/version_0").rename("digits")  # and a name like those of torchvision
    predict("--network", "digits", "--layer", "0", "--image_size", 28, f"--data.root={pets}", "--out=codes.npz")
    features = FrozenFeatures("digits", "0", image_size=28)
    images = torch.stack([features.picture(Image.open(pets / name)) for name in NAMES])
    assert images.shape == (8, 1, 28, 28)
    assert torch.from_numpy(arrays()["code"]).allclose(features(images / 255), atol=1e-5)
