"""The probes of many codes against scikit-learn's: seconds of one thread and test accuracy.

Run as `OMP_NUM_THREADS=1 python benchmarks/probes.py [--large] [--reference]`, on synthetic codes with a spectrum like
that of an encoder. `--large` has 100,000 codes of 768 numbers and 100 classes, and `--reference` takes scikit-learn's
time too, which for these is an hour.
"""

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from preimage.evaluation import linear_probe
from preimage.evaluation.probes import Codes, candidates, probe_accuracy, standardized


def codes(count: int, width: int, classes: int, seed: int) -> Codes:
    """Codes `(count, width)` of overlapping classes, with a spectrum that falls as that of an encoder's."""
    shape, generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=shape) * torch.arange(1, width + 1).pow(-0.7)[:, None]
    means = 0.3 * torch.randn(classes, width, generator=shape) * (20 / classes) ** 0.5
    labels = torch.randint(0, classes, (count,), generator=generator)
    return (means[labels] + torch.randn(count, width, generator=generator)) @ mixing, labels


def clocked(work: Callable[[], dict[str, float]]) -> str:
    """What a call takes of the processor, and the accuracy that it gives."""
    start = time.process_time()
    accuracy = work()["accuracy"]
    return f"{time.process_time() - start:10.1f} s {100 * accuracy:6.2f} %"


def reference_linear(train: Codes, val: Codes, test: Codes) -> dict[str, float]:
    """scikit-learn's, with the C that is best in the validation."""
    fits = [LogisticRegression(C=c, max_iter=300).fit(*train) for c in (0.01, 0.1, 1.0, 10.0, 100.0)]
    return {"accuracy": max(fits, key=lambda fit: fit.score(*val)).score(*test)}


def reference_knn(train: Codes, val: Codes, test: Codes) -> dict[str, float]:
    """scikit-learn's, likewise."""
    fits = [KNeighborsClassifier(k, weights="distance", algorithm="brute").fit(*train) for k in (1, 5, 10, 20)]
    return {"accuracy": max(fits, key=lambda fit: fit.score(*val)).score(*test)}


def row(count: int, width: int, classes: int, reference: bool) -> None:
    """Prints the figures of one size."""
    sizes = {"train": count, "val": count // 10, "test": count // 5}
    splits = standardized({name: codes(size, width, classes, seed) for seed, (name, size) in enumerate(sizes.items())})
    train, val, test = splits.values()
    arrays: list[tuple[np.ndarray, ...]] = [tuple(part.numpy() for part in split) for split in splits.values()]
    settings = candidates(count)
    for name, other in (("linear", reference_linear), ("knn", reference_knn)):
        ours = clocked(lambda name=name: probe_accuracy(settings[name], train, test, val))  # type: ignore[misc]
        theirs = clocked(lambda other=other: other(*arrays)) if reference else ""  # type: ignore[misc]
        print(
            f"{count:>8} x {width} x {classes}, {name:6} ours {ours}   scikit-learn {theirs or 'not run'}", flush=True
        )


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    linear_probe.LARGE = 0  # so that ours is shown at sizes that scikit-learn has in fact
    reference = "--reference" in sys.argv
    for size in [(100_000, 768, 100)] if "--large" in sys.argv else [(5_000, 64, 10), (20_000, 128, 20)]:
        row(*size, reference)


if __name__ == "__main__":
    main()
