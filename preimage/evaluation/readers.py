"""What can be read out of codes: a linear reader, nearest neighbours, an MLP, and the linear one on a few labels."""

import math
import warnings
from collections.abc import Sequence
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

from .measures import Codes

DRAWS = 5  # of a few labels, over which their figures are averaged
MLP_IMAGES = 300_000  # that an MLP learns from, counted as often as they are passed over, and at least 30 times each


def candidates(count: int) -> dict[str, list[Any]]:
    """The readers, each as a list of the settings among which the validation split chooses.

    Args:
        count: Number of codes to learn from.
    """
    epochs = max(30, math.ceil(MLP_IMAGES / count))
    return {
        "linear": [LogisticRegression(C=c, max_iter=300) for c in (0.01, 0.1, 1.0, 10.0, 100.0)],
        "knn": [KNeighborsClassifier(min(k, count), weights="distance", algorithm="brute") for k in (1, 5, 10, 20)],
        "mlp": [
            MLPClassifier((256,), alpha=alpha, batch_size=min(256, count), max_iter=epochs, random_state=0)
            for alpha in (1e-4, 1e-2, 1.0)
        ],
    }


def read_codes(splits: dict[str, Codes], num_classes: int, labels_per_class: Sequence[int]) -> dict[str, Any]:
    """Accuracy and macro F1 of every reader on the test split, with the setting that does best in validation.

    Codes are standardised by the mean and variance of the training codes. A few labels are drawn five times, the same
    number for each class; a linear reader of each draw is chosen on as many validation images as there are labels.

    Args:
        splits: Codes and labels of `train`, `test` and, if there are any, `val`; a tenth of `train` stands in for it.
        num_classes: Number of classes.
        labels_per_class: Numbers of labels of each class; those that the training split does not have are left out.
    """
    splits = dict(splits)
    if "val" not in splits:
        codes, labels = splits["train"]
        rest, chosen = stratified_split(labels, max(1, len(labels) // 10), seed=0)
        splits |= {"train": (codes[rest], labels[rest]), "val": (codes[chosen], labels[chosen])}
    scaler = StandardScaler().fit(splits["train"][0].numpy())
    train, val, test = (
        (torch.from_numpy(scaler.transform(splits[name][0].numpy())), splits[name][1])
        for name in ("train", "val", "test")
    )
    found: dict[str, Any] = {
        name: _figures(_choose(settings, train, val), test) for name, settings in candidates(len(train[1])).items()
    }
    fewest = int(torch.bincount(train[1], minlength=num_classes).min())
    found["few_labels"] = {
        str(each * num_classes): _few_labels(train, val, test, each, num_classes)
        for each in labels_per_class
        if each <= fewest
    }
    return found


def _choose(settings: list[Any], train: Codes, val: Codes) -> Any:
    """Fits every setting and keeps the one with the best accuracy in validation, of equals the first."""
    codes, labels = (part.numpy() for part in train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations are limited on purpose
        readers = [setting.fit(codes, labels) for setting in settings]
    return max(readers, key=lambda reader: accuracy_score(val[1].numpy(), reader.predict(val[0].numpy())))


def _figures(reader: Any, test: Codes) -> dict[str, float]:
    predicted, labels = reader.predict(test[0].numpy()), test[1].numpy()
    accuracy, f1 = accuracy_score(labels, predicted), f1_score(labels, predicted, average="macro")
    return {"accuracy": float(accuracy), "f1": float(f1)}


def _few_labels(train: Codes, val: Codes, test: Codes, each: int, num_classes: int) -> dict[str, float]:
    figures = []
    for seed in range(DRAWS):
        chosen = balanced_subset(train[1], each * num_classes, num_classes, seed)
        few = stratified_split(val[1], min(len(chosen), len(val[1])), seed)[1]
        settings = candidates(len(chosen))["linear"]
        reader = _choose(settings, _at(train, chosen), _at(val, few))
        figures.append(_figures(reader, test))
    return {key: float(np.mean([draw[key] for draw in figures])) for key in figures[0]}


def _at(codes: Codes, index: Tensor) -> Codes:
    return codes[0][index], codes[1][index]
