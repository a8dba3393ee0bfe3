"""What the codes of several views of an image are trained to have in common, one class a method, around lightly's."""

import warnings
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from preimage.checks import check_range

from .networks.precision import full
from .networks.sources.base import extra


class JointEmbedding(nn.Module):
    """Base of the methods: a projector of codes, and a loss that compares what it makes of the views of a batch.

    The views are compared with those of all images of a step, on whatever process; for a projector with batch norms to
    see all of them too, set `trainer.sync_batchnorm`. In validation each batch is compared in itself. It needs the
    package lightly.

    Attributes:
        momentum: Share of itself that a teacher keeps at the first step; it is 1 at the last, by a cosine between. The
            teacher is an average of encoder and projector over the steps; None for methods without one.
        multi_crop: Whether there may be more than two views.
        projector: Network from codes `(B, in_features)` to what is compared.

    Args:
        in_features: Length of the code.
        hidden_features: Width of each hidden layer of the projector.
        features: Length of what is compared.
    """

    head: str  # of lightly's projection heads, the first word
    criterion: Any
    momentum: float | None = None
    multi_crop = False

    def __init__(self, in_features: int = 12, hidden_features: int = 256, features: int = 64) -> None:
        super().__init__()
        sizes = {"in_features": in_features, "hidden_features": hidden_features, "features": features}
        check_range(type(self).__name__, "[1, inf)", **sizes)
        self.in_features = in_features
        head = getattr(lightly("models.modules.heads"), f"{self.head}ProjectionHead")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*weight_norm. is deprecated")  # DINO puts another in its place
            self.projector: Any = head(input_dim=in_features, hidden_dim=hidden_features, output_dim=features)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss `()`.

        Args:
            student: What the projector makes of each view, `(B, features)`, the first two views being whole images.
            teacher: What the teacher makes of these two, without gradient; empty for a method without one.
        """
        loss: Tensor = self.criterion(*student)
        return loss

    def train(self, mode: bool = True) -> Self:
        """Sets train or eval mode; in eval mode, batches of several processes may differ in size and stay apart."""
        super().train(mode)
        if hasattr(self.criterion, "gather_distributed"):
            self.criterion.gather_distributed = mode
        return self


class SimCLR(JointEmbedding):
    """A view is to be told from those of all other images by its likeness to the other one (NT-Xent).

    Of N images with 2N projections z of length 1, the loss is the mean over all of
    `-log(exp(z_i . z_j / t) / sum(exp(z_i . z_k / t) for k != i))`, where j is the other view of i's image (Chen et al.
    2020, arXiv 2002.05709).

    Args:
        temperature: The t above.
        kwargs: Sizes, see `JointEmbedding`.
    """

    head = "SimCLR"

    def __init__(self, temperature: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_range("SimCLR", "(0, inf)", temperature=temperature)
        self.criterion = lightly("loss").NTXentLoss(temperature, gather_distributed=True)


class VICReg(JointEmbedding):
    """Views of an image agree, each number varies over the images, and no two vary together.

    The loss is a sum of three terms: the mean squared difference of both views; half the sum over both of
    `mean(max(0, 1 - sqrt(var + 1e-4)))` over the numbers; and the sum over both of the squared covariances of different
    numbers, divided by how many numbers there are (Bardes et al. 2022, arXiv 2105.04906).

    Args:
        invariance: Weight of the first term.
        variance: Weight of the second.
        covariance: Weight of the third.
        kwargs: Sizes, see `JointEmbedding`.
    """

    head = "VICReg"

    def __init__(
        self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_range("VICReg", "[0, inf)", invariance=invariance, variance=variance, covariance=covariance)
        self.criterion = lightly("loss").VICRegLoss(invariance, variance, covariance, gather_distributed=True)


class BarlowTwins(JointEmbedding):
    """Of each number, both views correlate with 1 over the images; of two different numbers with 0.

    The loss is `sum((1 - c_ii) ** 2) + redundancy * sum(c_ij ** 2 for i != j)` of the matrix c of correlations between
    the numbers of one view and those of the other (Zbontar et al. 2021, arXiv 2103.03230).

    Args:
        redundancy: Weight of the second sum.
        kwargs: Sizes, see `JointEmbedding`.
    """

    head = "BarlowTwins"

    def __init__(self, redundancy: float = 0.005, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_range("BarlowTwins", "[0, inf)", redundancy=redundancy)
        self.criterion = lightly("loss").BarlowTwinsLoss(redundancy)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss `()`; lightly's own would take each process's mean and variance for those of all."""
        if self.training and torch.distributed.is_initialized():
            student = [torch.cat(lightly("utils.dist").gather(part)) for part in student]
        return super().forward(student, teacher)


class BYOL(JointEmbedding):
    """From one view, a predictor says what a teacher makes of the other: no image is held against another.

    The loss is the mean over both views of the squared distance of the two, made 1 long: 2 - 2 cos (Grill et al. 2020,
    arXiv 2006.07733).

    Args:
        momentum: Of the teacher, at the first step.
        kwargs: Sizes, see `JointEmbedding`.
    """

    head = "BYOL"

    def __init__(self, momentum: float = 0.99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_range("BYOL", "[0, 1]", momentum=momentum)
        self.momentum = momentum
        hidden, features = self.projector.layers[0].out_features, self.projector.layers[-1].out_features
        self.predictor = lightly("models.modules.heads").BYOLPredictionHead(features, hidden, features)
        self.criterion = lightly("loss").NegativeCosineSimilarity()

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss `()`, in [0, 4]."""
        first, second = (full(self.predictor(part)) for part in student)
        loss: Tensor = 2 + self.criterion(first, teacher[1]) + self.criterion(second, teacher[0])
        return loss


class DINO(JointEmbedding):
    """A teacher sorts one view into classes that it makes up itself, and the student says which from another view.

    The loss is the mean over all pairs of different views of the cross-entropy between both softmaxes, of which the
    teacher's is centred, so that it does not take one class for all, and sharp, so that it does not take all for each
    (Caron et al. 2021, arXiv 2104.14294). `features` are the classes.

    Args:
        momentum: Of the teacher, at the first step.
        teacher_temperature: What the teacher's logits are divided by.
        student_temperature: What the student's are.
        center_momentum: Share of itself that the centre keeps at each step.
        kwargs: Sizes, see `JointEmbedding`.
    """

    head = "DINO"
    multi_crop = True

    def __init__(
        self,
        momentum: float = 0.996,
        teacher_temperature: float = 0.04,
        student_temperature: float = 0.1,
        center_momentum: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_range("DINO", "[0, 1]", momentum=momentum, center_momentum=center_momentum)
        temperatures = {"teacher_temperature": teacher_temperature, "student_temperature": student_temperature}
        check_range("DINO", "(0, inf)", **temperatures)
        self.momentum = momentum
        last = nn.utils.remove_weight_norm(self.projector.last_layer)  # that of lightly cannot be copied
        nn.utils.parametrizations.weight_norm(last)
        last.parametrizations.weight.original0.requires_grad_(False).fill_(1.0)
        self.criterion = lightly("loss").DINOLoss(
            last.out_features,
            warmup_teacher_temp=teacher_temperature,
            teacher_temp=teacher_temperature,
            student_temp=student_temperature,
            center_momentum=center_momentum,
        )

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss `()`; in training, the centre follows."""
        before = self.criterion.center.clone()
        loss: Tensor = self.criterion(list(teacher), list(student))
        if not self.training:
            self.criterion.center.copy_(before)
        return loss


def lightly(part: str) -> Any:
    """A module of the package lightly, by its name in there."""
    return extra(f"lightly.{part}", "ssl")
