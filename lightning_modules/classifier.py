"""The classifier: a head that reads a class out of a code."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from preimage.checks import check_range

from .base import Batch, EncoderModule, Split, StepOutput
from .metrics import calibration_error, class_keys, classification_metrics
from .networks.gaussian import GaussianEncoder
from .networks.precision import full
from .noise import noise_like


class Classifier(EncoderModule):
    """Predicts a class from the code of an encoder, which may be new, pretrained and fine-tuned, or frozen.

    Args:
        encoder: Network from images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`.
        head: Network from codes to logits `(B, num_classes)`.
        num_classes: Number of classes.
        label_smoothing: Probability mass spread over all classes in the training target, in [0, 1).
        num_samples: Codes drawn per image from the distribution that a `GaussianEncoder` gives; the training loss
            is averaged over them, and so are the probabilities in evaluation. 0 for its mean, and other encoders.
        kwargs: How the encoder starts and what trains, see `EncoderModule`.
    """

    encoder: nn.Module
    reads_images = False
    num_classes: int

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        num_classes: int = 10,
        label_smoothing: float = 0.0,
        num_samples: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, **kwargs)
        check_range("model", "[2, inf)", num_classes=num_classes)
        check_range("model", "[0, 1)", label_smoothing=label_smoothing)
        check_range("model", "[0, inf)", num_samples=num_samples)
        if num_samples and not isinstance(encoder, GaussianEncoder):
            raise ValueError(
                f"model.num_samples={num_samples} needs a GaussianEncoder to draw from, not {type(encoder).__name__}"
            )
        if isinstance(encoder, GaussianEncoder) and not num_samples:
            encoder.log_variance.requires_grad_(False)  # not read, and DDP stumbles over a parameter without a gradient
        self.head = head
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.num_samples = num_samples
        self.train_metrics, self.val_metrics, self.test_metrics = (
            classification_metrics(num_classes, prefix) for prefix in ("train/", "val/", "test/")
        )
        self.calibration = MetricCollection({"calibration_error": calibration_error(num_classes)}, prefix="test/")
        #: Rows are true classes, columns predicted ones; filled by validation and test, drawn by a callback.
        self.confusion = MulticlassConfusionMatrix(num_classes, ignore_index=-1, validate_args=False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images `(B, C, H, W)` in [0, 1] to logits `(B, num_classes)`."""
        return self.classify(images)

    def classify(self, images: Tensor) -> Tensor:
        """Maps images `(B, C, H, W)` in [0, 1] to logits `(B, num_classes)`; the same ones at every call."""
        return mean_prediction(self._logits(self.represent(images), images))

    def represent(self, images: Tensor) -> Tensor:
        """The codes of images `(B, C, H, W)`, or where codes are drawn, mean and log-variance `(B, 2, D)`."""
        if self.num_samples:
            return torch.stack(cast(GaussianEncoder, self.encoder).posterior(images), dim=1)
        return super().represent(images)

    def _logits(self, read: Tensor, fixed_by: Tensor | None = None) -> Tensor:
        """Logits `(S, B, num_classes)` of `S` codes per image, drawn anew or by a tensor as in `fixed_noise`."""
        if not self.num_samples:
            return self._head(read).unsqueeze(0)
        mean, log_variance = read.unbind(dim=1)
        noise = noise_like(mean, self.num_samples, fixed_by)
        codes = mean + (0.5 * log_variance).exp() * noise
        return self._head(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])

    def _head(self, codes: Tensor) -> Tensor:
        logits = full(self.head(codes))
        if logits.shape[1:] != (self.num_classes,):
            shape = tuple(logits.shape[1:])
            raise ValueError(f"model.head gives {shape} for model.num_classes={self.num_classes}: set its num_classes")
        return logits

    def _read_out(self, batch: Batch, draw: bool) -> tuple[Tensor, Tensor]:
        """The codes `(B, ...)` of a batch, their means where codes are drawn, and the logits `(S, B, num_classes)`."""
        read = self.read(batch)
        each = self._logits(read, None if draw else batch.images if batch.codes is None else batch.codes)
        return read[:, 0] if self.num_samples else read, each

    def _step(self, batch: Batch, split: Split) -> StepOutput:
        labels = batch.labels
        code, each = self._read_out(batch, draw=split == "train")
        logits = mean_prediction(each)
        if split == "train":
            loss = self._supervised_loss(each, labels)
        else:
            loss = mean_cross_entropy(logits, labels)
            self.confusion.update(logits, labels)
        if split == "test":
            self.calibration.update(logits.softmax(dim=1), labels)
        metrics: MetricCollection = getattr(self, f"{split}_metrics")
        metrics.update(value=loss.detach(), weight=(labels >= 0).sum(), preds=logits.detach(), target=labels)
        return StepOutput(loss=loss, code=code, label=labels, logits=logits)

    def _supervised_loss(self, each: Tensor, labels: Tensor) -> Tensor:
        """Smoothed cross-entropy of logits `(S, B, num_classes)`, the mean over the images with a label."""
        return mean_cross_entropy(each.flatten(0, 1), labels.repeat(len(each)), label_smoothing=self.label_smoothing)

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the test split and the accuracy within each class (its recall)."""
        confusion = self.confusion.compute()
        counts = confusion.sum(dim=1)
        names = class_keys(getattr(self._data(), "class_names", None) or (), self.num_classes)
        recalls = {f"test/accuracy_{names[i]}": confusion[i, i] / counts[i] for i in counts.nonzero()[:, 0].tolist()}
        self.log_dict(recalls, sync_dist=True)
        super().on_test_epoch_end()

    def _predict(self, batch: Batch) -> dict[str, Tensor]:
        code, each = self._read_out(batch, draw=False)
        return {"code": code, "probability": torch.softmax(mean_prediction(each), dim=1), "label": batch.labels}


def mean_cross_entropy(logits: Tensor, labels: Tensor, **kwargs: Any) -> Tensor:
    """Cross-entropy of logits `(B, num_classes)`, over the number of images with a label; 0 where none has one."""
    total = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum", **kwargs)
    return total / (labels >= 0).sum().clamp(min=1)


def mean_prediction(logits: Tensor) -> Tensor:
    """Logits `(B, num_classes)` of the mean over S of the probabilities of logits `(S, B, num_classes)`."""
    if len(logits) == 1:
        return logits[0]
    return logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(logits))
