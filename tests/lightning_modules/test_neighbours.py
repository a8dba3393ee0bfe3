import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from lightning_modules import neighbours
from lightning_modules.neighbours import nearest, vote


def test_neighbours_and_votes_are_scikit_learns_far_from_the_origin_too(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    memory, queries = (torch.randn(count, 6, generator=generator) + 1000 for count in (300, 90))
    labels = torch.randint(0, 5, (300,), generator=generator)
    queries[:10] = memory[:10]  # at a distance of 0
    memory[20] = memory[0]
    labels[20] = (labels[0] + 1) % 5  # two at 0, of two classes: the lower one is taken
    monkeypatch.setattr(neighbours, "_NUMBERS", 4000)  # several parts
    reference = KNeighborsClassifier(7, weights="distance").fit(memory.double().numpy(), labels.numpy())
    distances, index = nearest(memory, queries, 7)
    expected, places = reference.kneighbors(queries.double().numpy())
    assert np.abs(distances - expected).max() < 1e-3
    assert (distances[:10, 0] == 0).all()
    assert np.array_equal(memory[index], memory[places])  # of two that are the same, either may come first
    assert np.array_equal(vote(distances, labels[index]), reference.predict(queries.double().numpy()))


def test_codes_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(ValueError, match="not finite"):
        nearest(torch.full((3, 2), torch.nan), torch.zeros(1, 2), 1)
