import pytest
import torch
from torch import nn

from lightning_modules import ConvDecoder, ConvGaussianEncoder, MNISTGaussianEncoder


@pytest.mark.parametrize("image_size", [32, 96, 128])
def test_shapes_and_range(image_size: int) -> None:
    encoder = ConvGaussianEncoder(image_size, latent_dim=7, in_channels=3, width=4)
    mean, log_variance = encoder.posterior(torch.rand(2, 3, image_size, image_size))
    assert mean.shape == log_variance.shape == (2, 7)
    image = ConvDecoder(image_size, latent_dim=7, out_channels=3, width=4)(10 * mean)
    assert image.shape == (2, 3, image_size, image_size)
    assert image.min() >= 0
    assert image.max() <= 1


def test_the_code_is_the_mean() -> None:
    encoder = MNISTGaussianEncoder(5).eval()
    images = torch.rand(3, 1, 28, 28)
    assert encoder(images).equal(encoder.posterior(images)[0])
    assert encoder(images).shape == (3, 5)


def test_layers_are_those_of_the_system() -> None:
    trunk = ConvGaussianEncoder().trunk
    assert isinstance(trunk, nn.Sequential)
    assert [layer.out_channels for layer in trunk if isinstance(layer, nn.Conv2d)] == [32, 64, 128, 256, 512]
    assert " ".join(type(layer).__name__ for layer in trunk[:3]) == "Conv2d BatchNorm2d LeakyReLU"
    decoder = ConvDecoder()
    assert [layer.out_channels for layer in decoder if isinstance(layer, nn.Conv2d)] == [256, 128, 64, 32, 3]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in decoder) == 4
    assert sum(isinstance(layer, nn.InstanceNorm2d) for layer in ConvDecoder(norm="instance")) == 4
    assert isinstance(decoder[-1], nn.Sigmoid)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32, not 100"):
        ConvGaussianEncoder(image_size=100)
    with pytest.raises(ValueError, match="multiple of 32, not 16"):
        ConvDecoder(image_size=16)
