"""The classifier that also reconstructs: one code, from which a class is read and an image is rebuilt."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from preimage.checks import check_range

from .autoencoder import Autoencoder, resize_to
from .base import Batch, Split, StepOutput
from .classifier import mean_cross_entropy
from .metrics import classification_metrics, mean_losses, probability_metrics, reconstruction_metrics
from .networks.precision import full

Reconstruction = Literal["joint", "detached", "none"]


class ClassifierReconstructor(Autoencoder):
    """Predicts a class from the code of an encoder and rebuilds the image from the same code.

    The loss is the cross-entropy plus a multiple of the mean squared error. Where the code is as long as there are
    classes, it is the logits themselves; otherwise a linear layer reads the logits off it.

    With `reconstruction="detached"` the classifier learns exactly as with `none`, bit for bit on the CPU, as long as no
    clipping of the gradient's norm (`trainer.gradient_clip_val`) ties the two together.

    Args:
        encoder: Network from images `(B, C, H, W)` in [0, 1] to codes `(B, latent_dim)`.
        decoder: Network from codes to images `(B, C, h, w)` in [0, 1]; where its size differs from the data's,
            the target is the data's image resized to it.
        latent_dim: Length of the code; that of `num_classes` makes the code the logits.
        num_classes: Number of classes.
        reconstruction: Train the encoder on both errors (`joint`), train the decoder on the code without touching
            the classifier (`detached`: the inversion of a classifier), or train no decoder (`none`).
        reconstruction_weight: Weight of the mean squared error beside the cross-entropy.
        class_weights: Weight of each class in the cross-entropy, or `balanced`: inversely proportional to the
            class's share of the training split, 1 on average over its images.
        kwargs: How the encoder starts and what trains, see `EncoderModule`.
    """

    num_classes: int

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int = 2,
        num_classes: int = 2,
        reconstruction: Reconstruction = "joint",
        reconstruction_weight: float = 1.0,
        class_weights: list[float] | Literal["balanced"] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, decoder, **kwargs)
        check_range("model", "[1, inf)", latent_dim=latent_dim)
        check_range("model", "[2, inf)", num_classes=num_classes)
        weights = class_weights if isinstance(class_weights, list) else [1.0] * num_classes
        check_range("model", "[0, inf)", reconstruction_weight=reconstruction_weight, class_weights=weights)
        if len(weights) != num_classes or not any(weights):
            raise ValueError(
                f"model.class_weights={class_weights} must be {num_classes} numbers from 0 up, not all of them 0"
            )
        self.latent_dim = latent_dim
        self.head = nn.Identity() if latent_dim == num_classes else nn.Linear(latent_dim, num_classes)
        self.num_classes = num_classes
        self.reconstruction = reconstruction
        self.reconstruction_weight = reconstruction_weight
        self.balanced = class_weights == "balanced"
        self.class_weights: Tensor
        self.register_buffer("class_weights", torch.tensor(weights, dtype=torch.float32))
        if reconstruction == "none":
            self.decoder.requires_grad_(False)  # it would be a parameter without a gradient, over which DDP stumbles
        self._make_metrics()

    def _make_metrics(self) -> None:
        splits, rebuilds = ("train/", "val/", "test/"), self.reconstruction != "none"
        errors = ["mse"] if rebuilds else []
        self.train_metrics, self.val_metrics, self.test_metrics = (
            classification_metrics(self.num_classes, prefix, loss="cross_entropy") for prefix in splits
        )
        for metrics in (self.val_metrics, self.test_metrics):
            metrics.add_metrics(probability_metrics(self.num_classes))
        self.train_errors, self.val_errors, self.test_errors = (
            reconstruction_metrics(prefix) if rebuilds and prefix != "train/" else mean_losses(prefix, *errors)
            for prefix in splits
        )
        #: Rows are true classes, columns predicted ones; filled by validation and test, drawn by a callback.
        self.confusion = MulticlassConfusionMatrix(self.num_classes, ignore_index=-1, validate_args=False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images `(B, C, H, W)` in [0, 1] to logits `(B, num_classes)`."""
        return self.classify(images)

    def classify(self, images: Tensor) -> Tensor:
        """Maps images `(B, C, H, W)` in [0, 1] to logits `(B, num_classes)`."""
        return self._logits(self.encode(images))

    def _logits(self, code: Tensor) -> Tensor:
        if code.shape[1:] != (self.latent_dim,):
            raise ValueError(
                f"the encoder gives codes {tuple(code.shape)}, expected (B, {self.latent_dim}): set model.latent_dim"
            )
        logits: Tensor = self.head(code)
        return full(logits)

    def setup(self, stage: str) -> None:
        """Balances the classes at the start of a `fit`; later their weights come with the checkpoint."""
        super().setup(stage)
        if self.balanced and stage == "fit":
            self.class_weights.copy_(self._balance())

    def _balance(self) -> Tensor:
        """Weights `(num_classes,)` by the labels of the training split."""
        labels = getattr(getattr(self._data(), "train_set", None), "labels", None)
        if labels is None:
            raise ValueError("model.class_weights=balanced needs a data module with a train_set.labels: give numbers")
        counts = torch.bincount(labels[labels >= 0], minlength=self.num_classes)
        if len(counts) != self.num_classes or counts.min() < 1:
            raise ValueError(
                f"model.class_weights=balanced needs training images of each of model.num_classes={self.num_classes}"
                f" classes, the data has {counts.tolist()}: set num_classes, or give numbers"
            )
        return counts.sum() / (self.num_classes * counts)

    def _step(self, batch: Batch, split: Split) -> StepOutput:
        images, labels, _ = batch
        numbers = self.read(batch._replace(images=self._masked(images)))
        code = self.quantize(numbers)
        logits = self._logits(code)
        cross_entropy = loss = mean_cross_entropy(logits, labels, weight=self.class_weights)
        outputs = StepOutput(loss=loss, code=code, label=labels, logits=logits, image=images)
        errors: dict[str, Tensor] = {}
        if self.reconstruction != "none":
            reconstruction = self.decode(code.detach() if self.reconstruction == "detached" else code)
            target = resize_to(images, reconstruction)
            mse = F.mse_loss(reconstruction, target)
            loss = cross_entropy + self.reconstruction_weight * mse
            outputs["loss"], outputs["reconstruction"], outputs["target"] = loss, reconstruction, target
            errors = {"mse": mse.detach(), "preds": reconstruction.detach(), "target": target}
        if self._penalized:
            outputs["loss"] = loss = loss + self._penalty(numbers, code, images)
        getattr(self, f"{split}_metrics").update(
            value=cross_entropy.detach(),
            weight=(labels >= 0).sum(),
            preds=logits.detach().softmax(dim=1),
            target=labels,
        )
        self._measure_rate(code, split)
        getattr(self, f"{split}_errors").update(value=loss.detach(), weight=len(images), **errors)
        if split != "train":
            self.confusion.update(logits, labels)
            if prepare := getattr(self.encoder, "prepare", None):
                outputs["input"] = prepare(images)
        return outputs

    def _predict(self, batch: Batch) -> dict[str, Tensor]:
        code = self.quantize(self.read(batch))
        return {"code": code, "probability": self._logits(code).softmax(dim=1), "label": batch.labels}
