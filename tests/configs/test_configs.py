"""Every config for MNIST runs, on small files of real digits; and every config says what to expect."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from tests.conftest import ROOT, Run
from tests.preimage.test_cli import values

CONFIGS = ROOT / "configs"
OVERLAYS = {
    "mnist/all_images.yaml",
    "mnist/plain.yaml",
    "mnist/fashion.yaml",
}
EXPERIMENTS = sorted({"quickstart.yaml", *(f"mnist/{path.name}" for path in CONFIGS.glob("mnist/*.yaml"))} - OVERLAYS)
SMALL = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_test_batches=2"]
SMALL += ["--trainer.enable_model_summary=false", "--trainer.accelerator=cpu", "--curves=null", "--test_after_fit"]


class Kept(Callback):
    """Keeps the trained module for a look at it."""

    module: LightningModule

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Kept.module = pl_module


def flags(config: str, idx_root: Path) -> list[str]:
    if config == "quickstart.yaml":
        return SMALL
    short = ["--model.num_importance_samples=20", "--data.batch_size=16"] if "binarized" in config else []
    return [*SMALL, f"--data.root={idx_root}", "--data.val_size=50", *short]


PRETRAINED: dict[tuple[str, ...], list[Path]] = {}  # once for all tests of a process


def pretrain(run: Run, idx_root: Path, tmp_path: Path, *overlays: str) -> None:
    """Makes the checkpoints that other configs start from, where they expect them."""
    if overlays in PRETRAINED:
        for folder in PRETRAINED[overlays]:
            shutil.copytree(folder, tmp_path / "runs" / folder.name)
        return
    more = [f"--config={CONFIGS / name}" for name in overlays]
    pretraining = [f"--config={CONFIGS / 'mnist/autoencoder.yaml'}", f"--config={CONFIGS / 'mnist/all_images.yaml'}"]
    run("fit", *pretraining, *more, *SMALL, f"--data.root={idx_root}")
    plain = [f"--config={CONFIGS / 'mnist/classifier.yaml'}", f"--config={CONFIGS / 'mnist/plain.yaml'}"]
    runs = run("fit", *plain, *more, *flags("mnist/classifier.yaml", idx_root))
    PRETRAINED[overlays] = list(runs.iterdir())


@pytest.mark.parametrize("config", EXPERIMENTS)
@pytest.mark.parametrize(
    "overlay", [[], pytest.param(["mnist/fashion.yaml"], marks=pytest.mark.slow)], ids=["plain", "fashion"]
)
def test_experiment_runs(config: str, overlay: list[str], run: Run, idx_root: Path, tmp_path: Path) -> None:
    if overlay and config == "quickstart.yaml":
        pytest.skip("the overlay is for the MNIST configs")
    if any(word in config for word in ("finetune", "frozen", "semi", "invert")):
        pretrain(run, idx_root, tmp_path, *overlay)
    files = [f"--config={CONFIGS / name}" for name in (config, *overlay)]
    keep = f"--trainer.callbacks+={__name__}.Kept"
    runs = run("fit", *files, *flags(config, idx_root), keep)
    content = yaml.safe_load((CONFIGS / config).read_text())
    run_dir = runs / content["name"] / "version_0"
    assert values(run_dir, "test/loss")[0] > 0
    trained = Kept.module
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in trained.named_children()}
    if config == "mnist/vae_binarized.yaml":
        assert counts["encoder"] + counts["decoder"] == 542_049
        assert values(run_dir, "test/log_likelihood")[0] >= values(run_dir, "test/elbo")[0]
    else:
        gaussian_head = 577 * 12 if config.endswith("vae.yaml") else 0  # the second one
        assert counts["encoder"] == 30_476 + gaussian_head
        assert counts.get("decoder", 30_977) == 30_977
        assert counts.get("head", 1_482) == 1_482
    used = yaml.safe_load((run_dir / "config.yaml").read_text())
    source = used["model"]["init_args"].get("encoder_checkpoint")
    if source and ("frozen" in config or "invert" in config):
        saved = torch.load(runs / source, weights_only=True)["state_dict"]
        encoder = trained.get_submodule("encoder").state_dict()
        assert all(torch.equal(value, saved[f"encoder.{name}"]) for name, value in encoder.items())


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_config_begins_with_what_to_expect(path: Path) -> None:
    first, second, third = path.read_text().splitlines()[:3]
    assert first.startswith("# ")
    assert second.startswith("# Expect: ")
    assert third.startswith("# Next: ")
