import pytest
import torch

from lightning_modules import VAE, ResidualDecoder, ResidualGaussianEncoder


@pytest.mark.parametrize(("image_size", "channels"), [(28, 1), (32, 3)])
def test_shapes_and_range(image_size: int, channels: int) -> None:
    encoder = ResidualGaussianEncoder(image_size, latent_dim=7, in_channels=channels, width=4, blocks=2)
    mean, log_variance = encoder.posterior(torch.rand(2, channels, image_size, image_size))
    assert mean.shape == log_variance.shape == (2, 7)
    image = ResidualDecoder(image_size, latent_dim=7, out_channels=channels, width=4)(10 * mean)
    assert image.shape == (2, channels, image_size, image_size)
    assert image.min() >= 0
    assert image.max() <= 1


def test_a_vae_of_the_default_size_is_small() -> None:
    vae = VAE(ResidualGaussianEncoder(), ResidualDecoder(), latent_dim=32)
    assert sum(p.numel() for p in vae.parameters()) == 542_049


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4, not 30"):
        ResidualGaussianEncoder(image_size=30)
    with pytest.raises(ValueError, match="multiple of 4, not 30"):
        ResidualDecoder(image_size=30)
