"""The classifier: a head that reads a class out of a code."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from checks import check_range

from .base import Batch, EncoderModule, Split
from .checkpoints import load_part
from .metrics import MeanLoss, classification_metrics, reset
from .networks.gaussian import GaussianEncoder
from .noise import fixed_noise
from .precision import full
from .virtual_adversarial import VirtualAdversarialTraining


class Classifier(EncoderModule):
    """Predicts a class from the code of an encoder, which may be new, pretrained and fine-tuned, or frozen."""

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
        vat: VirtualAdversarialTraining | None = None,
        auxiliary_decoder: nn.Module | None = None,
        reconstruction_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        """Joins an encoder and a head.

        Args:
            encoder: Network from images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`.
            head: Network from codes to logits `(B, num_classes)`.
            num_classes: Number of classes.
            label_smoothing: Probability mass spread over all classes in the training target, in [0, 1).
            num_samples: Codes drawn per image from the distribution that a `GaussianEncoder` gives; the training loss
                is averaged over them, and so are the probabilities in evaluation. 0 for its mean, and other encoders.
            vat: What is learned from all training images, with and without a label (`keep_unlabeled` of the data),
                beside the labels; without it an image without a label teaches nothing.
            auxiliary_decoder: Network from codes to images `(B, C, H, W)` in [0, 1], of the data's size, that rebuilds
                the images: a further loss with `vat`. It starts from the `encoder_checkpoint` too, which is then that
                of an autoencoder.
            reconstruction_weight: Weight of its mean squared error.
            kwargs: How the encoder starts and what trains, see `EncoderModule`.
        """
        super().__init__(encoder, **kwargs)
        check_range("model", "[2, inf)", num_classes=num_classes)
        check_range("model", "[0, 1)", label_smoothing=label_smoothing)
        check_range("model", "[0, inf)", num_samples=num_samples, reconstruction_weight=reconstruction_weight)
        if num_samples and not isinstance(encoder, GaussianEncoder):
            raise ValueError(
                f"model.num_samples={num_samples} needs a GaussianEncoder to draw from, not {type(encoder).__name__}"
            )
        if vat is not None and self.cache_codes:
            raise ValueError("model.vat moves the images in every step: set model.cache_codes false")
        if auxiliary_decoder is not None and vat is None:
            raise ValueError("model.auxiliary_decoder belongs to the training on unlabelled images: set model.vat too")
        if isinstance(encoder, GaussianEncoder) and not num_samples:
            encoder.log_variance.requires_grad_(False)  # not read, and DDP stumbles over a parameter without a gradient
        self.head = head
        self.vat = vat
        self.auxiliary_decoder = auxiliary_decoder
        self.reconstruction_weight = reconstruction_weight
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.num_samples = num_samples
        self.train_metrics = classification_metrics(num_classes, "train/")
        self.val_metrics = classification_metrics(num_classes, "val/")
        self.test_metrics = classification_metrics(num_classes, "test/")
        names = ["adversarial_kl", "entropy", *(["mse"] if auxiliary_decoder else [])] if vat else []
        self.train_unlabeled = MetricCollection(
            {name: MeanLoss(name) for name in names}, prefix="train/", compute_groups=False
        )
        #: Rows are true classes, columns predicted ones; filled by validation and test, drawn by a callback.
        self.confusion = MulticlassConfusionMatrix(num_classes, ignore_index=-1, validate_args=False)

    def setup(self, stage: str) -> None:
        """Loads the auxiliary decoder at the start of a `fit`."""
        super().setup(stage)
        if self.auxiliary_decoder is not None and self.encoder_checkpoint is not None and stage == "fit":
            load_part(self.auxiliary_decoder, self._encoder_path(), "decoder")

    def forward(self, images: Tensor) -> Tensor:
        """Maps images `(B, C, H, W)` in [0, 1] to logits `(B, num_classes)`."""
        return mean_prediction(self._logits(self.read(images), images))

    def read(self, images: Tensor) -> Tensor:
        """The codes of images `(B, C, H, W)`, or where codes are drawn, mean and log-variance `(B, 2, D)`."""
        if self.num_samples:
            return torch.stack(cast(GaussianEncoder, self.encoder).posterior(images), dim=1)
        return super().read(images)

    def code_of(self, batch: Batch) -> Tensor:
        """The codes `(B, ...)` of a batch: where codes are drawn, their means."""
        return self._mean(self.read_batch(batch))

    def _mean(self, read: Tensor) -> Tensor:
        return read[:, 0] if self.num_samples else read

    def _logits(self, read: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Logits `(S, B, num_classes)` of `S` codes per image, drawn anew or by `inputs` as in `fixed_noise`."""
        if not self.num_samples:
            return self._read_class(read).unsqueeze(0)
        mean, log_variance = read.unbind(dim=1)
        if inputs is None:
            noise = torch.randn(self.num_samples, *mean.shape, device=mean.device, dtype=mean.dtype)
        else:
            noise = fixed_noise(inputs, self.num_samples, mean.shape[1])
        codes = mean + (0.5 * log_variance).exp() * noise
        return self._read_class(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])

    def _read_class(self, codes: Tensor) -> Tensor:
        logits = full(self.head(codes))
        if logits.shape[1:] != (self.num_classes,):
            shape = tuple(logits.shape[1:])
            raise ValueError(f"model.head gives {shape} for model.num_classes={self.num_classes}: set its num_classes")
        return logits

    def _step(self, batch: Batch, split: Split) -> dict[str, Tensor]:
        if split == "train" and self.vat is not None:
            return self._semi_supervised_step(batch, self.vat)
        labels, read = batch[1], self.read_batch(batch)
        each = self._logits(read, None if split == "train" else _inputs(batch))
        logits = mean_prediction(each)
        count = (labels >= 0).sum()
        if split == "train":
            loss = self._supervised_loss(each, labels)
        else:
            loss = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / count.clamp(min=1)
            self.confusion.update(logits, labels)
        metrics: MetricCollection = getattr(self, f"{split}_metrics")
        metrics.update(value=loss.detach(), weight=count, preds=logits.detach(), target=labels)
        return {"loss": loss, "code": self._mean(read), "label": labels, "logits": logits}

    def _supervised_loss(self, each: Tensor, labels: Tensor) -> Tensor:
        """Smoothed cross-entropy of logits `(S, B, num_classes)`, the mean over the images with a label."""
        target = labels.repeat(len(each))
        total = F.cross_entropy(
            each.flatten(0, 1), target, ignore_index=-1, reduction="sum", label_smoothing=self.label_smoothing
        )
        return total / (target >= 0).sum().clamp(min=1)

    def _semi_supervised_step(self, batch: Batch, vat: VirtualAdversarialTraining) -> dict[str, Tensor]:
        images, labels = batch
        read = self.read(images)
        each = self._logits(read)
        logits = mean_prediction(each)
        self.eval()  # the neighbours of the images leave no trace in a batch norm, and no dropout hides what changes
        divergence, entropy = vat(lambda moved: self._read_class(self.encoder(moved)), images, logits)
        self.train()
        loss = self._supervised_loss(each, labels) + vat.weight * divergence + vat.entropy_weight * entropy
        found = {"adversarial_kl": divergence, "entropy": entropy}
        if self.auxiliary_decoder is not None:
            found["mse"] = F.mse_loss(full(self.auxiliary_decoder(self._mean(read))), images)
            loss = loss + self.reconstruction_weight * found["mse"]
        weight = len(images)
        self.train_metrics.update(value=loss.detach(), weight=weight, preds=logits.detach(), target=labels)
        self.train_unlabeled.update(weight=weight, **{key: value.detach() for key, value in found.items()})
        return {"loss": loss, "label": labels, "logits": logits}

    def on_train_epoch_end(self) -> None:
        """Logs the training metrics of the epoch."""
        if self.vat is not None:
            self._log_metrics(self.train_unlabeled)
        super().on_train_epoch_end()

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the validation split."""
        super().on_validation_epoch_end()
        reset(self.confusion)

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the test split and the accuracy within each class (its recall)."""
        super().on_test_epoch_end()
        confusion = self.confusion.compute()
        counts = confusion.sum(dim=1)
        recalls = {f"test/accuracy_class_{i}": confusion[i, i] / counts[i] for i in counts.nonzero()[:, 0].tolist()}
        self.log_dict(recalls, sync_dist=True)
        reset(self.confusion)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns codes `(B, ...)`, class probabilities `(B, num_classes)` and labels of a batch."""
        read = self.read_batch(batch)
        probability = torch.softmax(mean_prediction(self._logits(read, _inputs(batch))), dim=1)
        return {"code": self._mean(read), "probability": probability, "label": batch[1]}


def _inputs(batch: Batch) -> Tensor:
    return batch[2] if len(batch) == 3 else batch[0]


def mean_prediction(logits: Tensor) -> Tensor:
    """Averages the probabilities of several predictions.

    Args:
        logits: Logits `(S, B, num_classes)`.

    Returns:
        Logits `(B, num_classes)` of the mean over S of the probabilities.
    """
    if len(logits) == 1:
        return logits[0]
    return logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(logits))
