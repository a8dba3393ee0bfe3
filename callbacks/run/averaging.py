"""Averages of weights over the steps of a training: what is averaged is what is validated, kept and tested."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor, nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from preimage.private_api import BatchNorm


class AveragedWeights(WeightAveraging):
    """Takes the place of Lightning's WeightAveraging, which averages the weights of all steps.

    As long as there is no average, the weights themselves are validated and kept. Where the statistics of a batch norm
    are not averaged too, or belong to weights far from the average, a pass over the training images renews them.
    """

    renews_statistics = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._kwargs.get("avg_fn") is None:
            self._kwargs = {"multi_avg_fn": partial(_average, get_swa_multi_avg_fn())}
        self._aside: list[Tensor] | None = None  # the weights themselves, while the module holds the average
        self._outdated = False  # whether the statistics are those of another average

    @property
    def _average(self) -> AveragedModel:
        assert self._average_model is not None  # since the setup of every fit
        return self._average_model

    @property
    def averages(self) -> bool:
        """Whether there is an average yet."""
        return self._average_model is not None and bool(self._average_model.n_averaged > 0)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Moves the average to where the module has been moved by now; float64 stays float64."""
        if sum(isinstance(one, AveragedWeights) for one in trainer.callbacks) > 1:  # type: ignore[attr-defined]
            raise ValueError("trainer.callbacks: one average of weights at a time, each would train on by the other's")
        dtype = torch.promote_types(pl_module.dtype, torch.float32)  # type: ignore[arg-type]
        self._average.to(device=self._device or pl_module.device, dtype=dtype)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Averages after a step, and at the end of an epoch before its validation."""
        before = self._latest_update_step, self._latest_update_epoch
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)
        if (self._latest_update_step, self._latest_update_epoch) != before:
            self._outdated = self.renews_statistics
            for ours, theirs in zip(self._average.module.buffers(), pl_module.buffers(), strict=True):
                if not ours.is_floating_point():  # a hash or a count has no average
                    ours.copy_(theirs)

    on_train_epoch_end = Callback.on_train_epoch_end  # what is kept now has been validated
    on_validation_epoch_end = Callback.on_validation_epoch_end  # other callbacks still draw and measure by the average

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Has the average validated, if there is one."""
        if trainer.state.fn == "fit" and self.averages:
            self._put_in_place(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes on with the weights themselves."""
        if trainer.state.fn == "fit" and self._aside is not None:
            for (_, ours), weight in zip(_tensors(pl_module), self._aside, strict=True):
                ours.copy_(weight)
            self._aside = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the average in the module."""
        if self.averages:
            self._put_in_place(trainer, pl_module)

    def _put_in_place(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the average into the module; Lightning exchanges the two, and so rounds it to the module's type."""
        self._renew(trainer, pl_module)
        self._aside = [weight.clone() for _, weight in _tensors(pl_module)]
        for (_, ours), (_, average) in zip(_tensors(pl_module), _tensors(self._average.module), strict=True):
            ours.copy_(average)

    def _renew(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the statistics of all batch norms that train from one pass over the training images."""
        if not self._outdated:
            return
        self._outdated = False
        model, device = self._average.module.train(), next(self._average.module.parameters()).device
        norms = {part: part.momentum for part in model.modules() if isinstance(part, BatchNorm) and part.training}
        data: Any = getattr(trainer, "datamodule", None)
        if not norms or data is None:
            return
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
        model.to(pl_module.device)
        devices = [] if pl_module.device.type == "cpu" else [pl_module.device]
        with torch.no_grad(), torch.random.fork_rng(devices), trainer.precision_plugin.train_step_context():
            torch.manual_seed(0)  # the same after a resumption, and the training's own numbers go on
            batches = itertools.islice(data.train_dataloader(), int(trainer.num_training_batches))
            for index, batch in enumerate(batches):
                model.training_step(trainer.strategy.batch_to_device(batch), index)  # type: ignore[operator]
        for norm, momentum in norms.items():
            norm.momentum = momentum
        model.to(device)

    def state_dict(self) -> dict[str, Any]:
        """When the average was last updated."""
        return super().state_dict() | {"latest_update_epoch": self._latest_update_epoch, "outdated": self._outdated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it; Lightning's own callbacks keep less."""
        self._latest_update_step = state_dict.get("latest_update_step", 0)
        self._latest_update_epoch = state_dict.get("latest_update_epoch", -1)
        self._outdated = state_dict.get("outdated", self.renews_statistics)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the average as the weights, and beside it the weights with which a resumed training goes on."""
        if not self.averages:
            return
        if self._aside is not None:
            weights = zip((name for name, _ in _tensors(pl_module)), self._aside, strict=True)
            checkpoint["state_dict"] = {name: weight for name, weight in weights if name in checkpoint["state_dict"]}
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes average and weights; a checkpoint without an average holds the weights alone."""
        if trainer.state.fn == "fit" and "averaging_state" in checkpoint:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class AveragedEMA(AveragedWeights, EMAWeightAveraging):
    """Takes the place of Lightning's EMAWeightAveraging; weights that do not change keep every bit."""

    def __init__(self, *args: Any, decay: float = 0.999, use_buffers: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, decay=decay, use_buffers=use_buffers, **kwargs)
        self._kwargs = {"multi_avg_fn": partial(_average, get_ema_multi_avg_fn(decay))}
        self.renews_statistics = not use_buffers


class AveragedSWA(AveragedWeights):
    """Takes the place of Lightning's StochasticWeightAveraging (Izmailov et al. 2018, arXiv 1803.05407).

    From an epoch on, the learning rate is annealed to a constant, and the weights at the end of every epoch averaged.
    """

    def __init__(
        self,
        swa_lrs: float | list[float],
        swa_epoch_start: int | float = 0.8,
        annealing_epochs: int = 10,
        annealing_strategy: Literal["cos", "linear"] = "cos",
        avg_fn: Any = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(device, use_buffers=False, avg_fn=avg_fn)
        rates = swa_lrs if isinstance(swa_lrs, list) else [swa_lrs]
        share = isinstance(swa_epoch_start, float)
        if min(rates, default=0) <= 0 or not (0 <= swa_epoch_start <= 1 if share else swa_epoch_start >= 1):
            raise ValueError(
                f"StochasticWeightAveraging: swa_lrs={swa_lrs} must be above 0, swa_epoch_start={swa_epoch_start} the"
                " number of an epoch from 1 on, or a share of them from 0.0 to 1.0"
            )
        self.swa_lrs = swa_lrs
        self.swa_epoch_start = swa_epoch_start
        self.annealing = {"anneal_epochs": annealing_epochs, "anneal_strategy": annealing_strategy}
        self._anneals = False
        self._start = 0

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether an epoch belongs to the average."""
        return epoch_idx is not None and epoch_idx >= self._start

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes on annealing, if a resumed run has begun to; the schedule's state is loaded after this."""
        super().on_fit_start(trainer, pl_module)
        start, epochs = self.swa_epoch_start, trainer.max_epochs or -1
        if isinstance(start, float) and epochs < 0:
            raise ValueError(
                f"StochasticWeightAveraging: swa_epoch_start={start} is a share of trainer.max_epochs, which is not"
                " set: set it, or give the number of an epoch"
            )
        self._start = max(int(start * epochs if isinstance(start, float) else start) - 1, 0)
        if self._anneals:
            self._anneal(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to anneal the learning rate."""
        if trainer.current_epoch >= self._start and not self._anneals:
            self._anneals = True
            rank_zero_info(f"StochasticWeightAveraging: averages from epoch {trainer.current_epoch + 1} on")
            self._anneal(trainer)

    def _anneal(self, trainer: Trainer) -> None:
        schedule = SWALR(trainer.optimizers[0], self.swa_lrs, **self.annealing)  # type: ignore[arg-type]
        trainer.strategy.lr_scheduler_configs[:] = [LRSchedulerConfig(schedule)]

    def state_dict(self) -> dict[str, Any]:
        """When the average was last updated, and whether the learning rate is annealed."""
        return super().state_dict() | {"anneals": self._anneals}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it."""
        super().load_state_dict(state_dict)
        self._anneals = state_dict.get("anneals", False)


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """All weights and buffers by name."""
    weights = module.named_parameters(remove_duplicate=False)
    return [(name, value.data) for name, value in (*weights, *module.named_buffers(remove_duplicate=False))]


def _average(average: Callable[..., None], averages: Sequence[Tensor], weights: Sequence[Tensor], count: Any) -> None:
    """Averages weights of one type in that of their average, which is float32 where they have fewer digits."""
    if averages[0].is_floating_point():
        average(averages, [weight.to(mean.dtype) for mean, weight in zip(averages, weights, strict=True)], count)
