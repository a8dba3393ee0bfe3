import pytest
import torch

from preimage.evaluation.probes import Codes, probe_accuracy, probe_codes, standardized, unchosen


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


@pytest.mark.parametrize("name", ["linear", "knn", "mlp"])
def test_without_a_validation_there_is_one_setting(name: str) -> None:
    splits = standardized({"train": blobs(4, 0), "test": blobs(20, 1)})
    (probe,) = unchosen(12, 3, seed=0)[name]
    assert probe_accuracy([probe], splits["train"], splits["test"])["accuracy"] == 1
    if name == "knn":
        assert probe.n_neighbors == 4  # no more than a class has
