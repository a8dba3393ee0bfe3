from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from preimage.evaluation.probes import Codes, candidates, probe_accuracy, probe_codes, standardized, unchosen


def blobs(count: int, seed: int) -> Codes:
    """Codes `(3 * count, 2)` around the corners of a triangle, far from the origin and of unlike scales."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]).repeat(count, 1)
    codes = corners + torch.randn(3 * count, 2, generator=generator) * 0.3
    return codes * torch.tensor([1.0, 1000.0]) + 50, torch.arange(3).repeat(count)


def test_a_tenth_of_the_training_codes_stands_in_for_a_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preimage.evaluation.probes.MLP_IMAGES", 1)
    figures = probe_codes({"train": blobs(40, 0), "test": blobs(20, 1)}, 3, [1, 36, 37])
    assert all(figures[name]["accuracy"] == figures[name]["f1"] == 1 for name in ("linear", "knn"))
    assert set(figures["few_labels"]) == {"3", "108"}  # of 37 of each class, a tenth less is left
    assert figures["few_labels"]["108"]["accuracy"] == 1


def test_neighbours_are_searched_once_for_every_k_and_the_figures_are_scikit_learns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    train, val, test = (
        (torch.randn(count, 5, generator=generator), torch.randint(0, 4, (count,), generator=generator))
        for count in (300, 200, 150)
    )
    for codes, labels in (train, val, test):
        codes[:, 0] += 0.7 * labels
    searched: list[int] = []

    def search(self: KNeighborsClassifier, queries: Any, count: int) -> Any:
        searched.append(count)
        return NearestNeighbors.kneighbors(self, queries, count)

    for split in (train, (train[0][:7], train[1][:7])):
        plain = [
            KNeighborsClassifier(min(k, len(split[1])), weights="distance", algorithm="brute").fit(*split)
            for k in (1, 5, 10, 20)
        ]
        best = max(plain, key=lambda probe: probe.score(*val))
        predicted = best.predict(test[0])
        expected = {"accuracy": best.score(*test), "f1": f1_score(test[1], predicted, average="macro")}
        ours = candidates(len(split[1]))["knn"]
        with monkeypatch.context() as patch:
            patch.setattr(KNeighborsClassifier, "kneighbors", search)
            assert probe_accuracy(ours, split, test, val) == expected
        for probe, other in zip(ours, plain, strict=True):
            queries = test[0].numpy()
            assert all(map(np.array_equal, probe.kneighbors(queries), other.kneighbors(queries)))
            assert np.array_equal(probe.predict(queries), other.predict(queries))
    assert searched == [20, 20, 7, 7]  # for validation and test


@pytest.mark.parametrize("name", ["linear", "knn", "mlp"])
def test_without_a_validation_there_is_one_setting(name: str) -> None:
    splits = standardized({"train": blobs(4, 0), "test": blobs(20, 1)})
    (probe,) = unchosen(12, 3, seed=0)[name]
    assert probe_accuracy([probe], splits["train"], splits["test"])["accuracy"] == 1
    if name == "knn":
        assert probe.n_neighbors == 4  # no more than a class has
