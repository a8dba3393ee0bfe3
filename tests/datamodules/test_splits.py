import pytest
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from datamodules.splits import balanced_subset, stratified_split


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0] * 500 + [1] * 301 + [2] * 150 + [3] * 49)[torch.randperm(1000)]


@pytest.mark.parametrize("size", [0, 4, 97, 250, 999])
def test_classes_get_their_share_as_in_scikit_learn(labels: Tensor, size: int) -> None:
    rest, subset = stratified_split(labels, size, seed=3)
    assert len(subset) == size
    assert sorted([*rest.tolist(), *subset.tolist()]) == list(range(1000))
    if 4 <= size <= 996:
        _, expected = train_test_split(labels.numpy(), test_size=size, stratify=labels.numpy(), random_state=0)
        counts = torch.bincount(labels[subset], minlength=4)
        assert (counts - torch.bincount(torch.from_numpy(expected), minlength=4)).abs().max() <= 1


def test_the_draw_depends_on_the_seed_alone(labels: Tensor) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = stratified_split(labels, 100, seed=1)[1]
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(99)
    assert stratified_split(labels, 100, seed=1)[1].equal(first)
    assert not stratified_split(labels, 100, seed=2)[1].equal(first)


def test_balanced_subset_has_as_many_of_each_class(labels: Tensor) -> None:
    subset = balanced_subset(labels, 80, 4, seed=0)
    assert torch.bincount(labels[subset]).tolist() == [20] * 4
    assert len(subset.unique()) == 80
    assert not balanced_subset(labels, 80, 4, seed=1).equal(subset)


def test_subsets_that_cannot_be_are_refused(labels: Tensor) -> None:
    with pytest.raises(ValueError, match="num_labels=81 cannot be divided evenly among 4 classes"):
        balanced_subset(labels, 81, 4, seed=0)
    with pytest.raises(ValueError, match="needs 50 images of class 3, the training split has 49"):
        balanced_subset(labels, 200, 4, seed=0)
    with pytest.raises(ValueError, match="cannot take 1001 images out of 1000"):
        stratified_split(labels, 1001, seed=0)
