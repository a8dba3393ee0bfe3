"""The losses of self-supervised training are those of the papers, written out."""

import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_modules import BYOL, DINO, BarlowTwins, JointEmbedding, SimCLR, VICReg
from tests.conftest import ROOT, Fails

Array = NDArray[np.float64]
SIZES = {"in_features": 3, "hidden_features": 7, "features": 5}


@pytest.fixture
def parts() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    first = torch.randn(6, 5, dtype=torch.float64)
    return first, first + 0.5 * torch.randn(6, 5, dtype=torch.float64)


def nt_xent(first: Array, second: Array, temperature: float) -> float:
    z = np.concatenate([first, second])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    terms = []
    for i in range(12):
        others = sum(np.exp(z[i] @ z[k] / temperature) for k in range(12) if k != i)
        terms.append(-np.log(np.exp(z[i] @ z[(i + 6) % 12] / temperature) / others))
    return float(np.mean(terms))


def vicreg(first: Array, second: Array) -> float:
    invariance, variance, covariance = np.mean((first - second) ** 2), 0.0, 0.0
    for z in (first, second):
        variance += np.mean([max(0.0, 1 - np.sqrt(np.var(column, ddof=1) + 1e-4)) for column in z.T]) / 2
        matrix = np.cov(z.T)
        covariance += sum(matrix[i, j] ** 2 for i in range(5) for j in range(5) if i != j) / 5
    return float(3 * invariance + 20 * variance + 0.5 * covariance)


def barlow_twins(first: Array, second: Array, redundancy: float) -> float:
    matrix = np.corrcoef(first.T, second.T)[:5, 5:]
    off = sum(matrix[i, j] ** 2 for i in range(5) for j in range(5) if i != j)
    return float(np.sum((1 - np.diag(matrix)) ** 2) + redundancy * off)


def test_losses_of_two_views_are_those_written_out(parts: tuple[Tensor, Tensor]) -> None:
    first, second = (part.numpy() for part in parts)
    found = SimCLR(temperature=0.3, **SIZES)(parts, []).item()
    assert found == pytest.approx(nt_xent(first, second, 0.3), rel=1e-10)
    found = VICReg(invariance=3.0, variance=20.0, covariance=0.5, **SIZES)(parts, []).item()
    assert found == pytest.approx(vicreg(first, second), rel=1e-10)
    found = BarlowTwins(redundancy=0.1, **SIZES)(parts, []).item()
    assert found == pytest.approx(barlow_twins(first, second, 0.1), rel=1e-4)  # lightly's variance has an epsilon


def test_byol_foretells_of_each_view_what_the_teacher_makes_of_the_other(parts: tuple[Tensor, Tensor]) -> None:
    method = BYOL(**SIZES).double().eval()
    teacher = torch.randn(2, 6, 5, dtype=torch.float64)
    predicted = [method.predictor(part).detach().numpy() for part in parts]
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for one, other in zip(predicted, teacher.numpy()[::-1], strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    assert method(parts, list(teacher)).item() == pytest.approx(2 - 2 * np.mean(cosines), rel=1e-10)


def test_dino_compares_each_pair_of_different_views_and_its_centre_follows_in_training_alone() -> None:
    torch.manual_seed(0)
    method = DINO(teacher_temperature=0.3, student_temperature=0.5, center_momentum=0.8, **SIZES).double()
    student, teacher = torch.randn(3, 6, 5, dtype=torch.float64), torch.randn(2, 6, 5, dtype=torch.float64)

    def expected(center: Array) -> float:
        pairs = [(t, s) for t in range(2) for s in range(3) if t != s]
        terms = []
        for t, s in pairs:
            target = np.exp((teacher[t].numpy() - center) / 0.3)
            logits = student[s].numpy() / 0.5
            target /= target.sum(axis=1, keepdims=True)
            terms.append(-(target * (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))).sum(axis=1).mean())
        return float(np.mean(terms))

    assert method(list(student), list(teacher)).item() == pytest.approx(expected(np.zeros(5)), rel=1e-6)
    center = 0.2 * teacher.numpy().mean(axis=(0, 1))
    method.eval()
    for _ in range(2):
        assert method(list(student), list(teacher)).item() == pytest.approx(expected(center), rel=1e-6)


@pytest.mark.parametrize("kind", [SimCLR, VICReg, BarlowTwins, BYOL, DINO])
def test_projectors_have_the_sizes_that_are_asked_for(kind: type[JointEmbedding]) -> None:
    method = kind(**SIZES)
    assert method.projector(torch.randn(4, 3)).shape == (4, 5)
    assert method.projector.layers[0].weight.shape == (7, 3)


def test_the_last_layer_of_dino_has_a_vector_of_length_1_for_each_class() -> None:
    layer: nn.Linear = DINO(**SIZES).projector.last_layer
    assert layer.weight.norm(dim=1).tolist() == pytest.approx([1.0] * 5)
    assert [p.shape for p in layer.parameters() if p.requires_grad] == [(5, 256)]  # the directions alone


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.method.temperature=0"], "SimCLR.temperature=0.0 must be above 0"),
        (["--model.method=VICReg", "--model.method.features=0"], "VICReg.features=0 must be at least 1"),
        (["--model.method=DINO", "--model.method.momentum=2"], "DINO.momentum=2.0 must be in [0, 1]"),
        ([], "lightly is not installed: pip install 'preimage[ssl]' brings it"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(
    fails: Fails, monkeypatch: pytest.MonkeyPatch, flags: list[str], words: str
) -> None:
    if not flags:
        for name in ("lightly", "lightly.loss", "lightly.models.modules.heads"):
            monkeypatch.setitem(sys.modules, name, None)
    config = f"--config={ROOT / 'configs/mnist/simclr.yaml'}"
    assert words in fails("fit", config, "--data.dataset=digits5k", *flags)
