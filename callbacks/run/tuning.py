"""Searches for a learning rate or a batch size before a training, whose `config.yaml` says what came out."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_modules.base import EncoderModule


class _Search(Callback):
    """Knows whether the run is a resumed one, which goes on with what came out and searches no more."""

    resumed = False

    def state_dict(self) -> dict[str, Any]:
        return {"found": self.result()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # A search, too, restores a checkpoint at its end, when there are optimisers already.
        if trainer.state.fn == "fit" and not trainer.optimizers:
            self.resumed = True
            result = checkpoint["callbacks"].get(self.state_key, {}).get("found")
            if result is not None:
                self.take(trainer, result)

    def result(self) -> float | None:
        raise NotImplementedError

    def take(self, trainer: Trainer, result: Any) -> None:
        raise NotImplementedError


class LearningRateSearch(_Search, LearningRateFinder):
    """Takes the place of Lightning's LearningRateFinder, whose result a schedule would write over at its first step."""

    def result(self) -> float | None:
        """The learning rate, if there was a search."""
        return None if self.optimal_lr is None else self.optimal_lr.suggestion()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Searches, and makes optimiser and schedule anew with what came out."""
        if self.resumed or not isinstance(pl_module, EncoderModule):
            return
        pl_module.on_fit_start()  # codes are cached and standardised before the search
        super().on_fit_start(trainer, pl_module)
        if pl_module.learning_rate is not None:
            trainer.strategy.setup_optimizers(trainer)
            rank_zero_info(f"LearningRateFinder: {pl_module.learning_rate:g}")

    def take(self, trainer: Trainer, result: Any) -> None:
        """Goes on with a learning rate."""
        trainer.lightning_module.learning_rate = result

    def record(self, trainer: Trainer, config: dict[str, Any]) -> None:
        """Writes the learning rate into a configuration."""
        lr = getattr(trainer.lightning_module, "learning_rate", None)
        if lr is not None:
            model = _init_args(config["model"])
            model["optimizer"] = model.get("optimizer") or {"class_path": "torch.optim.Adam"}
            _init_args(model["optimizer"])["lr"] = float(lr)


class BatchSizeSearch(_Search, BatchSizeFinder):
    """Takes the place of Lightning's BatchSizeFinder; it searches for a training, and not at every test again."""

    on_validation_start = Callback.on_validation_start
    on_test_start = Callback.on_test_start
    on_predict_start = Callback.on_predict_start

    def result(self) -> int | None:
        """The batch size, if there was a search."""
        return self.optimal_batch_size

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str | None = None) -> None:
        """Looks whether there is a batch size to search."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Searches."""
        if not self.resumed:
            super().on_fit_start(trainer, pl_module)

    def take(self, trainer: Trainer, result: Any) -> None:
        """Goes on with a batch size."""
        setattr(trainer.datamodule, self._batch_arg_name, result)  # type: ignore[attr-defined]

    def record(self, trainer: Trainer, config: dict[str, Any]) -> None:
        """Writes the batch size into a configuration."""
        _init_args(config["data"])[self._batch_arg_name] = getattr(trainer.datamodule, self._batch_arg_name)  # type: ignore[attr-defined]


def _init_args(part: dict[str, Any]) -> dict[str, Any]:
    part["init_args"] = part.get("init_args") or {}
    options: dict[str, Any] = part["init_args"]
    return options
