import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import models

from preimage.__main__ import main
from preimage.evaluation.atlas.atlas import CONFIG
from preimage.evaluation.atlas.measures import measure
from preimage.evaluation.atlas.points import Point
from preimage.evaluation.search import tuned_search
from preimage.runs import claimed

LAYERS = ["features.2", "features.12"]
NETWORK = "squeezenet1_1 (random)"
FOLDER = "squeezenet1_1_random"


def words(tiny: Path, out: Path, *flags: str, layers: Sequence[str] = LAYERS, measure: str = "keeps") -> list[str]:
    """The command of an atlas that takes a second per decoder."""
    own = ["atlas", "--network=squeezenet1_1", "--weights=random", "--feature_size=64", "--layers", *layers]
    own += ["--parameters=20000", f"--out={out}", "--measure", *measure.split()]
    fit = [f"--data.root={tiny}", "--data.num_classes=3", "--data.test_per_class=4", f"--data.cache_dir={tiny.parent}"]
    fit += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--curves=null"]
    return [*own, *fit, "--trainer.enable_model_summary=false", *flags]


def atlas(tiny: Path, out: Path, *flags: str, **kwargs: Any) -> list[dict[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["preimage"])
        main(words(tiny, out, *flags, **kwargs))
    return table(out)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "atlas.csv").open() as file:
        return list(csv.DictReader(file))


def decoded(rows: list[dict[str, str]]) -> list[str]:
    """The layers that have a decoder."""
    return [row["layer"] for row in rows if row.get("decoder_parameters")]


@pytest.fixture(scope="module")
def whole(tiny_imagenet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An atlas of two layers, with one seed, a decoder of twice the budget, and a search, as it was made."""
    out = tmp_path_factory.mktemp("atlas")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("preimage.evaluation.atlas.plan.tuned_search", partial(tuned_search, steps=8))
        atlas(tiny_imagenet, out, "--optimize=2", "--twice")
    return out


@pytest.fixture
def there(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on with."""
    return shutil.copytree(whole, tmp_path / "atlas")


def test_atlas_has_a_row_per_layer_beside_the_mean_image_and_the_image_itself(whole: Path) -> None:
    rows = table(whole)
    sizes = ["64 x 64", "32 x 32", "16 x 16", "8 x 8", "4 x 4", "2 x 2"]
    assert [row["layer"] for row in rows] == ["", *sizes, *LAYERS]
    assert [row["shape"] for row in rows[-2:]] == ["64 x 15 x 15", "512 x 3 x 3"]
    assert [int(row["bits"]) for row in rows[-2:]] == [32 * 64 * 15 * 15, 32 * 512 * 9]
    assert rows[1]["mse_64"] == "0.0" and rows[1]["psnr_64"] == ""
    errors = [float(row["normalized_error_64"]) for row in rows[1:7]]
    assert errors == sorted(errors)
    for row in rows[-2:]:
        assert float(row["psnr_64"]) > 5 and float(row["psnr_64_search"]) > 5 and float(row["psnr_64_twice"]) > 5
        note = json.loads((whole / FOLDER / row["layer"] / "seed_0.json").read_text())
        assert float(row["minutes"]) == pytest.approx(note["minutes"]) and note["epochs"] == 1
    strips = np.load(whole / "strips.npz")
    assert strips["reconstructions"].shape == (2, 4, 64, 64, 3)
    assert list(strips["layers"]) == [f"{NETWORK} {layer}" for layer in LAYERS]


def test_decoders_have_one_budget_and_twice_of_it(whole: Path) -> None:
    for layer in LAYERS:
        for name, budget, epochs in (("seed_0", 20_000, 1), ("twice", 40_000, 2)):
            note = json.loads((whole / FOLDER / layer / f"{name}.json").read_text())
            assert note["decoder_parameters"] == pytest.approx(budget, rel=0.1) and note["epochs"] == epochs


def test_what_is_done_is_skipped_whatever_the_spaces_comments_and_epochs(
    tiny_imagenet: Path, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*.ckpt")}
    commented = tmp_path / "commented.yaml"
    commented.write_text(f"# a comment\n{CONFIG.read_text()}")
    atlas(tiny_imagenet, there, f"--config={commented}", "--trainer.max_epochs", "20")
    assert capsys.readouterr().out.count(": done") == 2
    assert len(before) == 8 and before == {path: path.stat().st_mtime_ns for path in there.rglob("*.ckpt")}


def test_an_interrupted_atlas_goes_on(tiny_imagenet: Path, there: Path) -> None:
    (there / FOLDER / LAYERS[1] / "seed_0.json").unlink()  # killed before the end of the second layer
    rows = {row["layer"]: row for row in atlas(tiny_imagenet, there, "--trainer.max_epochs=2")}
    assert float(rows[LAYERS[0]]["epochs"]) == 1 and float(rows[LAYERS[0]]["minutes"]) > 0
    assert float(rows[LAYERS[1]]["epochs"]) == 2
    assert rows[LAYERS[1]]["minutes"] == ""  # of two sessions, of which one is not known


def test_a_layer_of_another_process_is_left_to_it(
    tiny_imagenet: Path, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = there / FOLDER / LAYERS[0] / "seed_0.json"
    done.unlink()
    with claimed(done):
        assert decoded(atlas(tiny_imagenet, there)) == [LAYERS[1]]
    assert f"{LAYERS[0]}: decoder, seed_0: process {os.getpid()} on " in capsys.readouterr().out
    assert decoded(atlas(tiny_imagenet, there)) == LAYERS


@pytest.mark.parametrize(
    "flag", ["--parameters=50000", "--weights=other.pth", "--data.split_seed=1", "--model.optimizer.lr=0.1"]
)
def test_an_atlas_of_other_settings_is_not_believed(
    flag: str, tiny_imagenet: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "other.pth")
    with pytest.raises(SystemExit):
        atlas(tiny_imagenet, whole, flag.replace("other.pth", str(tmp_path / "other.pth")), f"--label={NETWORK}")
    assert "features.2: decoder, seed_0: was made with other weights, data or options" in capsys.readouterr().err


def test_a_wrong_layer_ends_it_before_anything_is_trained(
    tiny_imagenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        atlas(tiny_imagenet, tmp_path, layers=["features.2", "featres.12"])
    assert "no layer featres.12: the nearest are features." in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--network=alexnet"], "--network alexnet has no --layers"),
        (["--network=squeezenet1_1", "--layers=features.2"], "is asked for twice: give each network a --label"),
        (["--measure=taste"], "invalid choice: 'taste'"),
    ],
)
def test_what_is_asked_wrongly_is_said(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ["atlas", "--weights=random", f"--out={tmp_path}", "--network=squeezenet1_1", "--layers=features.2"]
    with pytest.raises(SystemExit):
        main([*first, *flags])
    assert message in capsys.readouterr().err


def test_reads_shape_and_invariance_need_no_decoder(
    tiny_imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preimage.evaluation.probes.MLP_IMAGES", 1000)
    second = ["--network=resnet18", "--weights=random", "--layers=layer1"]
    rows = atlas(tiny_imagenet, tmp_path, *second, measure="reads shape invariance cost")
    assert not list(tmp_path.rglob("*.ckpt"))
    named = {(row["network"], row["layer"]): row for row in rows}
    assert ("resnet18 (random)", "layer1") in named and ("pixels", "8 x 8") in named and len(rows) == 9
    for row in rows:
        accuracies = [float(row[key]) for key in ("linear", "knn", "mlp")]
        assert all(0 <= value <= 1 for value in accuracies)
        assert 1 <= float(row["effective_rank"]) <= 12
        assert float(row["invariance_noise"]) > 0
    with (tmp_path / "cka.csv").open() as file:
        header, *lines = csv.reader(file)
    assert (
        header[1:]
        == [line[0] for line in lines]
        == [*(f"{NETWORK} {layer}" for layer in LAYERS), "resnet18 (random) layer1"]
    )
    matrix = np.array([line[1:] for line in lines], dtype=float)
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-5)
    np.testing.assert_allclose(matrix, matrix.T)


def test_a_part_that_fails_is_named_after_the_tables_of_the_others(
    tiny_imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(kind: str, point: Point, *args: Any) -> dict[str, Any]:
        if point.layer == LAYERS[0]:
            raise ValueError("no room for it")
        return measure(kind, point, *args)

    monkeypatch.setattr("preimage.evaluation.atlas.plan.measure", failing)
    with pytest.raises(SystemExit):
        atlas(tiny_imagenet, tmp_path, measure="shape")
    failed, measured = table(tmp_path)[-2:]
    assert failed["effective_rank"] == "" and float(measured["effective_rank"]) >= 1
    wanted = f"error: {NETWORK} {LAYERS[0]}: shape: no room for it; the same command tries again"
    assert wanted in capsys.readouterr().err


def test_seeds_give_means_and_deviations(tiny_imagenet: Path, there: Path) -> None:
    row = atlas(tiny_imagenet, there, "--seeds", "0", "3")[-1]
    notes = [json.loads((there / FOLDER / LAYERS[1] / f"seed_{seed}.json").read_text()) for seed in (0, 3)]
    values = [note["psnr_64"] for note in notes]
    assert row["seeds"] == "2" and len(set(values)) == 2
    assert float(row["psnr_64"]) == pytest.approx(np.mean(values))
    assert float(row["psnr_64_sd"]) == pytest.approx(np.std(values, ddof=1))


def test_a_part_that_was_not_asked_for_is_in_no_table(tiny_imagenet: Path, there: Path) -> None:
    folder = there / FOLDER / LAYERS[1]
    note = json.loads((folder / "seed_0.json").read_text())
    (folder / "seed_7.json").write_text(json.dumps(note | {"settings": "others", "psnr_64": 99.0}))
    row = atlas(tiny_imagenet, there)[-1]
    assert row["seeds"] == "1" and float(row["psnr_64"]) == pytest.approx(note["psnr_64"])


@pytest.mark.slow
def test_processes_share_an_atlas_and_a_killed_one_goes_on(tiny_imagenet: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "preimage", *words(tiny_imagenet, tmp_path, "--jobs=2", "--seeds", "0", "1")]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    subprocess.run(command, check=True, timeout=300)
    rows = table(tmp_path)
    assert decoded(rows) == LAYERS and all(row["seeds"] == "2" for row in rows[-2:])
    log = (tmp_path / "job_1.log").read_text()
    assert "told to end" in log  # the signal went on to it
    assert "decoder, seed_1: done" in log or "decoder, seed_1: starts" in log
