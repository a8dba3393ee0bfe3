"""The classifier: a head that reads a class out of a code."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from .base import Batch, EncoderModule, Split
from .metrics import classification_metrics, reset


class Classifier(EncoderModule):
    """Predicts a class from the code of an encoder, which may be new, pretrained and fine-tuned, or frozen."""

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        num_classes: int = 10,
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Joins an encoder and a head.

        Args:
            encoder: Network from images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`.
            head: Network from codes to logits `(B, num_classes)`.
            num_classes: Number of classes.
            label_smoothing: Probability mass spread over all classes in the training target, in [0, 1).
            kwargs: How the encoder starts and what trains, see `EncoderModule`.
        """
        super().__init__(encoder, **kwargs)
        self.head = head
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.train_metrics = classification_metrics(num_classes, "train/")
        self.val_metrics = classification_metrics(num_classes, "val/")
        self.test_metrics = classification_metrics(num_classes, "test/")
        #: Rows are true classes, columns predicted ones; filled by validation and test, drawn by a callback.
        self.confusion = MulticlassConfusionMatrix(num_classes, ignore_index=-1, validate_args=False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images `(B, C, H, W)` in [0, 1] to logits `(B, num_classes)`."""
        logits: Tensor = self.head(self.encoder(images))
        return logits

    def _step(self, batch: Batch, split: Split) -> dict[str, Tensor]:
        images, labels = batch
        code = self.encoder(images)
        logits = self.head(code)
        smoothing = self.label_smoothing if split == "train" else 0.0
        total = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
        count = (labels >= 0).sum()
        loss = total / count.clamp(min=1)
        metrics: MetricCollection = getattr(self, f"{split}_metrics")
        metrics.update(value=loss.detach(), weight=count, preds=logits.detach(), target=labels)
        if split != "train":
            self.confusion.update(logits, labels)
        return {"loss": loss, "code": code, "label": labels, "logits": logits}

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the validation split."""
        super().on_validation_epoch_end()
        reset(self.confusion)

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the test split and the accuracy within each class (its recall)."""
        super().on_test_epoch_end()
        confusion = self.confusion.compute()
        per_class = confusion.diagonal() / confusion.sum(dim=1).clamp(min=1)
        self.log_dict({f"test/accuracy_class_{i}": value for i, value in enumerate(per_class)}, sync_dist=True)
        reset(self.confusion)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns codes `(B, ...)`, class probabilities `(B, num_classes)` and labels of a batch."""
        images, labels = batch
        code = self.encoder(images)
        return {"code": code, "probability": torch.softmax(self.head(code), dim=1), "label": labels}
