"""What can be read out of codes: by a linear probe, nearest neighbours and an MLP, and linearly from a few labels."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from datamodules.splits import balanced_subset, stratified_split

#: Codes `(N, D)` and labels `(N,)`.
Codes = tuple[Tensor, Tensor]

DRAWS = 5  # of a few labels, over which their figures are averaged
MLP_IMAGES = 300_000  # that an MLP learns from, counted as often as they are passed over, and at least 30 times each


def candidates(count: int) -> dict[str, list[Any]]:
    """The probes, as the settings among which a validation chooses.

    Args:
        count: Number of codes to learn from.
    """
    mlp = {"batch_size": min(256, count), "max_iter": _passes(count), "random_state": 0}
    search = _Search(min(20, count))
    return {
        "linear": [LogisticRegression(C=c, max_iter=300) for c in (0.01, 0.1, 1.0, 10.0, 100.0)],
        "knn": [_KNN(min(k, count), search) for k in (1, 5, 10, 20)],
        "mlp": [MLPClassifier((256,), alpha=alpha, **mlp) for alpha in (1e-4, 1e-2, 1.0)],
    }


class _Search:
    """The nearest neighbours of the codes that were asked for last, as many as any setting takes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.queries: Any = None
        self.result: Any = None


class _KNN(KNeighborsClassifier):
    """scikit-learn's, of which several that learn from the same codes search once: it takes longer than all else."""

    def __init__(self, n_neighbors: int, search: _Search) -> None:
        super().__init__(n_neighbors, weights="distance", algorithm="brute")
        self.search = search

    def kneighbors(self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True) -> Any:
        if X is not self.search.queries:
            self.search.queries, self.search.result = X, super().kneighbors(X, self.search.most)
        distances, neighbours = (part[:, : n_neighbors or self.n_neighbors] for part in self.search.result)
        return (distances, neighbours) if return_distance else neighbours


def unchosen(count: int, num_classes: int, seed: int) -> dict[str, list[Any]]:
    """The probes with one setting each, for labels that are too few to choose with.

    Args:
        count: Number of codes to learn from, the same of every class.
        num_classes: Number of classes.
        seed: Seed of the MLP's weights.
    """
    neighbours = min(20, count // num_classes)  # no more than a class has
    return {
        "linear": [LogisticRegression(max_iter=1000)],
        "knn": [KNeighborsClassifier(neighbours, weights="distance")],
        "mlp": [MLPClassifier(64, batch_size=min(200, count), max_iter=_passes(count), random_state=seed)],
    }


def _passes(count: int) -> int:
    return max(30, math.ceil(MLP_IMAGES / count))


def standardized(splits: Mapping[str, Codes]) -> dict[str, Codes]:
    """Splits whose codes have the mean 0 and the variance 1 over those of `train`."""
    scaler = StandardScaler().fit(splits["train"][0].numpy())
    return {
        name: (torch.from_numpy(scaler.transform(codes.numpy())), labels) for name, (codes, labels) in splits.items()
    }


def probe_accuracy(settings: Sequence[Any], train: Codes, test: Codes, val: Codes | None = None) -> dict[str, float]:
    """Accuracy and macro F1 of a probe on the test split.

    Args:
        settings: Of `candidates` or `unchosen`; all are fitted.
        train: What they learn from.
        test: What the figures are of.
        val: Chooses the one with the best accuracy, of equals the first; without it that is the only one.
    """
    codes, labels = (part.numpy() for part in train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations are limited on purpose
        warnings.filterwarnings("ignore", "The number of unique classes")  # few labels of many classes are, too
        probes = [setting.fit(codes, labels) for setting in settings]
    chosen = probes[0]
    if val:
        queries, answers = (part.numpy() for part in val)
        chosen = max(probes, key=lambda probe: probe.score(queries, answers))
    predicted, truth = chosen.predict(test[0].numpy()), test[1].numpy()
    f1 = f1_score(truth, predicted, average="macro")
    return {"accuracy": float(accuracy_score(truth, predicted)), "f1": float(f1)}


def probe_codes(splits: Mapping[str, Codes], num_classes: int, labels_per_class: Sequence[int]) -> dict[str, Any]:
    """Accuracy and macro F1 of every probe on the test split, with the setting that does best in validation.

    Codes are standardised by the training codes. A few labels are drawn five times, the same number of each class; a
    linear probe of each draw is chosen on as many validation images as there are labels.

    Args:
        splits: Codes and labels of `train`, `test` and, if there are any, `val`; a tenth of `train` stands in for it.
        num_classes: Number of classes.
        labels_per_class: Numbers of labels of each class; those that the training split does not have are left out.
    """
    splits = dict(splits)
    if "val" not in splits:
        labels = splits["train"][1]
        rest, held_out = stratified_split(labels, max(1, len(labels) // 10), seed=0)
        splits |= {"train": _at(splits["train"], rest), "val": _at(splits["train"], held_out)}
    splits = standardized(splits)
    train, val, test = (splits[name] for name in ("train", "val", "test"))
    figures: dict[str, Any] = {
        name: probe_accuracy(settings, train, test, val) for name, settings in candidates(len(train[1])).items()
    }
    fewest = int(torch.bincount(train[1], minlength=num_classes).min())
    figures["few_labels"] = {
        str(count * num_classes): _few_labels(train, val, test, count * num_classes, num_classes)
        for count in labels_per_class
        if count <= fewest
    }
    return figures


def _few_labels(train: Codes, val: Codes, test: Codes, count: int, num_classes: int) -> dict[str, float]:
    draws = []
    for seed in range(DRAWS):
        few = _at(train, balanced_subset(train[1], count, num_classes, seed))
        few_val = _at(val, stratified_split(val[1], min(count, len(val[1])), seed)[1])
        draws.append(probe_accuracy(candidates(count)["linear"], few, test, few_val))
    return {key: float(np.mean([draw[key] for draw in draws])) for key in draws[0]}


def _at(codes: Codes, index: Tensor) -> Codes:
    return codes[0][index], codes[1][index]
