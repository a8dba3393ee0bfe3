import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from datamodules import PerImageAffine
from datamodules.augmentation import affine


@pytest.mark.parametrize("size", [(28, 28), (20, 32)])
def test_affine_equals_torchvisions_image_by_image(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, *size)
    degrees, shears, scales = [20.0, 0.0, -7.0, 0.0], [0.0, 15.0, 9.0, 0.0], [1.0, 1.0, 0.9, 1.2]
    shifts = [(0.0, 0.0), (0.0, 0.0), (0.125, 0.25), (0.25, -0.25)]
    radians = [torch.tensor([math.radians(angle) for angle in angles]) for angles in (degrees, shears)]
    ours = affine(images, radians[0], radians[1], torch.tensor(scales), torch.tensor(shifts))
    for i in range(4):
        shift = [shifts[i][0] * size[1], shifts[i][1] * size[0]]
        bilinear = InterpolationMode.BILINEAR
        expected = tv.affine(images[i], degrees[i], shift, scales[i], [shears[i], 0.0], interpolation=bilinear)
        assert torch.allclose(ours[i], expected, atol=1e-5)


def test_every_image_gets_its_own_parameters_and_the_range_stays() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 28, 28).repeat(8, 1, 1, 1)
    moved = PerImageAffine()(image)
    assert len({tuple(picture.flatten().tolist()) for picture in moved}) == 8
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-6
    assert torch.allclose(PerImageAffine(p=0.0)(image), image, atol=1e-5)


def test_parameters_stay_in_their_ranges() -> None:
    torch.manual_seed(0)
    image = torch.zeros(2000, 1, 21, 21)
    image[:, :, 10, 10] = 1.0  # a dot at the centre: only the shift moves it
    moved = PerImageAffine(translate=0.2)(image)
    weights = moved / moved.sum(dim=(2, 3), keepdim=True)
    offsets = (weights.sum(dim=2) * torch.arange(21.0)).sum(dim=2) - 10
    assert 3.8 < offsets.abs().max() <= 0.2 * 21 + 0.5
    assert abs(float(offsets.mean())) < 0.3
