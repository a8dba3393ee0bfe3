import csv
import json
import os
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision import models

from lightning_modules.networks import inverters
from preimage.__main__ import main
from preimage.evaluation.atlas import CONFIG, _config, _mean, _noted, decoder_for
from preimage.runs import claimed

LAYERS = ["features.2", "features.12"]


def atlas(tiny: Path, out: Path, *flags: str, layers: list[str] = LAYERS, apart: bool = False) -> list[dict[str, str]]:
    own = ["--network=squeezenet1_1", "--weights=random", "--feature_size=64", "--width=0.03", f"--out={out}"]
    fit = [f"--data.root={tiny}", "--data.num_classes=3", "--data.test_per_class=4"]
    fit += [
        f"--data.cache_dir={tiny.parent}",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=2",
        "--curves=null",
    ]
    fit = [word for flag in fit for word in flag.split("=")] if apart else fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["preimage"])
        main(["atlas", *own, "--layers", *layers, *fit, "--trainer.enable_model_summary=false", *flags])
    return table(out)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "atlas.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tiny_imagenet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An atlas of two layers, as it was made."""
    out = tmp_path_factory.mktemp("atlas")
    atlas(tiny_imagenet, out, "--optimize=3")
    return out


@pytest.fixture
def there(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on with."""
    return shutil.copytree(whole, tmp_path / "atlas")


def test_atlas_has_a_row_per_layer(whole: Path) -> None:
    rows = table(whole)
    assert [row["layer"] for row in rows] == ["mean image", *LAYERS]
    assert [row["shape"] for row in rows[1:]] == ["64 x 15 x 15", "512 x 3 x 3"]
    for row in rows[1:]:
        assert float(row["psnr_64"]) > 5
        assert float(row["psnr_64_search"]) > 5
        minutes = json.loads((whole / row["layer"] / "done.json").read_text())["minutes"]
        assert float(row["minutes"]) == pytest.approx(minutes)
    assert Image.open(whole / "atlas.png").size[0] > 300
    assert (whole / "atlas.md").read_text().count("\n") == 5


def test_what_is_done_is_skipped_whatever_the_spaces_comments_and_epochs(
    tiny_imagenet: Path, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*.ckpt")}
    commented = tmp_path / "commented.yaml"
    commented.write_text(f"# a comment\n{CONFIG.read_text()}")
    atlas(tiny_imagenet, there, f"--config={commented}", "--trainer.max_epochs=20", apart=True)
    assert capsys.readouterr().out.count(": done") == 2
    assert len(before) == 4 and before == {path: path.stat().st_mtime_ns for path in there.rglob("*.ckpt")}


def test_an_interrupted_atlas_goes_on(tiny_imagenet: Path, there: Path) -> None:
    (there / LAYERS[1] / "done.json").unlink()  # killed before the end of the second layer, after a checkpoint
    rows = {row["layer"]: row for row in atlas(tiny_imagenet, there, "--trainer.max_epochs=2")}
    with (there / LAYERS[1] / "metrics.csv").open() as file:
        assert max(float(row["epoch"]) for row in csv.DictReader(file) if row["epoch"]) >= 1
    assert float(rows[LAYERS[0]]["minutes"]) > 0
    assert rows[LAYERS[1]]["minutes"] == ""  # of two sessions, of which one is not known


def test_a_layer_of_another_process_is_left_to_it(
    tiny_imagenet: Path, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(there / LAYERS[0])
    with claimed(there / LAYERS[0]):
        rows = atlas(tiny_imagenet, there)
    assert [row["layer"] for row in rows] == ["mean image", LAYERS[1]]
    assert f"{LAYERS[0]}: process {os.getpid()} on " in capsys.readouterr().out
    assert [row["layer"] for row in atlas(tiny_imagenet, there)] == ["mean image", *LAYERS]


@pytest.mark.parametrize(
    "flag", ["--width=0.05", "--weights=other.pth", "--data.split_seed=1", "--model.optimizer.lr=0.1"]
)
def test_an_atlas_of_other_settings_is_not_believed(
    flag: str, tiny_imagenet: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "other.pth")
    with pytest.raises(SystemExit):
        atlas(tiny_imagenet, whole, flag.replace("other.pth", str(tmp_path / "other.pth")))
    assert "features.2 was trained with other weights, data or options" in capsys.readouterr().err


def test_a_wrong_layer_ends_it_before_anything_is_trained(
    tiny_imagenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        atlas(tiny_imagenet, tmp_path, layers=["features.2", "featres.12"])
    assert "no layer featres.12: the nearest are features." in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("shape", "size"), [((256, 6, 6), 48), ((192, 13, 13), 52), ((64, 31, 31), 62), ((64, 63, 63), 63), ((1000,), 64)]
)
def test_decoders_get_as_close_to_the_wanted_size_as_doubling_can(shape: tuple[int, ...], size: int) -> None:
    decoder = decoder_for(shape, 64, 0.5)
    assert decoder["init_args"]["image_size"] == size
    assert decoder["class_path"] == ("ConvInverter" if len(shape) == 3 else "FullyConnectedInverter")


@pytest.mark.parametrize("shape", [(197, 24), (8, 8, 192), (16, 4, 2), (32, 8, 8), (16,)])
def test_decoders_fit_tokens_and_channels_last(shape: tuple[int, ...]) -> None:
    config = decoder_for(shape, 32, 0.03)
    decoder = getattr(inverters, config["class_path"])(**config["init_args"])
    assert decoder(torch.rand(2, *shape)).shape == (2, 3, 32, 32)


def test_the_mean_image_is_that_of_all_images_at_once() -> None:
    images = torch.randint(256, (150, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean = _mean(images)
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, images.float().mean(dim=0) / 255, atol=1e-5, rtol=0)


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"minutes": "many"}', "{", "[" * 2000, ""])
def test_a_damaged_file_of_a_layer_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "done.json").write_text(text)
    with pytest.raises(ValueError, match=r"done\.json (is damaged: it has no minutes; remove it|cannot be read)"):
        _noted(tmp_path / "done.json", "minutes", int | float)


def test_tokens_and_maps_with_channels_last_are_inverted_as_grids(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    for name, layer, channels in (
        ("vit_tiny_patch16_224", "blocks.0", 192),
        ("swin_tiny_patch4_window7_224", "layers.3", 768),
    ):
        asked = Namespace(network=f"timm/{name}", weights="random", feature_size=64 if "vit" in name else None)
        options = Namespace(**vars(asked), image_size=64, width=0.5, out=tmp_path, config=[])
        model = _config(options, layer, [])[0]["model"]["init_args"]
        assert model["encoder"]["init_args"]["tokens"] == "grid"
        assert model["decoder"]["class_path"] == "ConvInverter"
        assert model["decoder"]["init_args"]["in_channels"] == channels
        assert options.feature_size == (64 if "vit" in name else 224)
