"""What every system shares: an encoder, its origin, whether it is frozen, and the optimiser of the rest."""

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from jsonargparse import set_parsing_settings
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection

from .checkpoints import load_checkpoint, load_part
from .metrics import reset
from .networks.weights import check_fit, weights_hash
from .schedules import OneCycle
from .shapes import check_shapes

Split = Literal["train", "val", "test"]
#: Images `(B, C, H, W)` and labels `(B,)`, and the images' codes `(B, ...)` where these are cached.
Batch = Sequence[Tensor]

# What runs commands, opens files or connects is not even imported, for a configuration or for a checkpoint's.
set_parsing_settings(import_path_denylist=[])  # no more than jsonargparse's own list, which this enforces

_PLAIN = (str, int, float, bool, type(None), dict, list, tuple)


class EncoderModule(LightningModule):
    """Base of all systems: an encoder of images, trained or frozen, under something that reads its code.

    A subclass implements `_step`, which is shared by training, validation and test and fills the metrics of its split.
    """

    #: Whether the model needs images besides cached codes: those that rebuild them do.
    reads_images = True
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
        """Stores the encoder and how it is trained.

        Args:
            encoder: Network from images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`.
            encoder_checkpoint: Checkpoint of the run that trained the encoder; it is looked up from the working
                directory, then from `trainer.default_root_dir`. Without one the encoder starts from scratch.
            freeze_encoder: Keep the encoder as it is: in eval mode, without gradients, not in the optimiser.
            cache_codes: Run a frozen encoder once over the images and train on the stored codes; the images must come
                from one of our data modules, without augmentation.
            encoder_lr: Learning rate of the encoder, if another than the optimiser's.
            optimizer: The optimiser; without one it is Adam with a learning rate of 1e-3.
            scheduler: The learning rate schedule; `OneCycle` steps per batch, torch's own per epoch.
        """
        super().__init__()
        if cache_codes and not freeze_encoder:
            raise ValueError("model.cache_codes needs an encoder that stays as it is: set model.freeze_encoder true")
        with warnings.catch_warnings():
            # Under the CLI the modules are kept as plain class paths, and built in Python they stay out of the file.
            warnings.filterwarnings("ignore", "Attribute .* is an instance of `nn.Module`")
            self.save_hyperparameters(logger=False)
        self.encoder = encoder
        self.encoder_checkpoint = encoder_checkpoint
        self.freeze_encoder = freeze_encoder
        self.cache_codes = cache_codes
        self.encoder_lr = encoder_lr
        self.make_optimizer = optimizer or partial(torch.optim.Adam, lr=1e-3)
        self.make_scheduler = scheduler
        if freeze_encoder:
            self.encoder.requires_grad_(False).eval()

    def _step(self, batch: Batch, split: Split) -> dict[str, Tensor]:
        raise NotImplementedError

    def _checked_step(self, batch: Batch, split: Split) -> dict[str, Tensor]:
        """A step; where it fails for parts that do not fit together, they are named."""
        try:
            return self._step(batch, split)
        except RuntimeError:
            if batch[0].ndim == 4 and self.trainer.world_size == 1:  # others may be waiting for this process
                check_shapes(self, tuple(batch[0].shape[1:]))
            raise

    def read(self, images: Tensor) -> Tensor:
        """What the rest of the model reads of images `(B, C, H, W)`, and what is cached: the encoder's output."""
        code: Tensor = self.encoder(images)
        return code

    def read_batch(self, batch: Batch) -> Tensor:
        """What the rest of the model reads of a batch, from the cache where there is one."""
        return batch[2] if len(batch) == 3 else self.read(batch[0])

    def code_of(self, batch: Batch) -> Tensor:
        """The codes `(B, ...)` of a batch."""
        return self.read_batch(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the training loss of a batch."""
        return self._checked_step(batch, "train")["loss"]

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns what callbacks may draw: loss, code, label and the reader's output."""
        return self._checked_step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns the same as `validation_step`, for the test split."""
        return self._checked_step(batch, "test")

    def on_train_epoch_end(self) -> None:
        """Logs the training metrics of the epoch."""
        self._log_metrics(self.train_metrics)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the validation split."""
        self._log_metrics(self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the test split."""
        self._log_metrics(self.test_metrics)

    def _log_metrics(self, metrics: MetricCollection) -> None:
        # Once per epoch: a `self.log` in every step costs more than the step of a small network.
        self.log_dict(metrics.compute(), sync_dist=True)
        reset(metrics)

    def train(self, mode: bool = True) -> Self:
        """Sets train or eval mode; a frozen encoder stays in eval mode, so that no dropout or statistic comes alive."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def prepare_data(self) -> None:
        """Looks for the encoder's checkpoint, and for parts that do not fit, before any logger has opened a run."""
        data = getattr(self.trainer, "datamodule", None)
        channels, size = getattr(data, "channels", None), getattr(data, "image_size", None)
        if isinstance(channels, int) and isinstance(size, int):
            check_shapes(self, (channels, size, size))
        if self.encoder_checkpoint is not None and self.trainer.training:
            load_checkpoint(self._encoder_path())

    def setup(self, stage: str) -> None:
        """Loads the encoder's weights at the start of a `fit`; later they come with the model's own checkpoint."""
        if self.encoder_checkpoint is not None and stage == "fit":
            load_part(self.encoder, self._encoder_path(), "encoder")

    def _check_classes(self, num_classes: int) -> None:
        """Compares the number of classes with the data's, before a label without a logit ends the run."""
        names = getattr(getattr(self.trainer, "datamodule", None), "class_names", None)
        if names is not None and len(names) != num_classes:
            raise ValueError(
                f"the data has {len(names)} classes, model.num_classes={num_classes}: set model.num_classes"
            )

    def on_fit_start(self) -> None:
        """Caches the codes if asked to: on one process of a machine first, while the others wait."""
        if not self.cache_codes:
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "cache_codes"):
            raise ValueError(f"model.cache_codes needs one of our data modules, not {type(data).__name__}")
        key = f"{self.encoder} {weights_hash(self.encoder)} {self.trainer.precision}"
        if self.trainer.local_rank == 0:
            data.cache_codes(self._encode, key, self.reads_images)
        self.trainer.strategy.barrier("codes")
        if self.trainer.local_rank != 0:
            data.cache_codes(self._encode, key, self.reads_images)

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Tensor:
        with self.trainer.precision_plugin.forward_context():
            return self.read(images.to(self.device).float().div_(255)).cpu()

    def _encoder_path(self) -> str:
        path = Path(str(self.encoder_checkpoint))
        return str(path if path.exists() else Path(self.trainer.default_root_dir) / path)

    def configure_optimizers(self) -> Any:
        """Builds the optimiser over all that is not frozen, and the schedule."""
        encoder = [p for p in self.encoder.parameters() if p.requires_grad]
        known = {id(p) for p in self.encoder.parameters()}
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.parameters() if p.requires_grad and id(p) not in known]},
            {"params": encoder} | ({} if self.encoder_lr is None else {"lr": self.encoder_lr}),
        ]
        optimizer = self.make_optimizer([group for group in groups if group["params"]])
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer)
        if isinstance(scheduler, OneCycle):
            scheduler.total_steps = int(self.trainer.estimated_stepping_batches)
        config = {"scheduler": scheduler, "interval": getattr(scheduler, "interval", "epoch")}
        return {"optimizer": optimizer, "lr_scheduler": config | {"monitor": "val/loss"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Names the first tensor that does not fit, with both shapes, before torch lists them all."""
        check_fit(self.state_dict(), checkpoint["state_dict"], "the checkpoint")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps modules that were passed in Python out of the file, which stays loadable under `weights_only`."""
        hparams = checkpoint.get("hyper_parameters", {})
        checkpoint["hyper_parameters"] = {key: value for key, value in hparams.items() if isinstance(value, _PLAIN)}
