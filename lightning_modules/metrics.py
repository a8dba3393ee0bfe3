"""The metrics of each kind of system, as torchmetrics collections that are updated by keyword."""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torchmetrics.image
import torchmetrics.regression
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassCalibrationError,
    MulticlassF1Score,
)
from torchmetrics.image import PeakSignalNoiseRatio
from torchmetrics.regression import MeanSquaredError
from torchmetrics.utilities import dim_zero_cat

from .ssim import structural_similarity

#: Words in the names of metrics, by whether less or more is better; of a name, the last word that is listed decides.
_LESS = {"loss", "mse", "rmse", "mae", "error", "kl", "nll", "entropy", "distance", "perplexity", "lpips", "fid", "kid"}
_LESS |= {"rfid", "perceptual", "adversarial", "reconstruction", "bpd", "brier", "divergence", "hinge", "ece"}
_MORE = {"elbo", "likelihood", "accuracy", "acc", "f1", "auroc", "auc", "precision", "recall", "sensitivity", "kappa"}
_MORE |= {"specificity", "score", "psnr", "ssim", "iou", "jaccard", "dice", "r2", "units", "similarity"}

_PRODUCTS = 10**11  # of pairs and pixels, from which not all pairs are compared

_Metrics = dict[str, Metric | MetricCollection]


def direction(metric: str) -> Literal["min", "max"] | None:
    """Whether the least or the greatest value of a metric is the best, by its name; None where that says nothing.

    Args:
        metric: Name as in `metrics.csv`, for example `val/knn_accuracy`, or with that of a class of torchmetrics.
    """
    for package in (torchmetrics, torchmetrics.classification, torchmetrics.image, torchmetrics.regression):
        more = getattr(getattr(package, metric.split("/")[-1], None), "higher_is_better", None)
        if more is not None:
            return "max" if more else "min"
    if metric in ("epoch", "step"):
        return "max"
    words = re.split(r"[^a-z0-9]+", metric.lower())
    known = [word for word in words if word in _LESS or word in _MORE]
    if not known:
        return None
    return "max" if (known[-1] in _MORE) != ("negative" in words) else "min"


def class_keys(names: Sequence[str], count: int) -> list[str]:
    """How classes are called in the names of metrics: `Ankle_boot` for `Ankle boot`, else their number, as `class_6`.

    Args:
        names: Names of the classes. What is not in ASCII, has no letter to begin with, or is alike to another, is not
            taken.
        count: Number of classes.
    """
    keys = [re.sub(r"[^a-zA-Z0-9-]+", "_", name).strip("_") if name.isascii() else "" for name in names]
    known = [key if re.match("(?!class_)[a-zA-Z]", key) and keys.count(key) == 1 else "" for key in keys]
    return [key or f"class_{number}" for number, key in enumerate(known if len(known) == count else [""] * count)]


class MeanLoss(Metric):
    """Mean of a loss over images; a NaN is kept and shown.

    torchmetrics' MeanMetric drops NaNs at the price of a look at every value, or ignores the weights (1.9, with
    `nan_strategy="disable"`).
    """

    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, key: str = "value") -> None:
        """Starts with no images; `key` says which of the values given to `update` is averaged."""
        super().__init__()
        self.key = key
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, weight: Tensor | int, **values: Tensor) -> None:
        """Adds the mean loss of `weight` images."""
        self.total += values[self.key] * weight
        self.count += weight

    def compute(self) -> Tensor:
        """The mean over all images; NaN without any."""
        return self.total / self.count


class MeanSSIM(MeanLoss):
    """SSIM of images in [0, 1] by `structural_similarity`, the mean over the images."""

    higher_is_better = True

    def update(self, preds: Tensor, target: Tensor) -> None:  # type: ignore[override]
        """Adds images `(B, C, H, W)` and their targets."""
        super().update(len(preds), value=structural_similarity(preds, target).mean())


class ActiveUnits(Metric):
    """Number of latent dimensions whose mean has a variance above 0.01 (Burda et al. 2016, arXiv 1509.00519)."""

    higher_is_better = True
    full_state_update = False
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, latent_dim: int) -> None:
        """Starts with no images, for codes of length `latent_dim`."""
        super().__init__()
        self.add_state("total", torch.zeros(latent_dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(latent_dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, mean: Tensor) -> None:
        """Adds posterior means `(B, latent_dim)`."""
        self.total += mean.double().sum(dim=0)
        self.squares += mean.double().square().sum(dim=0)
        self.count += len(mean)

    def compute(self) -> Tensor:
        """The number of active dimensions, as a float."""
        variance = self.squares / self.count - (self.total / self.count).square()
        return (variance > 0.01).sum().float()


class EffectiveRank(Metric):
    """RankMe of all codes of a split, see `effective_rank`, from sums that processes can add up."""

    higher_is_better = True
    full_state_update = False
    gram: Tensor

    def __init__(self, length: int) -> None:
        """Starts with no images, for codes of `length` numbers."""
        super().__init__()
        self.add_state("gram", torch.zeros(length, length, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, code: Tensor) -> None:
        """Adds codes `(B, ...)`."""
        codes = code.flatten(1).double()
        self.gram += codes.T @ codes

    def compute(self) -> Tensor:
        """The effective rank; NaN without any code but zeros."""
        return _rank_of(torch.linalg.eigvalsh(self.gram).clamp(min=0).sqrt()).float()


def effective_rank(codes: Tensor) -> float:
    """RankMe: the exponential of the entropy of the singular values (Garrido et al. 2023, arXiv 2210.02885).

    Args:
        codes: Codes `(N, D)`, which are not centred.

    Returns:
        Between 1, where all codes lie on a line through the origin, and `min(N, D)`; NaN where all are zero.
    """
    return float(_rank_of(torch.linalg.svdvals(codes.double())))


def _rank_of(singular_values: Tensor) -> Tensor:
    return torch.special.entr(singular_values / singular_values.sum()).sum().exp()


class CodeEntropy(Metric):
    """Bits per image that quantised codes hold, `code_entropy`, and the levels that a number uses, `used_levels`.

    The entropy is that of the levels at each of the D numbers over the images, summed over the numbers: what an
    arithmetic coder with a table for each number takes, at most D log2 L. Used are `2 ** entropy` levels (the
    perplexity) of a number, on average, from 1 for codes that have collapsed to L.
    """

    full_state_update = False
    indices: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("indices", [], dist_reduce_fx="cat")

    def update(self, indices: Tensor) -> None:
        """Adds the levels of codes, whole numbers `(B, D)` from 0 up."""
        self.indices.append(indices.int())  # neither gloo nor NCCL gathers int16

    def compute(self) -> dict[str, Tensor]:
        """Both over all images."""
        indices = dim_zero_cat(self.indices).long()  # one tensor already where processes have joined theirs
        levels = int(indices.max()) + 1
        cells = indices + levels * torch.arange(indices.shape[1], device=indices.device)
        counts = torch.bincount(cells.flatten(), minlength=levels * indices.shape[1])
        shares = counts.view(-1, levels) / len(indices)
        entropies = torch.special.entr(shares).sum(dim=1) / math.log(2)
        return {"code_entropy": entropies.sum(), "used_levels": entropies.exp2().mean()}


class NormalizedError(Metric):
    """Mean distance of reconstructions from their images, over the mean distance between two images of the split.

    0 for perfect reconstructions and about 1 for those of other images (Dosovitskiy and Brox 2016, arXiv 1506.02753).
    Of many images not all pairs are compared, but each image with forty others.
    """

    higher_is_better = False
    full_state_update = False
    total: Tensor
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds reconstructions `(B, C, H, W)` in [0, 1] and their images."""
        self.total += torch.linalg.vector_norm((preds - target).flatten(1), dim=1).sum()
        self.targets.append((target.flatten(1) * 255).round().to(torch.uint8))  # a quarter of the memory

    def compute(self) -> Tensor:
        """The ratio of the two means; NaN for fewer than two images."""
        targets = dim_zero_cat(self.targets)  # one tensor already where processes have joined theirs
        mean = _all_pairs if len(targets) * targets.numel() <= _PRODUCTS else _some_pairs
        return self.total / len(targets) / mean(targets)


def _all_pairs(images: Tensor) -> Tensor:
    """Mean distance between two of the uint8 images `(N, D)`, in [0, 1]."""
    count, parts = len(images), images.split(500)  # as floats all at once they would take four times the memory
    distances = [torch.cdist(one.float() / 255, other.float() / 255).double().sum() for one in parts for other in parts]
    return torch.stack(distances).sum() / (count * (count - 1))


def _some_pairs(images: Tensor) -> Tensor:
    """The same from a sample in which every image is as often as every other: far below 1 % off."""
    count, drawn = len(images), torch.Generator().manual_seed(0)
    order = torch.randperm(count, generator=drawn).to(images.device)  # theirs may be by class
    total = torch.zeros((), dtype=torch.float64, device=images.device)
    for start in range(0, count, 500):
        ahead = [
            images[order[torch.arange(start + step, min(start + 500, count) + step) % count]] for step in range(21)
        ]
        one, *others = (part.float() / 255 for part in ahead)
        total += sum((one - other).norm(dim=1).double().sum() for other in others)
    return total / (20 * count)


class _OfEveryClass(Metric):
    """A mean over the classes, each against the others: NaN where a class has no image.

    torchmetrics counts such a class as 0 in the ROC AUC, and leaves it out of the average precision.
    """

    num_classes: int
    target: list[Tensor]

    def compute(self) -> Tensor:
        """The mean over the classes."""
        labels = dim_zero_cat(self.target) if len(self.target) else torch.empty(0, dtype=torch.long)
        if torch.bincount(labels, minlength=self.num_classes).min() == 0:
            return torch.tensor(torch.nan, device=self.device)
        mean: Tensor = super().compute()  # type: ignore[safe-super]
        return mean


class _AUROC(_OfEveryClass, MulticlassAUROC):  # type: ignore[misc]
    pass


class _AveragePrecision(_OfEveryClass, MulticlassAveragePrecision):  # type: ignore[misc]
    pass


def mean_losses(prefix: str, *names: str) -> MetricCollection:
    """The mean over a split of `value`, called `loss`, and of each other value that `update` is given by its name."""
    metrics: _Metrics = {"loss": MeanLoss(), **{name: MeanLoss(name) for name in names}}
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)


def reconstruction_metrics(prefix: str, postfix: str = "") -> MetricCollection:
    """Loss, MSE over all pixels, and PSNR and SSIM as means over the images.

    It is updated with `value` (the loss), `weight` (images), and `preds` and `target` `(B, C, H, W)` in [0, 1].
    """
    metrics: _Metrics = {
        "loss": MeanLoss(),
        "mse": MeanSquaredError(),
        "psnr": PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3)),
        "ssim": MeanSSIM(),
    }
    return MetricCollection(metrics, prefix=prefix, postfix=postfix, compute_groups=False)


def rate_metrics(prefix: str, quantized: bool) -> MetricCollection:
    """Bits of an image's code, and of a quantised one its entropy.

    It is updated with `bits` (of an image), `weight` (images), and for quantised codes `indices` `(B, D)`.
    """
    metrics: _Metrics = {"bits_per_image": MeanLoss("bits")}
    if quantized:
        metrics["code"] = CodeEntropy()
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)


def classification_metrics(num_classes: int, prefix: str, loss: str = "loss") -> MetricCollection:
    """Loss, under the name `loss`, accuracy and macro F1 over the whole split; images with label -1 do not count.

    It is updated with `value` (the loss), `weight` (images), `preds` (logits `(B, num_classes)`) and `target` `(B,)`.
    """
    options: dict[str, Any] = {"num_classes": num_classes, "ignore_index": -1, "validate_args": False}
    metrics: _Metrics = {
        loss: MeanLoss(),
        "accuracy": MulticlassAccuracy(average="micro", **options),
        "f1": MulticlassF1Score(average="macro", **options),
    }
    return MetricCollection(metrics, prefix=prefix)


def probability_metrics(num_classes: int) -> _Metrics:
    """ROC AUC, average precision and expected calibration error over the whole split, without label -1.

    The first two are means over the classes, each against the others, so that neither of two classes is the positive
    one, and NaN where the split lacks a class; the calibration error compares the probability of the predicted class
    with the accuracy, in 15 bins. They are updated with `preds` (probabilities `(B, num_classes)`) and `target` `(B,)`.
    """
    options: dict[str, Any] = {"num_classes": num_classes, "ignore_index": -1, "validate_args": False}
    return {
        "auroc": _AUROC(average="macro", **options),
        "average_precision": _AveragePrecision(average="macro", **options),
        "calibration_error": calibration_error(num_classes),
    }


def calibration_error(num_classes: int) -> MulticlassCalibrationError:
    """Expected calibration error in 15 bins (Guo et al. 2017, arXiv 1706.04599), without label -1.

    It is updated with `preds` (probabilities `(B, num_classes)`) and `target` `(B,)`.
    """
    return MulticlassCalibrationError(
        n_bins=15, norm="l1", num_classes=num_classes, ignore_index=-1, validate_args=False
    )


def reset(metric: Metric | MetricCollection) -> None:
    """Empties a metric for the next pass, which may belong to a `fit` and cannot fill tensors of inference mode."""
    with torch.inference_mode(False):
        metric.reset()
