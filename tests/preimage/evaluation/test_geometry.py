import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from preimage.evaluation.geometry import (
    centred_gram,
    cka_matrix,
    effective_rank,
    intrinsic_dimension,
    measure_geometry,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def orthogonal(size: int) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.float64)).Q


@pytest.mark.parametrize("rank", [1, 5, 30])
def test_the_effective_rank_of_data_of_a_rank_is_this_rank(rank: int) -> None:
    codes = torch.randn(5000, rank, dtype=torch.float64) @ orthogonal(64)[:rank]
    assert effective_rank(codes) == pytest.approx(rank, rel=0.02)


def test_the_effective_rank_is_the_exponential_of_the_entropy_of_the_singular_values() -> None:
    values = [4.0, 2.0, 1.0, 1.0]
    codes = orthogonal(6)[:, :4] @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ orthogonal(4)
    shares = [value / sum(values) for value in values]
    assert effective_rank(codes) == pytest.approx(math.exp(-sum(share * math.log(share) for share in shares)))
    assert effective_rank(7 * codes) == pytest.approx(effective_rank(codes))


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_the_dimension_of_a_sphere_is_its_own(dimension: int) -> None:
    sphere = F.normalize(torch.randn(4000, dimension + 1, dtype=torch.float64), dim=1)
    codes = sphere @ orthogonal(20)[: dimension + 1]
    assert intrinsic_dimension(codes) == pytest.approx(dimension, rel=0.08)
    assert intrinsic_dimension(torch.cat([codes, codes[:50]])) == pytest.approx(intrinsic_dimension(codes))


def test_a_constant_code_has_no_dimension() -> None:
    assert math.isnan(intrinsic_dimension(torch.ones(10, 3)))
    assert measure_geometry(torch.ones(10, 3)) == {"numbers": 3, "effective_rank": pytest.approx(1)}


def test_all_of_it_is_measured_of_many_codes() -> None:
    shape = measure_geometry(torch.randn(200, 12))
    assert shape["numbers"] == 12
    assert 1 < shape["effective_rank"] <= 12 and 1 < shape["intrinsic_dimension"] < 20


def hsic(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The double sum of Gretton et al. (2005) over all pairs of images, which centres nothing, times N ** 2."""
    n, kernels, both = len(first), (first @ first.T, second @ second.T), 0.0
    sums = [[sum(row) for row in kernel] for kernel in kernels]
    for i in range(n):
        both += sum(kernels[0][i, j] * kernels[1][i, j] for j in range(n)) - 2 / n * sums[0][i] * sums[1][i]
    return both + sum(sums[0]) * sum(sums[1]) / n**2


def test_cka_is_that_of_the_double_sum() -> None:
    codes = [torch.randn(30, 5).double() + 2, torch.randn(30, 7, 4, 4).double()]
    codes.append(codes[0].square() + codes[1][:, :5, 0, 0])
    flat = [code.flatten(1).numpy() for code in codes]
    expected = [[hsic(a, b) / math.sqrt(hsic(a, a) * hsic(b, b)) for b in flat] for a in flat]
    matrix = cka_matrix([centred_gram(code) for code in codes])
    assert matrix.numpy() == pytest.approx(np.array(expected), abs=1e-9)
    assert 0.05 < matrix[0, 1] < 0.5 < matrix[0, 2] < 0.95


def test_cka_sees_through_a_turn_a_scale_and_a_shift() -> None:
    codes = torch.randn(100, 40)
    turned = codes @ orthogonal(40).float()
    same = [codes, turned, 1e-3 * codes, -7 * turned + 3, codes.unflatten(1, (10, 2, 2))]
    assert cka_matrix([centred_gram(code) for code in same]).allclose(torch.ones(5, 5).double(), atol=1e-5)


def test_cka_of_codes_with_more_numbers_than_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.randn(20, 100)
    whole = centred_gram(codes)
    monkeypatch.setattr("preimage.evaluation.geometry._COLUMNS", 7)
    assert centred_gram(codes).allclose(whole)


def test_a_constant_code_is_like_none() -> None:
    constant = torch.rand(64).expand(50, 64)
    rounded = constant + 1e-7 * torch.randn(50, 64)  # as a network gives it, which computes image by image
    matrix = cka_matrix([centred_gram(code) for code in (torch.randn(50, 8), constant, rounded)])
    assert matrix.allclose(torch.diag(torch.tensor([1.0, 0.0, 0.0])).double())
