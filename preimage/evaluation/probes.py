"""What can be read out of codes: by a linear probe, nearest neighbours and an MLP, and linearly from a few labels."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from datamodules.splits import balanced_subset, stratified_split
from lightning_modules.neighbours import nearest, vote
from preimage.progress import Progress

from .linear_probe import LinearProbe

#: Codes `(N, D)` and labels `(N,)`.
Codes = tuple[Tensor, Tensor]

DRAWS = 5  # of a few labels, over which their figures are averaged
MLP_IMAGES = 300_000  # that an MLP learns from, counted as often as they are passed over, and at least 30 times each


def candidates(count: int, device: torch.device | str = "cpu") -> dict[str, list[Any]]:
    """The probes, as the settings among which a validation chooses.

    Args:
        count: Number of codes to learn from.
        device: Where many codes are learned from and compared.
    """
    mlp = {"batch_size": min(256, count), "max_iter": _passes(count), "random_state": 0}
    linear = list[LinearProbe]()
    for c in (0.01, 0.1, 1.0, 10.0, 100.0):
        linear.append(LinearProbe(c, 300, device, start=linear[-1] if linear else None))
    search = _Search(min(20, count), device)
    return {
        "linear": linear,
        "knn": [_KNN(min(k, count), search) for k in (1, 5, 10, 20)],
        "mlp": [_MLP((256,), alpha=alpha, **mlp) for alpha in (1e-4, 1e-2, 1.0)],
    }


def unchosen(count: int, num_classes: int, seed: int) -> dict[str, list[Any]]:
    """The probes with one setting each, for labels that are too few to choose with.

    Args:
        count: Number of codes to learn from, the same of every class.
        num_classes: Number of classes.
        seed: Seed of the MLP's weights.
    """
    neighbours = min(20, count // num_classes)  # no more than a class has
    return {
        "linear": [LinearProbe(max_iter=1000)],
        "knn": [_KNN(neighbours, _Search(neighbours))],
        "mlp": [_MLP(64, batch_size=min(200, count), max_iter=_passes(count), random_state=seed)],
    }


class _Search:
    """The nearest neighbours of the codes that were asked for last: several settings search once, with the most."""

    def __init__(self, most: int, device: torch.device | str = "cpu") -> None:
        self.most, self.device = most, device
        self.memory = self.queries = torch.empty(0)

    def __call__(self, memory: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        if memory is not self.memory or queries is not self.queries:
            self.memory, self.queries = memory, queries
            self.result = [part.cpu() for part in nearest(memory.to(self.device), queries, self.most)]
        return self.result[0], self.result[1]


class _KNN:
    def __init__(self, k: int, search: _Search) -> None:
        self.k, self.search = k, search

    def fit(self, codes: Tensor, labels: Tensor) -> "_KNN":
        self.codes, self.labels = codes, labels
        return self

    def predict(self, codes: Tensor) -> Tensor:
        distances, index = self.search(self.codes, codes)
        return vote(distances[:, : self.k], self.labels[index[:, : self.k]])


class _MLP(MLPClassifier):
    """scikit-learn's, for tensors."""

    def fit(self, codes: Tensor, labels: Tensor) -> "_MLP":
        super().fit(codes.numpy(), labels.numpy())
        return self

    def predict(self, codes: Tensor) -> Tensor:
        return torch.from_numpy(super().predict(codes.numpy()))


def _passes(count: int) -> int:
    return max(30, math.ceil(MLP_IMAGES / count))


def standardized(splits: Mapping[str, Codes]) -> dict[str, Codes]:
    """Splits whose codes have the mean 0 and the variance 1 over those of `train`; a ValueError where one is NaN."""
    if not all(codes.isfinite().all() for codes, _ in splits.values()):
        raise ValueError("the encoder gives codes that are not finite (NaN or infinite): nothing is read out of them")
    scaler = StandardScaler().fit(splits["train"][0].numpy())
    return {
        name: (torch.from_numpy(scaler.transform(codes.numpy())), labels) for name, (codes, labels) in splits.items()
    }


def probe_accuracy(settings: Iterable[Any], train: Codes, test: Codes, val: Codes | None = None) -> dict[str, float]:
    """Accuracy and macro F1 of a probe on the test split.

    Args:
        settings: Of `candidates` or `unchosen`; all are fitted.
        train: What they learn from.
        test: What the figures are of.
        val: Chooses the one with the best accuracy, of equals the first; without it that is the only one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations are limited on purpose
        warnings.filterwarnings("ignore", "The number of unique classes")  # few labels of many classes are, too
        probes = [setting.fit(*train) for setting in settings]
    chosen = probes[0]
    if val:
        chosen = max(probes, key=lambda probe: accuracy_score(val[1], probe.predict(val[0])))
    predicted, truth = chosen.predict(test[0]), test[1]
    f1 = f1_score(truth, predicted, average="macro")
    return {"accuracy": float(accuracy_score(truth, predicted)), "f1": float(f1)}


def probe_codes(
    splits: Mapping[str, Codes],
    num_classes: int,
    labels_per_class: Sequence[int],
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Accuracy and macro F1 of every probe on the test split, with the setting that does best in validation.

    Codes are standardised by the training codes. A few labels are drawn five times, the same number of each class; a
    linear probe of each draw is chosen on as many validation images as there are labels.

    Args:
        splits: Codes and labels of `train`, `test` and, if there are any, `val`; a tenth of `train` stands in for it.
        num_classes: Number of classes.
        labels_per_class: Numbers of labels of each class; those that the training split does not have are left out.
        device: Where many codes are learned from and compared.
    """
    splits = dict(splits)
    if "val" not in splits:
        labels = splits["train"][1]
        rest, held_out = stratified_split(labels, max(1, len(labels) // 10), seed=0)
        splits |= {"train": _at(splits["train"], rest), "val": _at(splits["train"], held_out)}
    splits = standardized(splits)
    train, val, test = (splits[name] for name in ("train", "val", "test"))
    probes = candidates(len(train[1]), device)
    fewest = int(torch.bincount(train[1], minlength=num_classes).min())
    counts = [count * num_classes for count in labels_per_class if count <= fewest]
    fits = sum(map(len, probes.values())) + DRAWS * len(counts) * len(probes["linear"])
    with Progress(total=fits, desc=f"probing {len(train[1])} codes", unit="probes") as progress:

        def counted(settings: Sequence[Any]) -> Iterator[Any]:
            for setting in settings:
                yield setting  # which is fitted before the next one is asked for
                progress.update()

        def of_few(count: int) -> dict[str, float]:
            draws = []
            for seed in range(DRAWS):
                few = _at(train, balanced_subset(train[1], count, num_classes, seed))
                few_val = _at(val, stratified_split(val[1], min(count, len(val[1])), seed)[1])
                draws.append(probe_accuracy(counted(candidates(count, device)["linear"]), few, test, few_val))
            return {key: float(np.mean([draw[key] for draw in draws])) for key in draws[0]}

        figures: dict[str, Any] = {
            name: probe_accuracy(counted(settings), train, test, val) for name, settings in probes.items()
        }
        return figures | {"few_labels": {str(count): of_few(count) for count in counts}}


def _at(codes: Codes, index: Tensor) -> Codes:
    return codes[0][index], codes[1][index]
