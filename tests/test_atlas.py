import csv
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atlas import decoder_for
from main import main

LAYERS = ["features.2", "features.12"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def atlas(tiny: Path, out: Path, *flags: str) -> None:
    own = ["--network=squeezenet1_1", "--weights=random", "--feature_size=64", "--width=0.03", f"--out={out}"]
    fit = [f"--data.root={tiny}", "--data.num_classes=3", "--data.test_per_class=4", f"--data.cache_dir={tiny.parent}"]
    fit += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.enable_model_summary=false"]
    main(["atlas", *own, "--layers", *LAYERS, *fit, *flags])


def test_atlas_has_a_row_per_layer_and_skips_what_is_done(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["preimage"])
    atlas(tiny, tmp_path, "--optimize=3")
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
    atlas(tiny, tmp_path)
    assert capsys.readouterr().out.count(": done") == 2
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.ckpt")}


def test_an_interrupted_atlas_goes_on(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["preimage"])
    atlas(tiny, tmp_path)
    (tmp_path / LAYERS[1] / "minutes.json").unlink()  # killed before the end of the second layer, after a checkpoint
    atlas(tiny, tmp_path, "--trainer.max_epochs=2")
    epochs = [line.split(",") for line in (tmp_path / LAYERS[1] / "metrics.csv").read_text().splitlines()]
    place = epochs[0].index("epoch")
    assert max(float(row[place]) for row in epochs[1:] if row[place]) >= 1


def test_a_wrong_layer_ends_it_before_anything_is_trained(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["preimage"])
    monkeypatch.setattr(f"{__name__}.LAYERS", ["features.2", "featres.12"])
    with pytest.raises(SystemExit):
        atlas(tiny, tmp_path)
    assert "no layer featres.12: the nearest are features." in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("shape", "size"), [((256, 6, 6), 48), ((192, 13, 13), 52), ((64, 31, 31), 62), ((64, 63, 63), 126), ((1000,), 64)]
)
def test_decoders_get_as_close_to_the_wanted_size_as_doubling_can(shape: tuple[int, ...], size: int) -> None:
    decoder = decoder_for(shape, 64, 0.5)
    assert decoder["init_args"]["image_size"] == size
    assert decoder["class_path"] == ("ConvInverter" if len(shape) == 3 else "FullyConnectedInverter")
