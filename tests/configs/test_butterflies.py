"""The configs for folders of images run, on a small zip file in the form of Kaggle's butterflies."""

import io
import zipfile

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT, Fails, Run
from tests.preimage.test_cli import values

CONFIGS = ROOT / "configs"
SMALL = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
SMALL += ["--trainer.limit_test_batches=1", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
SMALL += ["--data.batch_size=4", "--data.image_size=32", "--model.encoder.width=4", "--test_after_fit"]
VAE = [*SMALL, "--model.decoder.width=4"]


@pytest.fixture(scope="module")
def butterflies(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags that name a zip file with 75 classes of ten images of a colour of their own, and a cache."""
    folder, generator = tmp_path_factory.mktemp("butterflies"), np.random.default_rng(0)
    table = ["filename,label"]
    with zipfile.ZipFile(folder / "small.zip", "w") as archive:
        for index in range(750):
            color = np.array([index % 5, index // 5 % 5, index // 25 % 3]) * 50
            pixels = color + generator.integers(0, 50, (24, 20, 3))
            file = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(file, "jpeg")
            archive.writestr(f"data/train/Image_{index}.jpg", file.getvalue())
            table.append(f"Image_{index}.jpg,SPECIES {index % 75}")
        archive.writestr("data/Training_set.csv", "\n".join(table))
    return [f"--data.root={folder / 'small.zip'}", f"--data.cache_dir={folder / 'cache'}"]


def config(*names: str) -> list[str]:
    return [f"--config={CONFIGS / name}" for name in names]


@pytest.mark.parametrize(
    "overlay", [[], pytest.param(["trainer/fast.yaml"], marks=pytest.mark.slow)], ids=["plain", "fast"]
)
def test_both_stages_run(run: Run, butterflies: list[str], overlay: list[str]) -> None:
    runs = run("fit", *config("butterflies/vae.yaml", *overlay), *butterflies, *VAE)
    assert values(runs / "vae/version_0", "test/elbo")
    assert 0 <= values(runs / "vae/version_0", "test/knn_accuracy")[0] <= 1
    drawn = {path.name for path in (runs / "vae/version_0/images").iterdir()}
    assert drawn >= {"reconstructions", "samples", "interpolation", "traversal", "latents", "curves.png"}
    small = [*butterflies, *SMALL, "--curves=null"]
    for names, no_pictures in (
        (("latent_classifier.yaml",), []),
        (("latent_classifier.yaml", "linear.yaml"), ["--trainer.callbacks=null"]),
        (("finetune.yaml",), ["--trainer.callbacks=null"]),
        (("finetune.yaml", "scratch.yaml"), ["--trainer.callbacks=null"]),
    ):
        run("fit", *config(*(f"butterflies/{name}" for name in names), *overlay), *small, *no_pictures)
        folder = runs / names[-1].removesuffix(".yaml") / "version_0"
        assert 0 <= values(folder, "test/f1")[0] <= 1
        assert (folder / "images/confusion/test.png").is_file() == (not no_pictures)
    run("fit", *config("butterflies/simclr.yaml", *overlay), *small, "--trainer.callbacks=null")
    assert 1 <= values(runs / "simclr/version_0", "test/effective_rank")[0] <= 20


@pytest.mark.parametrize("name", ["vae", pytest.param("vae_cpu", marks=pytest.mark.slow)])
def test_own_images(run: Run, butterflies: list[str], name: str) -> None:
    runs = run("fit", *config(f"images/{name}.yaml"), *butterflies, *VAE, "--curves=null")
    assert (runs / name / "version_0/images/samples/test.png").is_file()


def test_a_wrong_number_of_classes_is_named(fails: Fails, butterflies: list[str]) -> None:
    scratch = config("butterflies/finetune.yaml", "butterflies/scratch.yaml")
    line = fails("fit", *scratch, *butterflies, *SMALL, "--model.num_classes=70")
    assert "the data has 75 classes, model.num_classes=70" in line
    line = fails("fit", *scratch, *butterflies, *SMALL, "--model.head.num_classes=70", "--model.num_classes=75")
    assert "model.head (MLPHead, in_features=128, num_classes=70) gives (70,) for model.num_classes=75" in line


def test_a_classifier_takes_the_sizes_of_the_run_that_its_encoder_is_read_from(
    run: Run, fails: Fails, butterflies: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    small = [flag for flag in SMALL if "image_size" not in flag and "width" not in flag]
    vae = ["--data.image_size=32", "--model.latent_dim=8", "--model.encoder.width=4", "--model.decoder.width=4"]
    runs = run(
        "fit", *config("butterflies/vae.yaml"), *butterflies, *small, *vae, "--trainer.callbacks=null", "--curves=null"
    )
    classifier = [*config("butterflies/latent_classifier.yaml"), *butterflies, *small, "--curves=null"]
    run("fit", *classifier)
    folder = runs / "latent_classifier/version_0"
    written = yaml.safe_load((folder / "config.yaml").read_text())
    model, data = written["model"]["init_args"], written["data"]["init_args"]
    expected = {"image_size": 32, "latent_dim": 8, "in_channels": 3, "width": 4}
    assert (model["encoder"]["init_args"], model["head"]["init_args"]["in_features"]) == (expected, 8)
    assert data["image_size"] == 32
    path = runs / "vae/version_0/checkpoints/best.ckpt"
    line = f"the encoder has image_size=32, latent_dim=8, width=4 as in {path}, from which it is read"
    assert line in [" ".join(message.split()) for message in caplog.messages]
    run("test", *classifier, "--ckpt_path=last")
    assert len(values(folder, "test/f1")) == 2
    line = fails("fit", *classifier, "--data.image_size=64")
    assert f"the encoder in {path} is of another model: its mean.weight has shape" in line
    assert ": it was trained with image_size=32, and here is image_size=64; give --data.image_size 32 (" in line
