"""Image size, channels, length of the code and number of classes are said once, whatever config they are said to."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from preimage.cli import PreimageCLI
from tests.conftest import QUICK, ROOT, Fails, Run

OWN = """
from torch import nn
class Encoder(nn.Sequential):
    def __init__(self, image_size: int = 5, in_channels: int = 5, latent_dim: int = 5, width: int = 3):
        super().__init__(nn.Flatten(), nn.Linear(in_channels * image_size**2, latent_dim))
class Arithmetic(Encoder):
    def forward(self, images):
        if images.sum().item() < 0 or not images.numpy().size:
            raise ValueError("never")
        return super().forward(images)
class Fixed(Encoder):
    latent_dim = 6
    def __init__(self):
        super().__init__(28, 1, 6)
"""

pytestmark = pytest.mark.usefixtures("elsewhere")


def sizes(monkeypatch: pytest.MonkeyPatch, *args: str) -> dict[str, Any]:
    """What the arguments of a `fit` come to, by their flags; nothing is built."""
    monkeypatch.setattr("sys.argv", ["preimage"])
    monkeypatch.setattr(PreimageCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(PreimageCLI, "_add_instantiators", lambda self: None)
    monkeypatch.setattr(PreimageCLI, "_run_subcommand", lambda self, name: None)
    config = PreimageCLI(["fit", *args]).config.fit
    found: dict[str, Any] = {}
    for name in ("data", "model"):
        for key, value in config[name].init_args.items():
            found[f"{name}.{key.replace('.init_args', '')}"] = value
    for index, augmentation in enumerate(config.data.init_args.augmentations or []):
        found[f"augmentation {index}"] = augmentation.init_args.get("size")
    return found


def config(name: str) -> str:
    return f"--config={ROOT / 'configs' / name}.yaml"


IMAGE = ("data.image_size", "model.encoder.image_size", "model.decoder.image_size")
CODE = ("model.encoder.latent_dim", "model.decoder.latent_dim")
VAE_CODE = ("model.latent_dim", *CODE)
TINY = ["--model=Classifier", "--model.encoder=MNISTEncoder", "--model.head=MLPHead"]
TINY += ["--data=TinyImageNetDataModule", "--data.root=x"]
CLASSES = ("model.num_classes", "model.head.num_classes")
CASES: list[tuple[list[str], dict[str, Any]]] = [
    ([config("images/vae"), "--data.image_size=64"], dict.fromkeys(IMAGE, 64) | dict.fromkeys(VAE_CODE, 128)),
    ([config("images/vae"), "--data.init_args.image_size=64"], dict.fromkeys(IMAGE, 64)),
    ([config("images/vae"), "--model.encoder.image_size", "64"], dict.fromkeys(IMAGE, 64)),
    ([config("images/vae"), '--data={"init_args": {"image_size": 64}}'], dict.fromkeys(IMAGE, 64)),
    *(
        ([config("images/vae"), flag, "--model.latent_dim=7"], dict.fromkeys(IMAGE, 64) | dict.fromkeys(VAE_CODE, 7))
        for flag in (
            "--model.encoder=encoder.yaml",
            '--config={"model": {"init_args": {"encoder": {"init_args": {"image_size": 64}}}}}',
        )
    ),
    ([config("images/vae"), "--config=parts.yaml"], {"data.image_size": 128, "model.encoder.image_size": 64}),
    ([config("images/vae"), "--model.latent_dim=16"], dict.fromkeys(VAE_CODE, 16)),
    ([config("images/vae"), "--model.encoder.latent_dim=16"], dict.fromkeys(VAE_CODE, 16)),
    ([config("mnist/vae"), "--model.decoder.latent_dim=16"], dict.fromkeys(VAE_CODE, 16)),
    ([config("mnist/vae_binarized"), "--model.latent_dim=7"], dict.fromkeys(VAE_CODE, 7)),
    ([config("mnist/autoencoder"), "--model.encoder.latent_dim=2"], dict.fromkeys(CODE, 2)),
    ([config("mnist/invert_classifier"), "--model.encoder.latent_dim=2"], dict.fromkeys(CODE, 2)),
    ([config("mnist/fsq"), "--model.encoder.latent_dim=2"], dict.fromkeys((*CODE, "model.quantizer.in_features"), 2)),
    ([config("mnist/simclr"), "--model.encoder.latent_dim=2"], {"model.method.in_features": 2}),
    ([config("quickstart"), "--model.decoder.latent_dim=2"], dict.fromkeys(CODE, 2)),
    (
        [config("faces/real_fake"), "--data.image_size=32"],
        {"model.decoder.image_size": 32, "augmentation 1": [32, 32]},
    ),
    ([config("faces/real_fake"), "--data.image_size=32", "--config=earlier.yaml"], {"model.decoder.image_size": 256}),
    ([config("faces/real_fake"), "--model.latent_dim=32"], dict.fromkeys(VAE_CODE, 32) | {"model.num_classes": 2}),
    (
        [config("mnist/classifier_100_semi"), "--model.encoder.latent_dim=8", "--model.auxiliary_decoder=MNISTDecoder"],
        {"model.head.in_features": 8, "model.auxiliary_decoder.latent_dim": 8},
    ),
    ([config("mnist/classifier_100_frozen")], dict.fromkeys(CLASSES, 10)),
    ([config("butterflies/latent_classifier"), "--model.head.num_classes=5"], dict.fromkeys(CLASSES, 5)),
    ([config("butterflies/finetune")], dict.fromkeys(CLASSES, 75) | {"model.head.in_features": 128}),
    (
        [config("butterflies/latent_classifier"), config("butterflies/linear"), "--model.num_classes=9"],
        {"model.head.out_features": 9, "model.head.in_features": 128},
    ),
    (
        [config("butterflies/finetune"), config("butterflies/scratch"), "--data.image_size=64"],
        {"model.encoder.image_size": 64, "augmentation 1": [64, 64]},
    ),
    # What the data is known to be, without a word.
    (
        [config("mnist/vae"), "--model.encoder=ConvGaussianEncoder", "--model.decoder=ResidualDecoder"],
        {"model.encoder.in_channels": 1, "model.decoder.out_channels": 1, "model.encoder.image_size": 28},
    ),
    (
        [config("images/vae"), "--model.decoder=ResidualDecoder"],
        {"model.decoder.out_channels": 3, "model.decoder.image_size": 128, "model.decoder.latent_dim": 128},
    ),
    (
        [*TINY, '--data.wnids=["a", "b", "c"]'],
        dict.fromkeys(CLASSES, 3),
    ),
    (
        [*TINY, "--data.num_classes=40"],
        dict.fromkeys(CLASSES, 40),
    ),
    (
        [config("butterflies/vae"), "--model.decoder.out_channels=1"],  # said by mistake, it makes no gray images
        {"model.decoder.out_channels": 1, "model.encoder.in_channels": 3},
    ),
    # Networks of one's own.
    (
        [config("mnist/vae"), "--model=Autoencoder", "--model.encoder=own_networks.Encoder", "--model.encoder.width=9"],
        {"model.encoder.image_size": 28, "model.encoder.in_channels": 1, "model.decoder.latent_dim": 5},
    ),
    ([config("quickstart"), "--model.encoder=own_networks.Fixed"], {"model.decoder.latent_dim": 6}),
    # What has a size of its own keeps it, and so does what is given in two ways.
    (
        [config("tiny_imagenet/conv5"), "--data.image_size=128"],
        {"model.encoder.image_size": "own", "model.decoder.image_size": 192, "model.decoder.in_channels": 256},
    ),
    (
        [config("images/vae"), "--data.image_size=128", "--model.decoder.image_size=64"],
        {"model.encoder.image_size": 128, "model.decoder.image_size": 64},
    ),
    (
        [config("images/vae"), "--model.encoder.latent_dim=5", "--model.latent_dim=7"],
        {"model.encoder.latent_dim": 5, "model.latent_dim": 7, "model.decoder.latent_dim": 7},
    ),
]


@pytest.mark.parametrize(("args", "expected"), CASES)
def test_one_choice_is_one_flag(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, args: list[str], expected: dict[str, Any]
) -> None:
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "encoder.yaml").write_text("{class_path: ConvGaussianEncoder, init_args: {image_size: 64}}")
    # Of a run that was trained when all decoders of faces had one size.
    arguments = "{latent_dim: 2, width: 0.125, output_activation: sigmoid, out_channels: 3}"
    earlier = f"{{decoder: {{class_path: FaceDecoder, init_args: {arguments}}}}}"
    (tmp_path / "earlier.yaml").write_text(
        f"model: {{class_path: ClassifierReconstructor, init_args: {earlier}}}\ndata: {{init_args: {{image_size: 32}}}}"
    )
    (tmp_path / "parts.yaml").write_text("model: {init_args: {encoder: encoder.yaml}}")
    found = sizes(monkeypatch, *args)
    assert {key: found.get(key) for key in expected} == expected


def test_a_file_that_says_it_everywhere_is_followed_by_a_flag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the config.yaml of a run does; a decoder of another size, which is meant, keeps it."""
    decoder = {"class_path": "ConvDecoder", "init_args": {"image_size": 64, "latent_dim": 128}}
    encoder = {"class_path": "ConvGaussianEncoder", "init_args": {"image_size": 128, "latent_dim": 128}}
    written = {"model": {"init_args": {"encoder": encoder, "decoder": decoder}}}
    (tmp_path / "written.yaml").write_text(yaml.safe_dump(written))
    args = [config("images/vae"), f"--config={tmp_path / 'written.yaml'}", "--data.image_size=96"]
    found = sizes(monkeypatch, *args, "--model.latent_dim=4")
    assert [found[name] for name in IMAGE] == [96, 96, 64]
    assert [found[name] for name in VAE_CODE] == [4, 4, 4]


def test_the_config_of_a_run_holds_what_was_used_and_serves_again(run: Run) -> None:
    folder = run("fit", *QUICK, "--model.encoder.latent_dim", 5) / "quickstart/version_0"
    written = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]
    assert [written[name]["init_args"]["latent_dim"] for name in ("encoder", "decoder")] == [5, 5]
    run("test", "--config", folder / "config.yaml", "--ckpt_path", folder / "checkpoints/last.ckpt")


def test_a_network_that_cannot_do_without_arithmetic_is_tried_with_it(
    run: Run, fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    flags = [*QUICK, "--model.encoder=own_networks.Arithmetic", "--trainer.fast_dev_run=true"]
    run("fit", *flags)
    line = fails("fit", *flags, "--model.encoder.image_size=5")
    assert "model.encoder (Arithmetic, image_size=5, in_channels=1, latent_dim=12) does not take the data's" in line


MISFITS = [
    (
        ["--model.encoder.latent_dim=5", "--model.decoder.latent_dim=7"],
        "model.decoder (MNISTDecoder, latent_dim=7) does not take the codes (5,) of model.encoder (MNISTEncoder,"
        " latent_dim=5)",
    ),
    (
        ["--model.encoder=ConvGaussianEncoder", "--model.encoder.image_size=32"],
        "does not take the data's images (1, 28",
    ),
    (
        ["--model.decoder=ResidualDecoder", "--model.decoder.out_channels=3"],
        "model.decoder (ResidualDecoder, image_size=28, out_channels=3, latent_dim=12) gives images (3, 28, 28), of"
        " other channels than the data's (1, 28, 28)",
    ),
    (
        ["--model=Classifier", "--model.head=MLPHead", "--model.head.in_features=5", "--model.encoder.latent_dim=4"],
        "model.head (MLPHead, in_features=5, num_classes=10) does not take the codes (4,) of model.encoder",
    ),
    (
        ["--model=Classifier", "--model.head=MLPHead", "--model.head.num_classes=5", "--model.num_classes=10"],
        "model.head (MLPHead, in_features=12, num_classes=5) gives (5,) for model.num_classes=10",
    ),
    (
        ["--model=VAE", "--model.encoder=MNISTGaussianEncoder", "--model.encoder.latent_dim=5", "--model.latent_dim=7"],
        "model.encoder (MNISTGaussianEncoder, latent_dim=5) gives codes (5,) for model.latent_dim=7",
    ),
]


@pytest.mark.parametrize(("flags", "message"), MISFITS)
def test_parts_that_do_not_fit_are_named(fails: Fails, tmp_path: Path, flags: list[str], message: str) -> None:
    assert message in fails("fit", *QUICK, *flags)
    assert not (tmp_path / "runs").exists()
