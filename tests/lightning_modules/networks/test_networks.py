import pytest
import torch
from torch import nn

from lightning_modules import MLPHead, MNISTDecoder, MNISTEncoder


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("network", "count"), [(MNISTEncoder(), 30_476), (MNISTDecoder(), 30_977), (MLPHead(12, 64, 10), 1_482)]
)
def test_parameter_counts_are_those_of_the_system(network: nn.Module, count: int) -> None:
    assert parameters(network) == count


@pytest.mark.parametrize("latent_dim", [1, 12, 40])
def test_shapes_and_range(latent_dim: int) -> None:
    code = MNISTEncoder(latent_dim)(torch.rand(3, 1, 28, 28))
    assert code.shape == (3, latent_dim)
    image = MNISTDecoder(latent_dim)(100 * code)
    assert image.shape == (3, 1, 28, 28)
    assert image.min() >= 0
    assert image.max() <= 1


def test_layers_are_in_the_order_of_the_system() -> None:
    encoder = " ".join(type(layer).__name__ for layer in MNISTEncoder())
    assert encoder == "Conv2d ReLU MaxPool2d Conv2d ReLU MaxPool2d Conv2d ReLU Flatten Linear"
    decoder = " ".join(type(layer).__name__ for layer in MNISTDecoder())
    assert decoder == "Linear Unflatten ConvTranspose2d ReLU ConvTranspose2d ReLU ConvTranspose2d Sigmoid"
