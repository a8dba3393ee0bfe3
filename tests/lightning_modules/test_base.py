from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from datamodules import MNISTDataModule
from lightning_modules import (
    Autoencoder,
    Classifier,
    FrozenFeatures,
    Inversion,
    MLPHead,
    MNISTDecoder,
    MNISTEncoder,
    OneCycle,
)


class NoisyEncoder(nn.Sequential):
    """An encoder with everything that a train mode would wake up."""

    def __init__(self) -> None:
        super().__init__(nn.BatchNorm2d(1), nn.Dropout(0.5), MNISTEncoder())


def trainer(tmp_path: Path, **kwargs: Any) -> Trainer:
    options: dict[str, Any] = {
        "max_epochs": 1,
        "limit_train_batches": 4,
        "limit_val_batches": 1,
        "logger": False,
        "accelerator": "cpu",
    }
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": tmp_path}
    return Trainer(**options | kwargs)


@pytest.fixture
def data() -> MNISTDataModule:
    return MNISTDataModule(batch_size=16)


def pretrained(tmp_path: Path, encoder: nn.Module) -> str:
    state = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "pretrained.ckpt")
    return "pretrained.ckpt"  # relative to the trainer's root


@pytest.mark.parametrize("kind", [Classifier, Inversion])
def test_a_frozen_encoder_is_unchanged_after_fit_bit_for_bit(kind: type, tmp_path: Path, data: MNISTDataModule) -> None:
    source = NoisyEncoder()
    path = pretrained(tmp_path, source)
    encoder = NoisyEncoder()
    if kind is Classifier:
        model: Any = Classifier(encoder, MLPHead(), encoder_checkpoint=path, freeze_encoder=True)
    else:
        model = Inversion(encoder, MNISTDecoder(), encoder_checkpoint=path)
    seen: list[bool] = []
    encoder[1].register_forward_hook(lambda module, *args: seen.append(module.training))
    trainer(tmp_path).fit(model, data)
    assert seen and not any(seen)  # dropout stayed off
    after, before = model.encoder.state_dict(), source.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())  # batch norm statistics too
    optimized = {id(p) for group in model.optimizers().param_groups for p in group["params"]}
    assert not optimized & {id(p) for p in model.encoder.parameters()}
    assert all(p.grad is None for p in model.encoder.parameters())
    assert not model.train().encoder.training


def test_an_encoder_that_is_not_frozen_starts_at_the_checkpoint_and_learns(
    tmp_path: Path, data: MNISTDataModule
) -> None:
    source = MNISTEncoder()
    before = {name: value.clone() for name, value in source.state_dict().items()}
    model = Classifier(
        MNISTEncoder(),
        MLPHead(),
        encoder_checkpoint=pretrained(tmp_path, source),
        encoder_lr=1e-7,
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )
    trainer(tmp_path).fit(model, data)
    moved = [float((value - before[name]).abs().max()) for name, value in model.encoder.state_dict().items()]
    assert 0 < max(moved) < 1e-5
    assert [group["lr"] for group in model.optimizers().param_groups] == [0.1, 1e-7]  # type: ignore[union-attr]
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())  # not in place


def test_a_missing_encoder_checkpoint_is_named(tmp_path: Path, data: MNISTDataModule) -> None:
    model = Inversion(MNISTEncoder(), MNISTDecoder(), encoder_checkpoint="none/last.ckpt")
    with pytest.raises(FileNotFoundError, match=rf"no checkpoint at {tmp_path}/none/last\.ckpt"):
        trainer(tmp_path).fit(model, data)


def test_one_cycle_spans_the_whole_training(tmp_path: Path, data: MNISTDataModule) -> None:
    model = Autoencoder(MNISTEncoder(), MNISTDecoder(), scheduler=OneCycle)
    run = trainer(tmp_path, max_epochs=3)
    run.fit(model, data)
    assert model.lr_schedulers().total_steps == 12  # type: ignore[union-attr]
    assert model.lr_schedulers().last_epoch == 12  # type: ignore[union-attr]
    assert model.optimizers().param_groups[0]["lr"] == pytest.approx(1e-3 / 25 / 1e4)  # type: ignore[union-attr]


def test_torchs_schedules_step_per_epoch(tmp_path: Path, data: MNISTDataModule) -> None:
    model = Autoencoder(
        MNISTEncoder(), MNISTDecoder(), scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.1)
    )
    trainer(tmp_path, max_epochs=2).fit(model, data)
    assert model.optimizers().param_groups[0]["lr"] == pytest.approx(1e-5)  # type: ignore[union-attr]


def test_a_checkpoint_of_a_model_built_in_python_holds_plain_values(tmp_path: Path, data: MNISTDataModule) -> None:
    model = Classifier(MNISTEncoder(), MLPHead(), label_smoothing=0.2, optimizer=partial(torch.optim.SGD, lr=0.1))
    run = trainer(tmp_path)
    run.fit(model, data)
    run.save_checkpoint(tmp_path / "plain.ckpt")
    checkpoint = torch.load(tmp_path / "plain.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["label_smoothing"] == 0.2
    loaded = Classifier.load_from_checkpoint(
        tmp_path / "plain.ckpt", encoder=MNISTEncoder(), head=MLPHead(), weights_only=True
    )
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(loaded(images), model(images))


def test_a_step_names_parts_that_do_not_fit_on_any_data() -> None:
    model = Autoencoder(MNISTEncoder(5), MNISTDecoder(7))
    with pytest.raises(
        ValueError, match=r"model\.decoder \(MNISTDecoder\) does not take the codes \(5,\) of model\.enc"
    ):
        model.training_step((torch.zeros(2, 1, 28, 28), torch.zeros(2).long()), 0)


def test_a_linear_head_on_a_map_is_told_how_to_get_vectors() -> None:
    def model(tokens: Any) -> Classifier:
        pooled = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1))  # as the last of torchvision's networks
        features = FrozenFeatures(pooled, "1", "random", image_size=None, normalize=False, tokens=tokens)
        return Classifier(features, nn.Linear(4, 10), num_classes=10)

    batch = torch.rand(2, 1, 28, 28), torch.zeros(2).long()
    with pytest.raises(ValueError, match=r"codes \(4, 1, 1\) .*: a linear head reads vectors, which --model\.enc"):
        model("all").training_step(batch, 0)
    assert model("mean").training_step(batch, 0).isfinite()


def test_a_test_is_measured_in_float32_whatever_the_precision() -> None:
    torch.manual_seed(0)
    model = Autoencoder(MNISTEncoder(), MNISTDecoder())
    batch = torch.rand(8, 1, 28, 28), torch.arange(8)
    with torch.no_grad():
        expected = model.test_step(batch, 0)["loss"]
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model.test_step(batch, 0)["loss"], expected)
            assert not torch.equal(model.validation_step(batch, 0)["loss"], expected)
