"""The classifier that also learns from images without a label."""

from typing import Any

from torch import nn
from torch.nn import functional as F
from torchmetrics import MetricCollection

from preimage.checks import check_range

from .base import Batch, Split, StepOutput
from .checkpoints import load_part
from .classifier import Classifier, mean_prediction
from .metrics import MeanLoss
from .networks.modes import in_evaluation
from .networks.precision import full
from .virtual_adversarial import VirtualAdversarialTraining


class SemiSupervisedClassifier(Classifier):
    """A `Classifier` that learns from all training images, with and without a label (`keep_unlabeled` of the data).

    Args:
        encoder: Network from images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`.
        head: Network from codes to logits `(B, num_classes)`.
        vat: What is learned from all training images.
        auxiliary_decoder: Network from codes to images `(B, C, H, W)` in [0, 1], of the data's size, that rebuilds
            the images: a further loss. It starts from the `encoder_checkpoint` too, which is then that of an
            autoencoder.
        reconstruction_weight: Weight of its mean squared error.
        kwargs: Classes, label smoothing, how the encoder starts and what trains, see `Classifier`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        vat: VirtualAdversarialTraining,
        auxiliary_decoder: nn.Module | None = None,
        reconstruction_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, head, **kwargs)
        check_range("model", "[0, inf)", reconstruction_weight=reconstruction_weight)
        if self.cache_codes:
            raise ValueError("model.vat moves the images in every step: set model.cache_codes false")
        self.vat = vat
        self.auxiliary_decoder = auxiliary_decoder
        self.reconstruction_weight = reconstruction_weight
        names = ["adversarial_kl", "entropy", *(["mse"] if auxiliary_decoder else [])]
        self.train_unlabeled = MetricCollection(
            {name: MeanLoss(name) for name in names}, prefix="train/", compute_groups=False
        )

    def setup(self, stage: str) -> None:
        """Loads the auxiliary decoder at the start of a `fit`."""
        super().setup(stage)
        if self.auxiliary_decoder is not None and self.encoder_checkpoint is not None and stage == "fit":
            load_part(self.auxiliary_decoder, self._encoder_path(), "decoder")

    def _step(self, batch: Batch, split: Split) -> StepOutput:
        if split != "train":
            return super()._step(batch, split)
        images, labels = batch.images, batch.labels
        code, each = self._read_out(batch, draw=True)
        logits = mean_prediction(each)
        # The neighbours of the images leave no trace in a batch norm, and no dropout hides what changes.
        with in_evaluation(self):
            divergence, entropy = self.vat(lambda moved: self._head(self.encode(moved)), images, logits)
        loss = self._supervised_loss(each, labels) + self.vat.weight * divergence + self.vat.entropy_weight * entropy
        values = {"adversarial_kl": divergence, "entropy": entropy}
        if self.auxiliary_decoder is not None:
            values["mse"] = F.mse_loss(full(self.auxiliary_decoder(code)), images)
            loss = loss + self.reconstruction_weight * values["mse"]
        self.train_metrics.update(value=loss.detach(), weight=len(images), preds=logits.detach(), target=labels)
        self.train_unlabeled.update(weight=len(images), **{key: value.detach() for key, value in values.items()})
        return StepOutput(loss=loss, code=code, label=labels, logits=logits)
