import csv
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision import models

from lightning_modules.networks import inverters
from preimage.__main__ import main
from preimage.commands.atlas import parse
from preimage.evaluation.atlas import CONFIG, _noted, _overlay, decoder_for, mean_of
from preimage.runs import claimed

LAYERS = ["features.2", "features.12"]


def atlas(tiny: Path, out: Path, *flags: str) -> None:
    own = ["--network=squeezenet1_1", "--weights=random", "--feature_size=64", "--width=0.03", f"--out={out}"]
    fit = [f"--data.root={tiny}", "--data.num_classes=3", "--data.test_per_class=4", f"--data.cache_dir={tiny.parent}"]
    fit += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.enable_model_summary=false"]
    main(["atlas", *own, "--layers", *LAYERS, *fit, *flags])


def test_atlas_has_a_row_per_layer_and_skips_what_is_done(
    tiny_imagenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["preimage"])
    atlas(tiny_imagenet, tmp_path, "--optimize=3")
    with (tmp_path / "atlas.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["mean image", *LAYERS]
    assert [row["shape"] for row in rows[1:]] == ["64 x 15 x 15", "512 x 3 x 3"]
    for row in rows[1:]:
        run_dir = tmp_path / row["layer"]
        assert float(row["psnr_64"]) > 5
        assert float(row["psnr_64_search"]) > 5
        assert float(row["minutes"]) == pytest.approx(json.loads((run_dir / "done.json").read_text())["minutes"])
    assert Image.open(tmp_path / "atlas.png").size[0] > 300
    assert (tmp_path / "atlas.md").read_text().count("\n") == 5
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.ckpt")}
    capsys.readouterr()
    atlas(tiny_imagenet, tmp_path)
    assert capsys.readouterr().out.count(": done") == 2
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.ckpt")}


def test_spaces_and_comments_change_no_settings(
    tiny_imagenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["preimage"])
    monkeypatch.setattr(f"{__name__}.LAYERS", ["features.12"])
    atlas(tiny_imagenet, tmp_path, "--data.split_seed", "1", "--trainer.max_epochs", "1")
    commented = tmp_path / "commented.yaml"
    commented.write_text(f"# a comment\n{CONFIG.read_text()}")
    for flags in ([f"--config={commented}"], ["--trainer.max_epochs", "20"]):
        capsys.readouterr()
        atlas(tiny_imagenet, tmp_path, "--data.split_seed=1", *flags)
        assert "features.12: done" in capsys.readouterr().out


def test_an_interrupted_atlas_goes_on(tiny_imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["preimage"])
    atlas(tiny_imagenet, tmp_path)
    (tmp_path / LAYERS[1] / "done.json").unlink()  # killed before the end of the second layer, after a checkpoint
    atlas(tiny_imagenet, tmp_path, "--trainer.max_epochs=2")
    epochs = [line.split(",") for line in (tmp_path / LAYERS[1] / "metrics.csv").read_text().splitlines()]
    place = epochs[0].index("epoch")
    assert max(float(row[place]) for row in epochs[1:] if row[place]) >= 1
    with (tmp_path / "atlas.csv").open() as file:
        rows = {row["layer"]: row for row in csv.DictReader(file)}
    assert float(rows[LAYERS[0]]["minutes"]) > 0
    assert rows[LAYERS[1]]["minutes"] == ""  # of two sessions, of which one is not known


def test_a_layer_of_another_process_is_left_to_it(
    tiny_imagenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["preimage"])
    for there in ([LAYERS[1]], LAYERS):
        with claimed(tmp_path / LAYERS[0]) if there != LAYERS else nullcontext():
            atlas(tiny_imagenet, tmp_path)
        with (tmp_path / "atlas.csv").open() as file:
            assert [row["layer"] for row in csv.DictReader(file)] == ["mean image", *there]
    assert f"{LAYERS[0]}: process {os.getpid()} on " in capsys.readouterr().out


@pytest.mark.parametrize(
    "flag", ["--width=0.05", "--weights=other.pth", "--data.split_seed=1", "--model.optimizer.lr=0.1"]
)
def test_an_atlas_of_other_settings_is_not_believed(
    flag: str, tiny_imagenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["preimage"])
    monkeypatch.setattr(f"{__name__}.LAYERS", ["features.2"])
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "other.pth")
    atlas(tiny_imagenet, tmp_path)
    with pytest.raises(SystemExit):
        atlas(tiny_imagenet, tmp_path, flag.replace("other.pth", str(tmp_path / "other.pth")))
    assert "features.2 was trained with other weights, data or options" in capsys.readouterr().err


def test_a_wrong_layer_ends_it_before_anything_is_trained(
    tiny_imagenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["preimage"])
    monkeypatch.setattr(f"{__name__}.LAYERS", ["features.2", "featres.12"])
    with pytest.raises(SystemExit):
        atlas(tiny_imagenet, tmp_path)
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
    mean = mean_of(images)
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
        flags = ["--network", f"timm/{name}", "--weights=random", f"--out={tmp_path}", "--layers", layer]
        options, rest = parse([*flags, "--feature_size=64"] if "vit" in name else flags)
        model = _overlay(options, layer, rest)[0]["model"]["init_args"]
        assert model["encoder"]["init_args"]["tokens"] == "grid"
        assert model["decoder"]["class_path"] == "ConvInverter"
        assert model["decoder"]["init_args"]["in_channels"] == channels
        assert options.feature_size == (64 if "vit" in name else 224)
