"""What every system shares: an encoder, its origin, whether it is frozen, and the optimiser of the rest."""

import math
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Required, Self, TypedDict

import torch
from jsonargparse import set_parsing_settings
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from preimage.checks import check_range
from preimage.private_api import trainer_of

from .checkpoints import join_groups, load_checkpoint, load_part, renewed_checkpoint
from .metrics import reset
from .networks.precision import follow_dtype
from .networks.tokens import probe_vectors
from .networks.weights import check_fit, weights_hash
from .schedules import OneCycle
from .shapes import check_classes, check_shapes

Split = Literal["train", "val", "test"]


class Batch(NamedTuple):
    """What a data module gives to a model.

    Attributes:
        images: Images `(B, C, H, W)` in [0, 1]; None where a model reads cached codes alone.
        labels: Class indices `(B,)`, -1 for an image whose class is not given.
        codes: What a frozen encoder has made of the images, `(B, ...)`, where that is cached.
    """

    images: Tensor
    labels: Tensor
    codes: Tensor | None = None


class StepOutput(TypedDict, total=False):
    """What a step gives to callbacks: those of these that the system has.

    Attributes:
        loss: The loss `()`, which training minimises.
        code: Codes `(B, ...)`, what `decode` takes.
        label: Class indices `(B,)`, -1 for an image whose class is not given.
        logits: Logits `(B, num_classes)`, whatever range.
        image: The images `(B, C, H, W)` in [0, 1].
        input: What the encoder sees of them, `(B, c, h, w)` in [0, 1], where that is not the images as they are.
        target: The images in the size of the reconstruction, `(B, C, h, w)` in [0, 1].
        reconstruction: What `decode` makes of the codes, `(B, C, h, w)` in [0, 1].
    """

    loss: Required[Tensor]
    code: Tensor
    label: Tensor
    logits: Tensor
    image: Tensor
    input: Tensor
    target: Tensor
    reconstruction: Tensor


# What runs commands, opens files or connects is not even imported, for a configuration or for a checkpoint's.
set_parsing_settings(import_path_denylist=[])  # no more than jsonargparse's own list, which this enforces

_FLOAT16_EPS = 1e-4  # of an optimiser; the usual 1e-8 is 0 in float16
_PLAIN = (str, int, float, bool, type(None), dict, list, tuple)


class EncoderModule(LightningModule):
    """Base of all systems: an encoder of images, trained or frozen, under something that reads its code.

    A subclass implements `_step`, which is shared by training, validation and test and fills the metrics of its split:
    at the end of an epoch, each `MetricCollection` with the prefix `train/`, `val/` or `test/` is logged and emptied.
    All systems speak of what they can do in the same words, images being floats `(B, C, H, W)` in [0, 1]:

    - `encode(images)` gives codes `(B, ...)`, and `vectors(code)` what probes read of them, `(B, D)`;
    - `decode(code)` and `reconstruct(images)` give images `(B, C, h, w)` in [0, 1], where there is a decoder;
    - `classify(images)` gives logits `(B, num_classes)`, where there is a head;
    - `sample(count)` draws images `(count, C, h, w)` in [0, 1], where there is a prior.

    Args:
        encoder: Network from images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`.
        encoder_checkpoint: The run that trained the encoder, or a checkpoint of it; it is looked up from the working
            directory, then from `trainer.default_root_dir`. Without one the encoder starts from scratch.
        freeze_encoder: Keep the encoder as it is: in eval mode, without gradients, not in the optimiser.
        cache_codes: Run a frozen encoder once over the images and train on the stored codes; the images must come
            from one of our data modules, without augmentation.
        encoder_lr: Learning rate of the encoder, if another than the optimiser's.
        optimizer: The optimiser; without one it is Adam with a learning rate of 1e-3.
        scheduler: The learning rate schedule; `OneCycle` steps per batch, torch's own per epoch, and
            `ReduceLROnPlateau` after every validation, on its `monitor` (`val/loss`).
    """

    #: Whether the model needs images besides cached codes: those that rebuild them do.
    reads_images = True
    #: Number of classes of a model that needs labels.
    num_classes: int | None = None
    train_metrics: MetricCollection
    val_metrics: MetricCollection
    test_metrics: MetricCollection

    def __init__(
        self,
        encoder: nn.Module,
        encoder_checkpoint: str | None = None,
        freeze_encoder: bool = False,
        cache_codes: bool = False,
        encoder_lr: float | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        if cache_codes and not freeze_encoder:
            raise ValueError("model.cache_codes needs an encoder that stays as it is: set model.freeze_encoder true")
        check_range("model", "(0, inf)", encoder_lr=encoder_lr)
        with warnings.catch_warnings():
            # Under the CLI the modules are kept as plain class paths, and built in Python they stay out of the file.
            warnings.filterwarnings("ignore", "Attribute .* is an instance of `nn.Module`")
            self.save_hyperparameters(logger=False)
        self.encoder = encoder
        self.encoder_checkpoint = encoder_checkpoint
        self.freeze_encoder = freeze_encoder
        self.cache_codes = cache_codes
        self.encoder_lr = encoder_lr
        self.learning_rate: float | None = None  # in place of the optimiser's, where one was searched
        self.make_optimizer = optimizer or partial(torch.optim.Adam, lr=1e-3)
        self.make_scheduler = scheduler
        if freeze_encoder:
            self.encoder.requires_grad_(False).eval()

    def _step(self, batch: Batch, split: Split) -> StepOutput:
        raise NotImplementedError

    def _predict(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    def _checked_step(self, given: Any, split: Split) -> StepOutput:
        """A step; where it fails for parts that do not fit together, they are named."""
        batch = Batch(*given)
        try:
            return self._step(batch, split)
        except RuntimeError:
            trainer = trainer_of(self)
            alone = trainer is None or trainer.world_size == 1  # else others may be waiting for this one
            if batch.images is not None and batch.images.ndim == 4 and alone:
                check_shapes(self, tuple(batch.images.shape[1:]))
            raise

    def encode(self, images: Tensor) -> Tensor:
        """Maps images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`."""
        code: Tensor = self.encoder(images)
        return code

    def vectors(self, code: Tensor) -> Tensor:
        """Maps codes `(B, ...)` to float32 vectors `(B, D)`, short enough for probes, see `probe_vectors`."""
        return probe_vectors(code, self.encoder)

    def represent(self, images: Tensor) -> Tensor:
        """What is cached of images `(B, C, H, W)`: their codes, or what codes are drawn from."""
        return self.encode(images)

    def read(self, batch: Batch) -> Tensor:
        """What `represent` gives for a batch, from the cache where there is one."""
        return self.represent(batch.images) if batch.codes is None else batch.codes

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Returns the training loss of a batch."""
        return self._checked_step(batch, "train")["loss"]

    def validation_step(self, batch: Any, batch_idx: int) -> StepOutput:
        """Returns what callbacks may draw."""
        return self._checked_step(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> StepOutput:
        """Returns what callbacks may draw; in float32, as evaluations measure, whatever the training's precision."""
        with torch.autocast(self.device.type, enabled=False):
            return self._checked_step(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Returns codes `(B, ...)`, labels, and what else there is to keep of a batch."""
        return self._predict(Batch(*batch))

    def on_train_epoch_end(self) -> None:
        """Logs the training metrics of the epoch."""
        self._end_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the validation split."""
        self._end_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the test split."""
        self._end_epoch("test")

    def _end_epoch(self, split: Split) -> None:
        """Logs and empties all collections of a split, and steps a schedule that follows what is logged by then."""
        # Once per epoch: a `self.log` in every step costs more than the step of a small network.
        for metrics in self.children():
            if isinstance(metrics, MetricCollection) and metrics.prefix == f"{split}/":
                self.log_dict(metrics.compute(), sync_dist=True)
                reset(metrics)
            elif isinstance(metrics, MulticlassConfusionMatrix) and split != "train":
                reset(metrics)  # which a callback has drawn
        trainer = self.trainer
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.barebones:  # the last logs nothing
            return
        for config in trainer.lr_scheduler_configs:
            if not config.reduce_on_plateau or str(config.monitor).startswith("train/") != (split == "train"):
                continue
            logged = trainer.callback_metrics
            if config.monitor not in logged:
                known = ", ".join(logged)
                raise ValueError(
                    f"model.scheduler.monitor={config.monitor} is no metric that is logged here: choose of {known}"
                )
            self.lr_scheduler_step(config.scheduler, logged[config.monitor])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Converts weights, but no metric to a type of fewer digits, which would not hold the sums of a whole split."""

        def keep(value: Tensor) -> Tensor:
            new = fn(value)
            return new.to(torch.promote_types(value.dtype, new.dtype))

        buffers = {key: keep(value) for key, value in self._buffers.items() if value is not None}
        super()._apply(fn, recurse=False)
        self._buffers.update(buffers)
        for child in self.children():
            child._apply(keep if isinstance(child, Metric | MetricCollection) else fn)
        return self

    def train(self, mode: bool = True) -> Self:
        """Sets train or eval mode; a frozen encoder stays in eval mode, so that no dropout or statistic comes alive."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def on_train_start(self) -> None:
        """Fits the schedule to the number of steps, which a search of the batch size has changed."""
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, OneCycle):
                config.scheduler.total_steps = self._total_steps()

    def _total_steps(self, follower: str = "model.scheduler=OneCycle") -> int:
        steps = self.trainer.estimated_stepping_batches
        if steps == math.inf:
            raise ValueError(
                f"{follower} must know the number of steps: set trainer.max_epochs or trainer.max_steps,"
                " also beside trainer.max_time"
            )
        return int(steps)

    def prepare_data(self) -> None:
        """Looks for the encoder's checkpoint, and for what does not fit, before any logger has opened a run."""
        data = self._data()
        check_classes(self, data, "predict" if self.trainer.predicting else "")  # where it knows its classes by now
        channels, size = getattr(data, "channels", None), getattr(data, "image_size", None)
        if isinstance(channels, int) and isinstance(size, int):
            check_shapes(self, (channels, size, size))
        if self.encoder_checkpoint is not None and self.trainer.training:
            load_checkpoint(self._encoder_path())

    def setup(self, stage: str) -> None:
        """Loads the encoder's weights at the start of a `fit`; later they come with the model's own checkpoint.

        Raises:
            ValueError: The data has other classes than the model, or none for one that needs them.
        """
        if self.trainer.precision_plugin.precision not in ("32-true", "16-mixed", "bf16-mixed"):
            follow_dtype(self)
        if self.encoder_checkpoint is not None and stage == "fit":
            load_part(self.encoder, self._encoder_path(), "encoder", self.hparams.get("encoder"))
        check_classes(self, self._data(), stage)

    def on_fit_start(self) -> None:
        """Caches the codes if asked to: all processes share the work, and wait for each other at the disk.

        Raises:
            ChildProcessError: One of them has ended meanwhile.
        """
        if not self.cache_codes:
            return
        data = self._data()
        if not hasattr(data, "cache_codes"):
            raise ValueError(f"model.cache_codes needs one of our data modules, not {type(data).__name__}")
        key = f"{self.encoder} {weights_hash(self.encoder)} {self.trainer.precision}"
        data.cache_codes(self._encode, key, self.reads_images)
        try:
            self.trainer.strategy.barrier("codes")  # all are here within a moment
        except RuntimeError as error:
            raise ChildProcessError(
                "a process of this run has ended while codes were encoded, perhaps for want of memory: start again, and"
                " what was encoded is taken up"
            ) from error

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Tensor:
        with self.trainer.precision_plugin.forward_context():
            return self.represent(images.to(self.device).float().div_(255)).cpu()

    def _data(self) -> Any:
        """The data module; None where the trainer was given loaders."""
        return getattr(self.trainer, "datamodule", None)

    def _encoder_path(self) -> str:
        path = Path(str(self.encoder_checkpoint))
        return str(path if path.exists() else Path(self.trainer.default_root_dir) / path)

    def configure_optimizers(self) -> Any:
        """Builds the optimiser over all that is not frozen, and the schedule."""
        encoder = [p for p in self.encoder.parameters() if p.requires_grad]
        rest = [p for name, p in self.named_parameters() if p.requires_grad and not name.startswith("encoder.")]
        searched = {} if self.learning_rate is None else {"lr": self.learning_rate}
        if self.encoder_lr is None:  # one group: LBFGS takes no more
            groups: list[dict[str, Any]] = [{"params": [*rest, *encoder]} | searched]
        else:
            groups = [{"params": rest} | searched, {"params": encoder, "lr": self.encoder_lr}]
        optimizer = self.make_optimizer([group for group in groups if group["params"]])
        trainer = trainer_of(self)  # none where the optimiser is made without one
        if isinstance(optimizer, torch.optim.LBFGS) and trainer is not None and trainer.accumulate_grad_batches > 1:
            raise ValueError(
                "LBFGS computes a step several times over one batch: set trainer.accumulate_grad_batches to 1, and"
                " data.batch_size as large as a step shall be"
            )
        for group in optimizer.param_groups:
            check_range("optimizer", "[0, inf)", lr=float(group["lr"]))
            if group["params"][0].dtype == torch.float16 and 0 < group.get("eps", 0) < _FLOAT16_EPS:
                rank_zero_info(
                    f"eps of the optimizer: {_FLOAT16_EPS}, since {group['eps']} is 0 in trainer.precision=16-true"
                )
                group["eps"] = _FLOAT16_EPS
        for callback in () if trainer is None else trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.strict:
                self._check_measured("EarlyStopping", callback.monitor)
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer)
        if isinstance(scheduler, OneCycle):
            scheduler.total_steps = self._total_steps()
        config = {"scheduler": scheduler, "interval": getattr(scheduler, "interval", "epoch")}
        if isinstance(scheduler, ReduceLROnPlateau):
            # Lightning would step it after every epoch, whether there was a validation or not: here it never does.
            monitor = getattr(scheduler, "monitor", "val/loss")
            self._check_measured("model.scheduler", monitor)
            config |= {"monitor": monitor, "frequency": sys.maxsize}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def _check_measured(self, follower: str, metric: str) -> None:
        """Looks before the training whether there is a validation for a metric of it."""
        data = self._data()
        validated = self.trainer.limit_val_batches and (data is None or data.val_dataloader() != [])
        if not validated and not metric.startswith("train/"):
            raise ValueError(
                f"{follower} follows {metric}, and there is no validation that would measure it: set its monitor to"
                " train/loss, or keep some images for a validation"
            )

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Builds a model from its checkpoint alone, also from one of an earlier version.

        As with LightningModule, it is in training mode, to be trained on; `preimage.load` gives one for reading.
        """
        if isinstance(checkpoint_path, str | Path):
            checkpoint_path = renewed_checkpoint(checkpoint_path, cls.__name__)
        model: Self = super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        return model

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Names the first tensor that does not fit, with both shapes, before torch lists them all."""
        check_fit(self.state_dict(), checkpoint["state_dict"], "the checkpoint")
        if self.encoder_lr is None:
            join_groups(checkpoint)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps modules that were passed in Python out of the file, which stays loadable under `weights_only`."""
        hparams = checkpoint.get("hyper_parameters", {})
        checkpoint["hyper_parameters"] = {key: value for key, value in hparams.items() if isinstance(value, _PLAIN)}
