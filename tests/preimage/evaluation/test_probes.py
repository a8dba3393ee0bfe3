import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from lightning_modules.neighbours import nearest
from preimage.evaluation.probes import Codes, candidates, probe_accuracy, probe_codes, standardized, unchosen


def blobs(count: int, seed: int) -> Codes:
    """Codes `(3 * count, 2)` around the corners of a triangle, far from the origin and of unlike scales."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]).repeat(count, 1)
    codes = corners + torch.randn(3 * count, 2, generator=generator) * 0.3
    return codes * torch.tensor([1.0, 1000.0]) + 50, torch.arange(3).repeat(count)


def classes(count: int, width: int, number: int, seed: int) -> Codes:
    """Codes `(count, width)` of classes that overlap, more in some directions than in others."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, number, (count,), generator=generator)
    means = torch.randn(number, width, generator=torch.Generator().manual_seed(9))
    scales = torch.arange(1, width + 1).pow(-0.7)
    return (0.5 * means[labels] + torch.randn(count, width, generator=generator)) * scales, labels


def test_a_tenth_of_the_training_codes_stands_in_for_a_validation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("preimage.evaluation.probes.MLP_IMAGES", 1)
    monkeypatch.setattr("preimage.progress._EVERY", 0.0)
    figures = probe_codes({"train": blobs(40, 0), "test": blobs(20, 1)}, 3, [1, 36, 37])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 + 4 + 3 + 2 * 5 * 5 and lines[-1].startswith("probing 108 codes: 100% 62/62 ")
    assert all(figures[name]["accuracy"] == figures[name]["f1"] == 1 for name in ("linear", "knn"))
    assert set(figures["few_labels"]) == {"3", "108"}  # of 37 of each class, a tenth less is left
    assert figures["few_labels"]["108"]["accuracy"] == 1


def test_neighbours_are_searched_once_for_every_k_and_the_figures_are_scikit_learns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, val, test = (classes(*shape) for shape in ((300, 5, 4, 0), (200, 5, 4, 1), (150, 5, 4, 2)))
    searched: list[int] = []

    def search(memory: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        searched.append(k)
        return nearest(memory, queries, k)

    monkeypatch.setattr("preimage.evaluation.probes.nearest", search)
    for split in (train, (train[0][:7], train[1][:7])):
        plain = [KNeighborsClassifier(min(k, len(split[1])), weights="distance").fit(*split) for k in (1, 5, 10, 20)]
        best = max(plain, key=lambda probe: probe.score(*val))
        predicted = best.predict(test[0])
        expected = {"accuracy": best.score(*test), "f1": f1_score(test[1], predicted, average="macro")}
        ours = candidates(len(split[1]))["knn"]
        assert probe_accuracy(ours, split, test, val) == expected
        for probe, other in zip(ours, plain, strict=True):
            assert np.array_equal(probe.predict(test[0]), other.predict(test[0]))
    assert searched == [20, 20, 7, 7]  # for validation and test


def test_many_codes_give_the_figures_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = [classes(count, 30, 5, seed) for seed, count in enumerate((2000, 1000, 4000))]
    train, val, test = splits
    few = probe_accuracy(candidates(2000)["linear"], train, test, val)
    monkeypatch.setattr("preimage.evaluation.linear_probe.LARGE", 0)
    many = probe_accuracy(candidates(2000)["linear"], train, test, val)
    assert 0.5 < many["accuracy"] < 0.95
    assert many == pytest.approx(few, abs=0.002)


def test_codes_that_are_not_finite_are_an_error() -> None:
    codes, labels = blobs(4, 0)
    codes[3, 1] = torch.nan
    with pytest.raises(ValueError, match="codes that are not finite"):
        standardized({"train": (codes, labels)})


@pytest.mark.parametrize("name", ["linear", "knn", "mlp"])
def test_without_a_validation_there_is_one_setting(name: str) -> None:
    splits = standardized({"train": blobs(4, 0), "test": blobs(20, 1)})
    (probe,) = unchosen(12, 3, seed=0)[name]
    assert probe_accuracy([probe], splits["train"], splits["test"])["accuracy"] == 1
    if name == "knn":
        assert probe.k == 4  # no more than a class has
