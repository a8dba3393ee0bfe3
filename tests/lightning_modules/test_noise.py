import pytest
import torch
from scipy.stats import kstest, norm

from lightning_modules.noise import fixed_noise


def test_the_noise_of_an_image_is_the_same_in_any_batch_and_another_for_any_other() -> None:
    images = torch.randint(0, 256, (9, 1, 28, 28), generator=torch.Generator().manual_seed(0)) / 255
    noise = fixed_noise(images, 5, 12)
    assert noise.shape == (5, 9, 12)
    assert fixed_noise(images[3:5], 5, 12).equal(noise[:, 3:5])
    assert fixed_noise(images.to(memory_format=torch.channels_last), 5, 12).equal(noise)
    assert fixed_noise(images, 2, 12, start=3).equal(noise[3:])
    assert len(noise.flatten().unique()) == noise.numel()
    images[:, :, 7, 7] += 1 / 255
    assert not (fixed_noise(images, 5, 12) == noise).any()


def test_the_noise_is_normal_and_independent() -> None:
    images = torch.randint(0, 256, (2000, 784), generator=torch.Generator().manual_seed(0)) / 255
    noise = fixed_noise(images, 2, 10).transpose(0, 1).flatten(1)  # (2000, 20)
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 0.01
    correlation = torch.corrcoef(noise.T) - torch.eye(20)
    assert correlation.abs().max() < 5 / 2000**0.5
    between = torch.corrcoef(noise[:300])
    assert between[~torch.eye(300, dtype=torch.bool)].std() == pytest.approx(20**-0.5, rel=0.1)
    assert fixed_noise(torch.zeros(1, 784), 1, 1000).abs().max() < 5


@pytest.mark.parametrize(("place", "sign"), [(26683239, 1), (7925056, -1)])
def test_the_rarest_draws_are_finite(place: int, sign: int) -> None:
    # Draws of a black image whose hashes are all ones and all zeros, the ends of the uniform numbers: one in 8 million.
    draw = fixed_noise(torch.zeros(1, 4), 1, 1, start=place)
    assert draw.item() == pytest.approx(sign * norm.isf(2**-24), rel=1e-4)
