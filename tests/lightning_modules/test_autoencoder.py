from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datamodules import MNISTDataModule
from lightning_modules import Autoencoder, MNISTDecoder, MNISTEncoder
from tests.lightning_modules.test_base import trainer


def test_test_metrics_count_each_image_once_and_equal_a_plain_computation(tmp_path: Path) -> None:
    data, model = MNISTDataModule(batch_size=300), Autoencoder(MNISTEncoder(), MNISTDecoder())
    (values,) = trainer(tmp_path).test(model, data, verbose=False)
    images = data.test_set.images.float() / 255
    with torch.no_grad():
        errors = (model(images) - images).square().mean(dim=(1, 2, 3))
    assert len(images) % 300  # the last batch is a smaller one
    assert values["test/mse"] == pytest.approx(float(errors.mean()), rel=1e-5)
    assert values["test/loss"] == pytest.approx(float(errors.mean()), rel=1e-5)
    assert values["test/psnr"] == pytest.approx(float((-10 * errors.log10()).mean()), rel=1e-5)


def test_the_target_is_resized_to_the_decoders_size() -> None:
    model = Autoencoder(MNISTEncoder(), nn.Sequential(MNISTDecoder(), nn.MaxPool2d(2)))
    images = torch.rand(4, 1, 28, 28)
    outputs = model.validation_step((images, torch.zeros(4)), 0)
    assert outputs["target"].shape == outputs["reconstruction"].shape == (4, 1, 14, 14)
    assert torch.allclose(outputs["target"].mean(), images.mean(), atol=0.01)
    assert outputs["loss"] == F.mse_loss(outputs["reconstruction"], outputs["target"])


def test_it_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = MNISTDataModule(batch_size=32)
    model = Autoencoder(MNISTEncoder(), MNISTDecoder(), optimizer=lambda p: torch.optim.Adam(p, lr=4e-3))
    trainer(tmp_path, max_epochs=2, limit_train_batches=1.0).fit(model, data)
    (values,) = trainer(tmp_path).test(model, data, verbose=False)
    images = data.test_set.images.float() / 255
    mean = data.train_set.images.float().mean(dim=0) / 255
    assert values["test/mse"] < 0.75 * float((images - mean).square().mean())  # better than the mean image


def test_a_decoder_with_other_channels_is_refused() -> None:
    model = Autoencoder(MNISTEncoder(), nn.Sequential(MNISTDecoder(), nn.Conv2d(1, 3, 1)))
    with pytest.raises(ValueError, match=r"gives \(2, 3, 28, 28\) for images \(2, 1, 28, 28\)"):
        model.training_step((torch.rand(2, 1, 28, 28), torch.zeros(2)), 0)
