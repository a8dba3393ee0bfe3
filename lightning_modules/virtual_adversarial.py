"""What unlabelled images teach a classifier: to say the same of an image and of its neighbours, and to decide."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from preimage.checks import check_range

from .networks.precision import full


class VirtualAdversarialTraining(nn.Module):
    """Virtual adversarial training with entropy minimisation (VAT + EntMin, Miyato et al. 2018, arXiv 1704.03976).

    Every image is moved by `epsilon` into the direction in which the prediction changes most, and the prediction shall
    not follow; the entropy of the predictions shall be small. So the boundaries between classes move to where no images
    are, and the labels spread along what images have in common. No label is read: an image with a label is treated here
    like any other.

    Args:
        epsilon: How far an image is moved: Euclidean norm over its pixels, which are in [0, 1].
        weight: Weight of the divergence beside the loss of the labelled images.
        entropy_weight: Weight of the entropy.
        probe: How far it is moved to find the direction, in the same norm.
    """

    def __init__(self, epsilon: float, weight: float = 1.0, entropy_weight: float = 1.0, probe: float = 0.1) -> None:
        super().__init__()
        check_range("vat", "(0, inf)", epsilon=epsilon, probe=probe)
        check_range("vat", "[0, inf)", weight=weight, entropy_weight=entropy_weight)
        self.epsilon = epsilon
        self.weight = weight
        self.entropy_weight = entropy_weight
        self.probe = probe

    def forward(self, predict: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Measures how little the predictions agree with their neighbours, and how undecided they are.

        Args:
            predict: Maps images to logits, without chance and without a trace in the statistics of a batch norm.
            images: Images `(B, C, H, W)`.
            logits: What was predicted for them `(B, num_classes)`, of which the entropy is taken.

        Returns:
            The divergence and the entropy in nats, means over the images, not weighted.
        """
        # The prediction changes by less than bfloat16 resolves.
        with torch.autocast(images.device.type, enabled=False):
            images = full(images)
            with torch.no_grad():
                target = torch.softmax(predict(images), dim=1)
            moved = images + self.epsilon * self._direction(predict, images, target)
            divergence = F.kl_div(predict(moved).log_softmax(dim=1), target, reduction="batchmean")
        return divergence, torch.special.entr(torch.softmax(full(logits), dim=1)).sum(dim=1).mean()

    def _direction(self, predict: Callable[[Tensor], Tensor], images: Tensor, target: Tensor) -> Tensor:
        """Unit vectors `(B, C, H, W)` after one step of the power iteration on the divergence's curvature."""
        step = (self.probe * _unit(torch.randn_like(images))).requires_grad_()
        with torch.enable_grad():
            divergence = F.kl_div(predict(images + step).log_softmax(dim=1), target, reduction="sum")
            (gradient,) = torch.autograd.grad(divergence, step)
        return _unit(gradient)


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.flatten(1), dim=1).view_as(vectors)
