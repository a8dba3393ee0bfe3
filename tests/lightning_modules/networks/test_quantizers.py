import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_modules import FSQ
from tests.conftest import QUICK, Fails


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 16])
def test_numbers_become_the_nearest_of_evenly_spaced_levels(levels: int) -> None:
    quantizer = FSQ(4, levels).eval()
    code = 3 * torch.randn(200, 4)
    quantized = quantizer(code)
    grid = np.linspace(-1, 1, levels)
    normal = code.numpy() / math.sqrt(1 + 1e-5)  # by the batch norm, which has seen nothing yet
    nearest = np.abs(np.tanh(normal)[..., None] - grid).argmin(axis=-1)
    assert np.allclose(quantized, grid[nearest], atol=1e-6)
    assert quantizer.indices(quantized).numpy().tolist() == nearest.tolist()
    assert set(nearest.flatten()) == set(range(levels))


def test_the_gradient_is_that_without_the_rounding() -> None:
    quantizer = FSQ(4, 5).eval()
    code = torch.randn(8, 4, requires_grad=True)
    weights = torch.randn(8, 4)
    (quantizer(code) * weights).sum().backward()
    again = code.detach().clone().requires_grad_()
    ((again / math.sqrt(1 + 1e-5)).tanh() * weights).sum().backward()
    assert code.grad is not None and again.grad is not None
    assert torch.allclose(code.grad, again.grad, atol=1e-6)


def test_each_number_is_spread_over_the_levels_whatever_its_scale() -> None:
    quantizer = FSQ(3, 4)
    code = torch.randn(500, 3) * torch.tensor([0.05, 1.0, 50.0]) + torch.tensor([7.0, 0.0, -100.0])
    indices = quantizer.indices(quantizer(code))
    shares = np.stack([np.bincount(column, minlength=4) / 500 for column in indices.T.numpy()])
    assert shares.min() > 0.1  # a normal number has 21 to 29 % of each
    assert shares.max() < 0.4


def test_maps_have_a_norm_for_each_channel_and_keep_their_places() -> None:
    quantizer = FSQ(6, 8, features=2)
    maps = torch.randn(5, 6, 3, 4)
    quantized = quantizer(maps)
    numbers = torch.einsum("bchw,dc->bdhw", maps, quantizer.project.weight)  # the bias goes with the mean
    deviation, mean = torch.std_mean(numbers, dim=(0, 2, 3), correction=0, keepdim=True)
    expected = ((numbers - mean) / deviation).tanh().mul(3.5).add(3.5).round().div(3.5).sub(1)
    assert torch.allclose(quantized, expected, atol=1e-4)
    assert quantizer.indices(quantized).shape == (5, 24)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_levels_keep_their_digits_in_any_precision(kind: torch.dtype) -> None:
    quantizer = FSQ(4, 1000)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        quantized = quantizer(torch.randn(9, 4, dtype=kind))
    assert quantized.dtype == torch.float32
    steps = (quantized.double() + 1) * 999 / 2
    assert torch.allclose(steps, steps.round(), atol=1e-3)


def test_without_its_package_it_says_what_to_install(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    line = fails("fit", *QUICK, "--model.quantizer=FSQ")
    assert "vector_quantize_pytorch is not installed: pip install 'preimage[quantize]' brings it" in line


def test_levels_that_there_are_not_are_refused(fails: Fails, tmp_path: Path) -> None:
    assert "FSQ.levels=1 must be in [2, 65536]" in fails(
        "fit", *QUICK, "--model.quantizer=FSQ", "--model.quantizer.levels=1"
    )
    line = fails("fit", *QUICK, "--model.quantizer=FSQ", "--model.quantizer.features=5")
    assert "model.decoder (MNISTDecoder, latent_dim=12) does not take the codes (5,)" in line
