import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from skimage.metrics import structural_similarity
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from datamodules import InMemoryDataModule
from lightning_modules import LPIPS
from preimage import runs
from preimage.__main__ import main
from preimage.evaluation.evaluate import table
from preimage.evaluation.generation import _Given
from preimage.evaluation.runs import find_run, load_data, load_model
from preimage.runs import claimed
from tests.conftest import QUICK, Run
from tests.lightning_modules.test_metrics import SSIM

KEYS = {"version", "name", "model", "data", "seed", "git_commit", "reconstruction", "generation", "reading"}
KEYS |= {
    "geometry",
    "active_units",
    "parameters",
    "trainable_parameters",
    "training_minutes",
    "training_precision",
    "images_per_second",
}
KEYS |= {"peak_memory_gb", "notes", "checkpoint", "options"}
MEASURED = ("images_per_second", "peak_memory_gb")  # with a clock, so never twice the same
USER = """
from torch import nn

class FlatEncoder(nn.Sequential):
    def __init__(self, latent_dim: int = 12) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, latent_dim))
"""

Fit = Callable[..., Path]


@pytest.fixture
def fit(run: Run, idx_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """Trains for three steps on 936 digits and returns the run directory; probes are quick."""
    monkeypatch.setattr("preimage.evaluation.probes.MLP_IMAGES", 1)
    monkeypatch.setattr("preimage.evaluation.probes.DRAWS", 2)

    def command(name: str, *flags: str) -> Path:
        run("fit", *QUICK, *on_digits(idx_root, tmp_path), f"--run_dir={tmp_path}/{name}", *flags)
        return tmp_path / name

    return command


def on_digits(idx_root: Path, folder: Path) -> list[str]:
    flags = ["--data.dataset=mnist", f"--data.root={idx_root}", f"--data.cache_dir={folder}/cache"]
    return [*flags, "--trainer.callbacks=null"]


@pytest.fixture(scope="module")
def trained(idx_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a run, for all tests that only need some."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["preimage"])
        places = [f"--run_dir={folder}/run", f"--trainer.default_root_dir={folder}"]
        main(["fit", *QUICK, *on_digits(idx_root, folder), *places])
    return folder / "run"


@pytest.fixture
def folder(trained: Path, tmp_path: Path, fit: Fit) -> Path:
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "run")


def evaluate(*args: object) -> list[dict[str, Any]]:
    folders = [path for path in args if isinstance(path, Path)]
    main(["evaluate", "--ckpt_path", *map(str, args)])
    runs = [path if path.is_dir() else path.parent.parent for path in folders]
    return [json.loads((path / "evaluation.json").read_text()) for path in runs]


def codes(folder: Path, data: InMemoryDataModule, split: str) -> tuple[Any, Any]:
    part = getattr(data, f"{split}_set")
    with torch.no_grad():
        return load_model(find_run(folder)).encoder(part.images / 255).numpy(), part.labels.numpy()


def test_a_run_that_another_process_measures_is_left_to_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with claimed(folder / "evaluation.json"):
        main(["evaluate", "--ckpt_path", str(folder)])
    assert f"{folder}: process {os.getpid()} on " in capsys.readouterr().out
    assert not (folder / "evaluation.json").exists()


def test_figures_are_those_of_torchmetrics_and_scikit_learn(fit: Fit) -> None:
    folder = fit("run", "--seed_everything=3")
    (found,) = evaluate(folder, "--labels_per_class", 5, 500)
    assert set(found) == KEYS
    assert (found["version"], found["name"], found["seed"]) == (1, "quickstart", 3)
    assert (found["model"], found["data"]) == ("Autoencoder", "MNISTDataModule")
    assert found["generation"] is None and found["active_units"] is None
    model, data = load_model(find_run(folder)), load_data(find_run(folder))
    images = data.test_set.images / 255
    with torch.no_grad():
        rebuilt = model(images)
    pairs = zip(rebuilt.numpy(), images.numpy(), strict=True)
    mse = (rebuilt - images).square().flatten(1).mean(dim=1)
    distances = torch.cdist(images.flatten(1), images.flatten(1))
    expected = {
        "mse": float(mse.mean()),
        "psnr": float((-10 * mse.log10()).mean()),
        "ssim": np.mean([structural_similarity(*pair, **SSIM) for pair in pairs]),
        "normalized_error": float((rebuilt - images).flatten(1).norm(dim=1).mean() / (distances.sum() / (200 * 199))),
    }
    assert found["reconstruction"] == pytest.approx(expected, rel=1e-4)
    splits = {name: codes(folder, data, name) for name in ("train", "val", "test")}
    values = np.linalg.svd(splits["test"][0], compute_uv=False)
    assert found["geometry"]["numbers"] == 12
    assert found["geometry"]["effective_rank"] == pytest.approx(np.exp(entropy(values)), rel=1e-4)
    scaler = StandardScaler().fit(splits["train"][0])
    train, val, test = ((scaler.transform(splits[name][0]), splits[name][1]) for name in ("train", "val", "test"))
    for name, settings in (
        ("linear", [LogisticRegression(C=c, max_iter=300) for c in (0.01, 0.1, 1, 10, 100)]),
        ("knn", [KNeighborsClassifier(k, weights="distance") for k in (1, 5, 10, 20)]),
    ):
        scores = [setting.fit(*train).score(*val) for setting in settings]
        predicted = settings[scores.index(max(scores))].predict(test[0])
        assert found["reading"][name]["accuracy"] == pytest.approx(accuracy_score(test[1], predicted), abs=0.006)
        assert found["reading"][name]["f1"] == pytest.approx(f1_score(test[1], predicted, average="macro"), abs=0.006)
    assert set(found["reading"]["few_labels"]) == {"50"}  # nor does the split have 500 labels of each class
    assert 0.1 < found["reading"]["few_labels"]["50"]["accuracy"] < found["reading"]["linear"]["accuracy"]
    assert 0.1 < found["reading"]["mlp"]["accuracy"] < 1
    assert found["parameters"] == found["trainable_parameters"] == sum(p.numel() for p in model.parameters())
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["provenance"]
    assert found["training_minutes"] == last["minutes"] > 0
    assert found["git_commit"] == last["git_commit"]
    assert found["images_per_second"] > 0 and 0.1 < found["peak_memory_gb"] < 100


def test_a_measured_checkpoint_is_skipped_and_overwritten_to_the_same_figures(
    fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fit("run")
    (first,) = evaluate(folder)
    written = (folder / "evaluation.json").stat().st_mtime_ns
    capsys.readouterr()
    evaluate(folder)
    out = capsys.readouterr().out
    assert f"{folder}: done" in out and f"| {first['reconstruction']['mse']:.4f} |" in out
    assert (folder / "evaluation.json").stat().st_mtime_ns == written
    cache = folder.parent / "cache"
    cached = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    (again,) = evaluate(folder, "--overwrite")
    assert cached and cached == {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    assert (folder / "evaluation.json").stat().st_mtime_ns > written
    assert {key: value for key, value in again.items() if key not in MEASURED} == {
        key: value for key, value in first.items() if key not in MEASURED
    }
    shutil.copy(folder / "checkpoints/last.ckpt", folder / "checkpoints/other.ckpt")
    with (folder / "checkpoints/other.ckpt").open("ab") as file:
        file.write(b"\0" * 8)  # another file of the same weights
    (other,) = evaluate(folder / "checkpoints/other.ckpt")
    assert other["checkpoint"]["file"] == "other.ckpt" != first["checkpoint"]["file"]


def test_samples_are_compared_on_the_features_of_the_named_extractor(
    folder: Path, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = ["--model=VAE", "--model.encoder=MNISTGaussianEncoder", "--model.encoder.latent_dim=12"]
    vae = fit("vae", *encoder, "--model.decoder=MNISTDecoder", "--model.latent_dim=12")
    capsys.readouterr()
    ours, drawn = evaluate(folder, vae, "--extractor", str(folder), "--images", 150)
    (head,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| run |")]
    assert ours["generation"] is None
    name = drawn["generation"]["extractor"]
    assert name.startswith("quickstart (") and drawn["generation"]["images"] == 150
    assert f"FID ({name}, 150 images)" in head and f"KID ({name}, 150 images)" in head
    model: Any = load_model(find_run(vae))
    extractor, data = load_model(find_run(folder)).encoder, load_data(find_run(vae))
    places = torch.linspace(0, 199, 150).long()
    with torch.no_grad():
        torch.manual_seed(0)
        samples = torch.cat([model.sample(count) for count in (64, 64, 22)])
        fake = extractor((samples * 255).round() / 255)
        real = extractor(data.test_set.images[places] / 255)
        mean, deviation = real.mean(dim=0), real.std(dim=0)
        real, fake = (real - mean) / deviation, (fake - mean) / deviation
        metrics = [FrechetInceptionDistance(_Given(12)), KernelInceptionDistance(_Given(12), subset_size=150)]
        for metric in metrics:
            metric.update(real, real=True)
            metric.update(fake, real=False)
        assert drawn["generation"]["fid"] == pytest.approx(float(metrics[0].compute()), rel=1e-3)
        assert drawn["generation"]["kid"] == pytest.approx(float(metrics[1].compute()[0]), rel=1e-3, abs=1e-5)
        images = data.test_set.images / 255
        means, rebuilt = model.encoder(images), model.reconstruct(images)
    assert drawn["active_units"] == int((means.var(dim=0) > 0.01).sum())
    fid = FrechetInceptionDistance(_Given(12))
    with torch.no_grad():
        fid.update(real, real=True)
        eight_bit = (model.reconstruct(data.test_set.images[places] / 255) * 255).round() / 255
        fid.update((extractor(eight_bit) - mean) / deviation, real=False)
    assert drawn["reconstruction"]["rfid"] == pytest.approx(float(fid.compute()), rel=1e-3)
    assert f"rFID ({name}, 150 images)" in head and name in drawn["reconstruction"]["rfid_protocol"]
    assert drawn["reconstruction"]["mse"] == pytest.approx(float(rebuilt.sub(images).square().mean()), rel=1e-4)
    assert evaluate(vae, "--images", 150) == [drawn]  # no extractor is asked for: any will do
    (again,) = evaluate(vae, "--images", 150, "--extractor", str(vae))
    assert again["generation"]["extractor"] not in ("", name)
    assert again["generation"]["fid"] != drawn["generation"]["fid"]


def test_without_inception_samples_are_not_compared_and_a_note_says_so(
    fit: Fit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    flags = ["--model=VAE", "--model.encoder=MNISTGaussianEncoder", "--model.encoder.latent_dim=12"]
    (found,) = evaluate(fit("vae", *flags, "--model.decoder=MNISTDecoder", "--model.latent_dim=12"))
    assert found["generation"] is None and "rfid" not in found["reconstruction"]
    assert "no FID, KID and rFID, since Inception cannot be loaded" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*RANDOM weights")
def test_lpips_is_measured_where_it_is_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = evaluate(folder, "--labels_per_class", 1, "--lpips", "squeeze:random")
    distance, images = LPIPS("squeeze", "random"), load_data(find_run(folder)).test_set.images / 255
    with torch.no_grad():
        expected = float(distance(load_model(find_run(folder)).reconstruct(images), images).mean())  # type: ignore[operator]
    assert found["reconstruction"]["lpips"] == pytest.approx(expected, rel=1e-4)
    assert found["reconstruction"]["lpips_network"] == distance.name
    assert f"| LPIPS ({distance.name}) |" in capsys.readouterr().out
    assert evaluate(folder, "--labels_per_class", 1) == [found]  # without it, what is there will do


@pytest.mark.parametrize("kind", ["Classifier", "ClassifierReconstructor", "none"])
def test_a_users_encoder_is_measured_under_every_kind_of_system(
    kind: str, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"mine_{kind}.py").write_text(USER)
    monkeypatch.syspath_prepend(tmp_path)
    flags = [f"--model.encoder=mine_{kind}.FlatEncoder", "--model.encoder.latent_dim=10"]
    if kind == "Classifier":
        flags = ["--model=Classifier", *flags, "--model.head=MLPHead", "--model.head.in_features=10"]
    else:
        flags = ["--model=ClassifierReconstructor", *flags, "--model.latent_dim=10", "--model.num_classes=10"]
        flags += ["--model.decoder=MNISTDecoder", "--model.decoder.latent_dim=10"]
        flags += ["--model.reconstruction=none"] if kind == "none" else []
    (found,) = evaluate(fit("run", *flags, "--data.num_labels=100", "--data.keep_unlabeled=true"))
    assert (found["reconstruction"] is None) == (kind != "ClassifierReconstructor")
    assert 0.3 < found["reading"]["linear"]["accuracy"] < 1
    assert found["notes"] == ["the probes learn from 936 labels"]  # and not from the 100 of the training
    assert set(found["reading"]["few_labels"]) == {"10", "100"}
    frozen = 0 if kind != "none" else found["parameters"] - 7850
    assert found["parameters"] - found["trainable_parameters"] == frozen


def test_feature_maps_of_a_frozen_network_are_averaged_before_they_are_read(
    run: Run, tiny_imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preimage.evaluation.probes.MLP_IMAGES", 1)
    encoder = ["FrozenFeatures", "network=squeezenet1_1", "layer=features.2", "weights=random", "image_size=64"]
    decoder = ["ConvInverter", "in_channels=64", "in_size=15", "image_size=60", "width=0.03"]
    flags = ["--model=Inversion", "--model.encoder_checkpoint=null", "--data=TinyImageNetDataModule"]
    for part, (name, *values) in (("encoder", encoder), ("decoder", decoder)):
        flags += [f"--model.{part}={name}", *(f"--model.{part}.{value}" for value in values)]
    flags += [f"--data.root={tiny_imagenet}", "--data.num_classes=3", "--data.test_per_class=4"]
    flags += [f"--data.cache_dir={tmp_path}", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    run("fit", *flags, f"--run_dir={tmp_path}/run")
    (found,) = evaluate(tmp_path / "run", "--labels_per_class", 2)
    assert "codes 64 x 15 x 15 are averaged over space to 1024 numbers for the probes" in found["notes"]
    assert found["trainable_parameters"] < found["parameters"]
    assert 0.1 < found["reconstruction"]["normalized_error"] < 10
    assert set(found["reading"]["few_labels"]) == {"6"}


def test_codes_that_are_inverted_are_read_in_the_run_that_made_them(
    trained: Path, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = trained / "checkpoints/last.ckpt"
    (found,) = evaluate(fit("inverted", "--model=Inversion", f"--model.encoder_checkpoint={checkpoint}"))
    assert found["reading"] is None and found["reconstruction"]["mse"] > 0
    assert found["notes"] == [f"its codes are read in the evaluation of {checkpoint}"]
    (head,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| run |")]
    assert "MSE" in head and "linear" not in head and "labels" not in head


def test_bad_input_ends_in_one_line(
    folder: Path, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fit("other", "--model.encoder.latent_dim=5", "--model.decoder.latent_dim=5")
    (tmp_path / "empty").mkdir()
    (tmp_path / "untrained").mkdir()
    shutil.copy(folder / "config.yaml", tmp_path / "untrained")
    odd = shutil.copytree(folder, tmp_path / "odd")
    (odd / "config.yaml").write_text("name: odd\n")
    deep = shutil.copytree(folder, tmp_path / "deep")
    (deep / "config.yaml").write_text("[" * 2000)
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    shutil.copy(other / "checkpoints/best.ckpt", mixed / "checkpoints/best.ckpt")
    monkeypatch.setattr(sys, "argv", ["preimage"])
    for args, words in (
        ([tmp_path / "nowhere"], f"no run at {tmp_path / 'nowhere'}"),
        ([tmp_path / "empty"], "is no run directory: it has no config.yaml"),
        ([tmp_path / "untrained"], "train the run first"),
        ([odd], "does not say what model and data the run has"),
        ([deep], "config.yaml cannot be read: it is nested too deep"),
        ([mixed], "config.yaml: the checkpoint is of another model: its encoder"),
        ([folder, "--data.root=nowhere"], "mnist is not complete"),
        ([folder, "--data.roof=nowhere"], "roof"),
        ([folder, "--extractor=nowhere"], "no extractor nowhere: give a run"),
        ([folder, "--lpips=resnet"], "there is no LPIPS of resnet: choose one of squeeze, alex, vgg"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", "--ckpt_path", *map(str, args)])
        assert stop.value.code == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert words in line and len(line) < 500
    for text, words in (('{"checkpoint": ', "cannot be read"), ("[]", "is no evaluation"), ('{"options": 3}', "is no")):
        (folder / "evaluation.json").write_text(text)
        with pytest.raises(SystemExit):
            main(["evaluate", "--ckpt_path", str(folder)])
        assert f"{folder / 'evaluation.json'} {words}" in capsys.readouterr().err
    (folder / "evaluation.json").unlink()
    for args, words in (
        ([folder, "--overwritee"], "--overwritee"),
        ([folder, "--images=1"], "--images: give a whole number from 2 up"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", "--ckpt_path", *map(str, args)])
        assert stop.value.code == 2
        assert words in capsys.readouterr().err
    assert not list(tmp_path.rglob("evaluation.json"))


def test_a_run_that_cannot_be_measured_is_named_after_the_table_of_the_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = shutil.copytree(folder, tmp_path / "bad")
    (bad / "checkpoints/best.ckpt").write_text("no checkpoint")
    monkeypatch.setattr(sys, "argv", ["preimage"])
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--ckpt_path", str(bad), str(folder), "--labels_per_class", "1"])
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    assert str(folder) in out
    assert (folder / "evaluation.json").is_file()
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert f"{bad / 'checkpoints/best.ckpt'} is truncated or no checkpoint" in line


def test_no_name_breaks_the_table() -> None:
    row = {"model": "VAE", "parameters": 1, "images_per_second": 1.0, "peak_memory_gb": 1.0}
    row |= dict.fromkeys(("reconstruction", "generation", "reading", "active_units", "training_minutes"))
    lines = table([runs.Run(Path("runs/a|b/version_0"))], [row]).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith(r"| runs/a\|b/version_0 | VAE |")
