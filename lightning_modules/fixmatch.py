"""What unlabelled images teach a classifier: to see in a distorted image what it is sure to see in the image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FixMatch(nn.Module):
    """Pseudo-labels from images as they are, learned on distorted ones (Sohn et al. 2020, arXiv 2001.07685).

    The images as they are come from the data module, whose augmentations are the weak ones. No label is read: an image
    with a label is treated here like any other.
    """

    def __init__(self, augmentations: Sequence[nn.Module], threshold: float = 0.95, weight: float = 1.0) -> None:
        """Sets the distortion, and what counts.

        Args:
            augmentations: The strong augmentations, applied in order on top of the weak ones; transforms of float
                batches `(B, C, H, W)` in [0, 1] that draw anew for every image.
            threshold: Probability from which a prediction is taken for a label, in [0, 1].
            weight: Weight of the loss beside that of the labelled images.
        """
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold} is a probability: give a number from 0 to 1")
        self.augmentations = list(augmentations)  # as in the data module, no part of the model and its checkpoint
        self.threshold = threshold
        self.weight = weight

    def distort(self, images: Tensor) -> Tensor:
        """Augments images `(B, C, H, W)` strongly; shape and range [0, 1] stay."""
        for augmentation in self.augmentations:
            images = augmentation(images)
        return images.clamp(0, 1)

    def forward(self, logits: Tensor, weak_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Compares what is said of distorted images with what is said of the images.

        Args:
            logits: Logits `(B, num_classes)` of the distorted images.
            weak_logits: Logits `(B, num_classes)` of the images, through which no gradient flows.

        Returns:
            The weighted loss, and the share of the images whose pseudo-label counts.
        """
        losses, sure = pseudo_label_loss(logits, weak_logits, self.threshold)
        return self.weight * losses.mean(), sure.float().mean()


def pseudo_label_loss(logits: Tensor, weak_logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy with the classes that are predicted with certainty elsewhere.

    Args:
        logits: Logits `(B, num_classes)`.
        weak_logits: Logits `(B, num_classes)` that make the pseudo-labels; no gradient flows through them.
        threshold: Probability from which a prediction counts, in [0, 1].

    Returns:
        Nats per image `(B,)`, 0 for an image without a certain prediction; and which images have one `(B,)`.
    """
    confidence, label = torch.softmax(weak_logits.detach(), dim=1).max(dim=1)
    sure = confidence >= threshold
    return F.cross_entropy(logits, label, reduction="none") * sure, sure
