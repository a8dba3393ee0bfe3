"""Runs that were made before the semi-supervised classifier was a module of its own."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_modules import Classifier, SemiSupervisedClassifier
from preimage.evaluation.runs import find_run, load_model
from preimage.retired import renewed_text
from preimage.runs import Run as Folder
from tests.conftest import ROOT, Run
from tests.preimage.test_cli import values, weights

EARLIER = ROOT / "tests/earlier_runs"
KINDS = pytest.mark.parametrize(
    ("name", "kind"), [("classifier", Classifier), ("classifier_100_semi", SemiSupervisedClassifier)]
)


@KINDS
def test_a_checkpoint_builds_the_model_with_its_weights(name: str, kind: type[Classifier]) -> None:
    path = EARLIER / name / "checkpoints/last.ckpt"
    saved = weights(path)
    for model in (kind.load_from_checkpoint(path, weights_only=True), load_model(find_run(EARLIER / name))):
        assert type(model) is kind
        assert all(value.equal(saved[key]) for key, value in model.state_dict().items())
        assert model.classify(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@KINDS
def test_a_run_is_tested_and_goes_on(name: str, kind: type[Classifier], run: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(EARLIER / name, tmp_path / "runs" / name / "version_0")
    flags = [f"--config={folder / 'config.yaml'}", f"--ckpt_path={folder / 'checkpoints/last.ckpt'}"]
    run("test", *flags, "--trainer.limit_test_batches=1")
    assert 0 <= values(folder, "test/accuracy")[0] <= 1
    run("fit", *flags, "--trainer.max_epochs=2")
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 2


@KINDS
def test_a_run_of_an_earlier_version_is_the_newest_of_its_configuration(
    name: str, kind: type[Classifier], run: Run, tmp_path: Path
) -> None:
    folder = shutil.copytree(EARLIER / name, tmp_path / "runs" / name / "version_0")
    run("test", f"--config={EARLIER / name / 'config.yaml'}", "--ckpt_path=last", "--trainer.limit_test_batches=1")
    assert 0 <= values(folder, "test/accuracy")[0] <= 1


@pytest.mark.parametrize("text", ["model: {class_path: Classifier}\n", "vat: [", "vat:\n", "model: 3\nvat: 3\n"])
def test_other_text_is_left_alone(text: str) -> None:
    assert renewed_text(text) == text


def test_the_size_of_features_was_written_as_a_number_by_earlier_versions(tmp_path: Path) -> None:
    def config(size: int | str, network: str = "alexnet") -> dict[str, Any]:
        arguments = {"network": network, "image_size": size}
        return {"model": {"init_args": {"encoder": {"class_path": "FrozenFeatures", "init_args": arguments}}}}

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config(224)))
    assert Folder(tmp_path).unlike(config("own"), "fit") == ""
    assert "image_size=224, not 64" in Folder(tmp_path).unlike(config(64), "fit")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config(224, "timm/resnet18")))
    assert 'image_size=224, not "own"' in Folder(tmp_path).unlike(config("own", "timm/resnet18"), "fit")
