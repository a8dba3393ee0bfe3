"""Self-supervised training: an encoder learns from views of the same image, and no label tells it what to keep."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from preimage.checks import check_range

from .base import Batch, EncoderModule, Split, StepOutput
from .classifier import mean_cross_entropy
from .joint_embedding import JointEmbedding, lightly
from .metrics import EffectiveRank, MeanLoss
from .networks.gaussian import GaussianEncoder
from .networks.precision import full

_COLLAPSED = 1.5  # RankMe below which next to nothing but one direction of the code says anything


class SelfSupervised(EncoderModule):
    """Trains an encoder on what several random views of an image have in common; its code is what comes before that.

    How the code does is measured while it learns: a linear probe is trained beside it, without a gradient to the
    encoder, and after each validation comes RankMe of the codes, `val/effective_rank`, with a warning if the code has
    collapsed. The loss of a validation compares the images of a batch, always in the same views, so that it depends on
    the size of the batches and says little of how good a code is: keep the last weights, or choose by a probe.

    Args:
        encoder: Network from images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`; of maps, all numbers are taken.
        method: What views are trained to have in common.
        view: Transforms of float batches `(B, C, H, W)` in [0, 1], applied in order, that draw a view of each image on
            the device: `PerImageAffine`, or any of `kornia.augmentation`.
        local_view: Those of small parts of the images, of which only the student sees views (multi-crop).
        local_views: How many of these there are.
        num_classes: Number of classes, for the linear probe; null for none, as for images without labels.
        kwargs: How the encoder starts and what trains, see `EncoderModule`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        method: JointEmbedding,
        view: Sequence[nn.Module],
        local_view: Sequence[nn.Module] = (),
        local_views: int = 0,
        num_classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, **kwargs)
        check_range("model", "[0, inf)", local_views=local_views)
        check_range("model", "[2, inf)", num_classes=num_classes)
        if self.freeze_encoder:
            raise ValueError("model.freeze_encoder true leaves nothing to learn from views: set it to false")
        if local_views and not method.multi_crop:
            name = type(method).__name__
            raise ValueError(
                f"model.local_views={local_views}, and {name} compares two views: set it to 0, or take DINO"
            )
        if isinstance(encoder, GaussianEncoder):
            encoder.log_variance.requires_grad_(False)  # not read, and DDP stumbles over a parameter without a gradient
        self.method = method
        self.view = nn.ModuleList(view)
        self.local_view = nn.ModuleList(local_view)
        self.local_views = local_views
        self.num_classes = num_classes
        length = method.in_features
        #: Encoder and projector, averaged over the steps.
        self.teacher = None if method.momentum is None else deepcopy(self._student()).requires_grad_(False)
        self.probe: nn.Module | None = None
        if num_classes is not None:
            self.probe = nn.Sequential(nn.BatchNorm1d(length, affine=False), nn.Linear(length, num_classes))
        self.train_metrics, self.val_metrics, self.test_metrics = (
            _metrics(prefix, num_classes, length) for prefix in ("train/", "val/", "test/")
        )
        self._collapsed = False

    def _student(self) -> nn.Sequential:
        return nn.Sequential(self.encoder, nn.Flatten(), self.method.projector)

    def setup(self, stage: str) -> None:
        """Has the teacher start as the student does, at the start of a `fit`."""
        super().setup(stage)
        if self.teacher is not None and self.encoder_checkpoint is not None and stage == "fit":
            self.teacher.load_state_dict(self._student().state_dict())

    def on_train_start(self) -> None:
        """Fits the schedules to the number of steps."""
        super().on_train_start()
        if self.teacher is not None:
            self._steps = self._total_steps(f"model.method={type(self.method).__name__}")

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, and has the teacher follow."""
        super().optimizer_step(*args, **kwargs)
        if self.teacher is not None:
            schedule = lightly("utils.scheduler").cosine_schedule
            momentum = schedule(self.trainer.global_step, self._steps, self.method.momentum, 1.0)
            lightly("models.utils").update_momentum(self._student(), self.teacher, momentum)

    def views(self, images: Tensor, fixed: bool = False) -> list[Tensor]:
        """Draws views of images `(B, C, H, W)` in [0, 1]: two whole ones, and then the local ones.

        Args:
            images: The images.
            fixed: Whether the draw is always the same, and leaves the random numbers of the training alone.
        """
        devices = [] if images.device.type == "cpu" else [images.device]
        # In half precision, places in an image would be rounded.
        with torch.random.fork_rng(devices, enabled=fixed), torch.autocast(images.device.type, enabled=False):
            if fixed:
                torch.manual_seed(0)
            drawn = []
            for transforms in (self.view, self.view, *[self.local_view] * self.local_views):
                some = images
                for transform in transforms:
                    some = transform(some)
                drawn.append(some)
        return drawn

    def compare(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The codes `(B, D)` of the first of several views, and the loss `()` of all."""
        codes = [self.encode(view).flatten(1) for view in views]
        if (length := codes[0].shape[1]) != self.method.in_features:
            raise ValueError(
                f"model.encoder gives codes of {length} numbers for model.method.in_features={self.method.in_features}:"
                f" give --model.method.in_features {length}"
            )
        student = [full(self.method.projector(code)) for code in codes]
        with torch.no_grad():
            teacher = [full(self.teacher(view)) for view in views[:2]] if self.teacher is not None else []
        with torch.autocast(self.device.type, enabled=False):
            return codes[0], self.method(student, teacher)

    def _step(self, batch: Batch, split: Split) -> StepOutput:
        images, count = batch.images, len(batch.images)
        if count > 1:
            code, loss = self.compare(self.views(images, fixed=split != "train"))
        elif split == "train":
            raise ValueError("SelfSupervised compares the images of a batch: give --data.batch_size 2 or more")
        else:  # the last image of a split, of which there is nothing to say
            count, loss = 0, images.new_zeros(())
        if split != "train":
            code = self.encode(images)
        values: dict[str, Any] = {"value": loss.detach(), "weight": count, "code": code.detach()}
        if self.probe is not None:
            values |= {"preds": full(self.probe(code.detach().flatten(1))), "target": batch.labels}
            loss = loss + mean_cross_entropy(values["preds"], batch.labels) if split == "train" else loss
            values["preds"] = values["preds"].detach()
        getattr(self, f"{split}_metrics").update(**values)
        return StepOutput(loss=loss, code=code, label=batch.labels, image=images)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the validation split, and warns when the code has collapsed."""
        rank, length = float(self.val_metrics["effective_rank"].compute()), self.method.in_features
        super().on_validation_epoch_end()
        collapsed = not rank >= _COLLAPSED and length > 1 and not self.trainer.sanity_checking  # NaN if all are zero
        if collapsed and not self._collapsed:
            rank_zero_warn(
                f"the code has collapsed: its effective rank is {rank:.2f} of {length} in the validation after epoch"
                f" {self.current_epoch + 1}, so that it says next to nothing of an image; try a lower learning rate,"
                " larger batches, or another model.method"
            )
        self._collapsed = collapsed

    def _predict(self, batch: Batch) -> dict[str, Tensor]:
        return {"code": self.encode(batch.images), "label": batch.labels}


def _metrics(prefix: str, num_classes: int | None, length: int) -> MetricCollection:
    metrics: dict[str, Metric | MetricCollection] = {"loss": MeanLoss()}
    if num_classes is not None:
        options: dict[str, Any] = {"num_classes": num_classes, "ignore_index": -1, "validate_args": False}
        metrics["linear_accuracy"] = MulticlassAccuracy(average="micro", **options)
    if prefix != "train/":
        metrics["effective_rank"] = EffectiveRank(length)
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)
