import csv
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from atlas import decoder_for
from main import main

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
        assert float(row["minutes"]) == pytest.approx(json.loads((run_dir / "minutes.json").read_text()))
    assert Image.open(tmp_path / "atlas.png").size[0] > 300
    assert (tmp_path / "atlas.md").read_text().count("\n") == 5
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.ckpt")}
    capsys.readouterr()
    atlas(tiny_imagenet, tmp_path)
    assert capsys.readouterr().out.count(": done") == 2
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.ckpt")}


def test_an_interrupted_atlas_goes_on(tiny_imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["preimage"])
    atlas(tiny_imagenet, tmp_path)
    (tmp_path / LAYERS[1] / "minutes.json").unlink()  # killed before the end of the second layer, after a checkpoint
    atlas(tiny_imagenet, tmp_path, "--trainer.max_epochs=2")
    epochs = [line.split(",") for line in (tmp_path / LAYERS[1] / "metrics.csv").read_text().splitlines()]
    place = epochs[0].index("epoch")
    assert max(float(row[place]) for row in epochs[1:] if row[place]) >= 1


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
    ("shape", "size"), [((256, 6, 6), 48), ((192, 13, 13), 52), ((64, 31, 31), 62), ((64, 63, 63), 126), ((1000,), 64)]
)
def test_decoders_get_as_close_to_the_wanted_size_as_doubling_can(shape: tuple[int, ...], size: int) -> None:
    decoder = decoder_for(shape, 64, 0.5)
    assert decoder["init_args"]["image_size"] == size
    assert decoder["class_path"] == ("ConvInverter" if len(shape) == 3 else "FullyConnectedInverter")
