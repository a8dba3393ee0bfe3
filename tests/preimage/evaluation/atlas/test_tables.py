import pytest
import torch
from scipy.stats import spearmanr

from preimage.evaluation.atlas.measures import errors, pixels_again
from preimage.evaluation.atlas.tables import mean_image, rank_correlations

IMAGES = torch.randint(256, (150, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_mean_image_is_that_of_all_images_at_once() -> None:
    mean = mean_image(IMAGES)
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, IMAGES.float().mean(dim=0) / 255, atol=1e-5, rtol=0)


def test_an_image_of_one_colour_survives_any_scaling() -> None:
    plain = torch.full((5, 3, 64, 64), 77, dtype=torch.uint8)
    assert errors(pixels_again(2), plain, torch.device("cpu"))["mse_64"] < 1e-12


def test_rank_correlations_are_those_of_scipy() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(7, 2, generator=generator).tolist()
    rows = [{"network": "a", "linear": first, "effective_rank": second} for first, second in values]
    (text,) = rank_correlations(rows)
    *_, last = text.strip().splitlines()
    assert float(last.split("|")[2]) == pytest.approx(spearmanr(*zip(*values, strict=True)).statistic, abs=0.005)
    assert rank_correlations(rows[:2]) == []
