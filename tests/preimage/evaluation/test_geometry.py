import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from preimage.evaluation.geometry import effective_rank, intrinsic_dimension, measure_geometry


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
