import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, rotate
from scipy.spatial.distance import pdist
from scipy.stats import chi
from skimage.transform import AffineTransform, warp
from torch import Tensor

from preimage.evaluation.invariance import _TRANSFORMATIONS, measure_invariance

CPU = torch.device("cpu")
NAMES = ["shift", "flip", "rotation", "scale", "colour", "blur", "noise"]


def pictures(channels: int, size: int, count: int = 70) -> Tensor:
    """Images without pixels near the ends of their range; there is more than one batch of them."""
    return torch.randint(90, 165, (count, channels, size, size), generator=torch.Generator().manual_seed(1)).byte()


def itself(images: Tensor) -> Tensor:
    return images


@pytest.mark.parametrize("shape", [(1, 28), (3, 64)])
def test_a_code_that_says_nothing_of_the_image_does_not_move(shape: tuple[int, int]) -> None:
    values = measure_invariance(lambda images: torch.ones(len(images), 5, 2), pictures(*shape), CPU)
    assert values == dict.fromkeys(NAMES, 0.0)


def test_a_code_that_is_drawn_anew_moves_as_far_as_another_image() -> None:
    torch.manual_seed(0)
    values = measure_invariance(lambda images: torch.randn(len(images), 500), pictures(3, 32), CPU)
    assert values == pytest.approx(dict.fromkeys(NAMES, 1.0), rel=0.01)


def test_the_mean_colour_does_not_move_where_no_pixel_is_changed() -> None:
    values = measure_invariance(lambda images: images.mean(dim=(2, 3)), pictures(3, 32), CPU)
    assert values.pop("flip") == pytest.approx(0, abs=1e-5)
    assert values["colour"] > 5 * values["noise"] > 0


def test_pixels_move_by_what_their_flip_and_the_noise_say() -> None:
    images = pictures(1, 28, 60)
    pixels = images.double().flatten(1).numpy() / 255
    between = pdist(pixels).mean()
    values = measure_invariance(itself, images, CPU)
    flipped = np.flip(images.numpy() / 255, 3).reshape(pixels.shape)
    assert values["flip"] == pytest.approx(np.linalg.norm(flipped - pixels, axis=1).mean() / between, rel=1e-4)
    assert values["noise"] == pytest.approx(0.1 * chi(784).mean() / between, rel=0.005)
    assert values == measure_invariance(itself, images, CPU)  # it draws nothing that is not the same each time


def test_the_mean_over_the_columns_is_moved_by_a_shift_down_alone() -> None:
    ramp = (100 + torch.arange(64)).byte()
    across = torch.stack([ramp.expand(64, 64)[None], ramp.flip(0).expand(64, 64)[None]])

    def rows(images: Tensor) -> Tensor:
        return images.mean(dim=3)

    values = measure_invariance(rows, across.transpose(2, 3), CPU)
    assert values["flip"] == pytest.approx(0, abs=1e-5)
    # 8 rows down: 56 rows differ by 8 steps of the ramp, and what comes in is its reflection.
    moved = [8.0] * 56 + [abs((8 - row) - row) for row in range(8)]
    far = [2 * row - 63 for row in range(64)]
    assert values["shift"] == pytest.approx(np.linalg.norm(moved) / np.linalg.norm(far), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_transformations_keep_shape_and_range(name: str) -> None:
    for shape in ((2, 1, 28, 28), (2, 3, 64, 48), (2, 3, 8, 8)):
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        changed = _TRANSFORMATIONS[name](images)
        assert changed.shape == shape and 0 <= changed.min() <= changed.max() <= 1 + 1e-6


def test_blur_scale_and_rotation_are_those_of_scipy_and_scikit_image() -> None:
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    pixels = image[0, 0].double().numpy()
    blurred = gaussian_filter(pixels, sigma=2, mode="mirror", truncate=3)
    assert _TRANSFORMATIONS["blur"](image)[0, 0].numpy() == pytest.approx(blurred, abs=1e-5)
    smooth = gaussian_filter(pixels, sigma=3)
    centre = AffineTransform(translation=(-31.5, -31.5)) + AffineTransform(scale=1 / 1.25)
    larger = warp(smooth, centre + AffineTransform(translation=(31.5, 31.5)))
    turned = rotate(smooth, -15, reshape=False, order=1, mode="reflect")
    for name, expected, margin in (("scale", larger, 0), ("rotation", turned, 10)):  # a border is mirrored in two ways
        inside = (slice(margin, 64 - margin),) * 2
        changed = _TRANSFORMATIONS[name](torch.from_numpy(smooth)[None, None])[0, 0].numpy()
        assert changed[inside] == pytest.approx(expected[inside], abs=1e-3)


def test_a_single_image_has_no_other() -> None:
    with pytest.raises(ValueError, match="give two or more, not 1"):
        measure_invariance(itself, pictures(1, 28, 1), CPU)
