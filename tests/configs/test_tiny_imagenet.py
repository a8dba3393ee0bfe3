"""The configs for Tiny ImageNet run, on a few small images and an AlexNet of random weights."""

from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import ROOT, Run
from tests.preimage.test_cli import values

CONFIGS = ROOT / "configs/tiny_imagenet"
SMALL = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.enable_model_summary=false"]
SMALL += ["--trainer.accelerator=cpu", "--data.batch_size=2", "--data.num_classes=3", "--data.test_per_class=3"]
SMALL += ["--curves=null"]
SIZES = {"conv2": 208, "conv5": 192, "fc6": 128, "fc8": 128}


@pytest.mark.parametrize("overlay", [[], ["original.yaml"]], ids=["plain", "original"])
@pytest.mark.parametrize(
    "layer", [name if name == "fc8" else pytest.param(name, marks=pytest.mark.slow) for name in SIZES]
)
def test_alexnet_is_inverted(layer: str, overlay: list[str], run: Run, tiny_imagenet: Path) -> None:
    if overlay and layer != "fc8":
        pytest.skip("the overlay is tried on the smallest decoder")
    configs = [f"--config={CONFIGS / name}" for name in (f"{layer}.yaml", *overlay)]
    flags = [f"--data.root={tiny_imagenet}", f"--data.cache_dir={tiny_imagenet.parent}", "--test_after_fit"]
    runs = run("fit", *configs, *SMALL, *flags, "--model.encoder.weights=random")
    run_dir = runs / f"{'original' if overlay else layer}_random" / "version_0"
    assert values(run_dir, "test/psnr_64")[0] > 5
    assert values(run_dir, "test/normalized_error")[0] > 0
    assert (run_dir / "images/reconstructions/test.png").is_file()
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["model"]["init_args"]["decoder"]["init_args"]["image_size"] == SIZES[layer]
    saved = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert sum(value.numel() for name, value in saved.items() if name.startswith("encoder")) < 100  # a hash alone


def test_an_inversion_learns_under_a_perceptual_loss_too(run: Run, tiny_imagenet: Path) -> None:
    configs = [f"--config={CONFIGS / name}" for name in ("fc8.yaml", "perceptual.yaml")]
    flags = [f"--data.root={tiny_imagenet}", f"--data.cache_dir={tiny_imagenet.parent}", "--test_after_fit"]
    flags += ["--model.encoder.weights=random", "--model.perceptual.init_args.weights=random"]
    run_dir = run("fit", *configs, *SMALL, *flags) / "perceptual_random" / "version_0"
    loss, mse, distance = (values(run_dir, f"val/{name}")[-1] for name in ("loss", "mse", "perceptual"))
    config = yaml.safe_load((run_dir / "config.yaml").read_text())["model"]["init_args"]
    assert loss == pytest.approx(mse + config["perceptual_weight"] * distance, rel=1e-3)
    assert values(run_dir, "test/perceptual")[0] > 0


@pytest.mark.parametrize(
    ("probe", "tokens", "head"),
    [
        ("attentive_probe", "all", ["--model.head.in_features=192", "--model.head.num_heads=3"]),
        ("linear_probe", "cls", ["--model.head.in_features=192"]),
        ("linear_probe", "mean", ["--model.head.in_features=192", "--model.encoder.tokens=mean"]),
    ],
)
def test_a_transformer_is_probed(probe: str, tokens: str, head: list[str], run: Run, tiny_imagenet: Path) -> None:
    pytest.importorskip("timm")
    flags = ["--model.encoder.network=timm/vit_tiny_patch16_224", "--model.encoder.image_size=32", *head]
    flags += [f"--data.root={tiny_imagenet}", f"--data.cache_dir={tiny_imagenet.parent}", "--test_after_fit"]
    runs = run("fit", f"--config={CONFIGS / probe}.yaml", *SMALL, *flags, "--model.encoder.weights=random")
    run_dir = runs / f"{probe}_random" / "version_0"
    assert 0 <= values(run_dir, "test/accuracy")[0] <= 1
    model = yaml.safe_load((run_dir / "config.yaml").read_text())["model"]["init_args"]
    assert model["encoder"]["init_args"]["tokens"] == tokens
    saved = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert sum(value.numel() for name, value in saved.items() if name.startswith("encoder")) == 32  # a hash alone
    classes, width = saved["head.classify.weight" if probe == "attentive_probe" else "head.weight"].shape
    assert (classes, width) == (3, 192)
