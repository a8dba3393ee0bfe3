"""The checkpoints of the best states."""

import os
import shutil
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_modules.metrics import direction
from preimage.files import write_atomically

from .averaging import AveragedWeights


class BestCheckpoint(ModelCheckpoint):
    """Keeps the states that are best by a metric; `best.ckpt` is the best of them, whatever the others are called."""

    def __init__(
        self,
        monitor: str | None = "val/loss",
        mode: Literal["min", "max"] | None = None,
        save_top_k: int = 1,
        filename: str | None = "best",
        auto_insert_metric_name: bool = False,
        enable_version_counter: bool = False,
        **kwargs: Any,
    ) -> None:
        """Sets what is best, and how many states are kept.

        Args:
            monitor: The metric; null for the newest state.
            mode: Whether less (`min`) or more (`max`) of it is better; by default what holds for the metric.
            save_top_k: How many states are kept; -1 for all, 0 for none.
            filename: Name of each, with `{epoch}`, `{step}` or `{val/loss:.4f}` in it; by default `best`, and where
                several are kept, epoch, step and metric.
            auto_insert_metric_name: Write `epoch=3` for `{epoch}`, and not `3`.
            enable_version_counter: Leave a file of the same name alone, and add `-v1` to the name.
            kwargs: When to save, see Lightning's `ModelCheckpoint`.
        """
        if filename == "last":
            raise ValueError("checkpoint.filename=last is the file of the newest state: give another name")
        if kwargs.get("dirpath") is not None:
            raise ValueError(
                f"checkpoint.dirpath={kwargs['dirpath']}: the checkpoints of a run are in its folder, where --ckpt_path"
                " looks for them: choose that by --run_dir or --trainer.default_root_dir"
            )
        if filename in (None, "best"):
            metric = "" if monitor is None else f"-{monitor.replace('/', '_')}={{{monitor}:.4f}}"
            filename = "best" if save_top_k in (0, 1) else f"epoch={{epoch}}-step={{step}}{metric}"
        super().__init__(
            monitor=monitor,
            mode=mode or direction(monitor or "") or "min",
            save_top_k=save_top_k,
            filename=filename,
            auto_insert_metric_name=auto_insert_metric_name,
            enable_version_counter=enable_version_counter,
            **kwargs,
        )
        try:
            self.format_checkpoint_name({})
        except (ValueError, LookupError, AttributeError) as error:
            raise ValueError(
                f"checkpoint.filename={filename} is no pattern ({error}): write it as {{epoch}}-{{val/loss:.4f}}"
            ) from error
        self._of_average = False  # whether what is kept are averages of weights

    @property
    def _best(self) -> Path:
        return Path(str(self.dirpath)) / "best.ckpt"

    @property
    def _legacy_state_key(self) -> str:  # type: ignore[override]
        # Under which checkpoints hold it that were written by a ModelCheckpoint.
        return self.state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def state_dict(self) -> dict[str, Any]:
        """What was kept so far."""
        return super().state_dict() | {"of_average": self._of_average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what was kept so far, also where the run's folder was moved since."""
        before, here = state_dict["dirpath"], str(self.dirpath)
        if before != here and self._best.is_file():

            def moved(path: str) -> str:
                return os.path.join(here, os.path.relpath(path, before)) if path else path

            paths = {key: moved(state_dict[key]) for key in ("best_model_path", "kth_best_model_path")}
            scores = {moved(path): score for path, score in state_dict["best_k_models"].items()}
            state_dict = state_dict | paths | {"dirpath": self.dirpath, "best_k_models": scores}
        super().load_state_dict(state_dict)
        self._of_average = state_dict.get("of_average", False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps, of what a resumed run has kept so far, as many as are wanted now."""
        super().on_train_start(trainer, pl_module)
        best = str(self._best)
        if self.filename != "best" and best in self.best_k_models:  # it is to follow the best from now on
            other = self._best.with_name("best_before.ckpt")
            self.best_k_models[str(other)] = self.best_k_models.pop(best)
            if trainer.is_global_zero:
                write_atomically(other, lambda file: _link(best, file))
        if not self.best_k_models:
            return
        ranked = sorted(self.best_k_models.items(), key=lambda item: float(item[1]), reverse=self.mode == "max")
        self.best_k_models = dict(ranked if self.save_top_k < 0 else ranked[: self.save_top_k])
        self.best_model_path, self.best_model_score = ranked[0]
        if len(self.best_k_models) == self.save_top_k > 0:
            self.kth_best_model_path, self.kth_value = ranked[self.save_top_k - 1]

    def _get_metric_interpolated_filepath_name(
        self, monitor_candidates: dict[str, Tensor], trainer: Trainer, del_filepath: str | None = None
    ) -> str:
        """Gives no two states that are kept the same file; one that a killed run has left is written over."""
        path = super()._get_metric_interpolated_filepath_name(monitor_candidates, trainer, del_filepath)
        version = self.STARTING_VERSION
        while path in self.best_k_models:
            path = self.format_checkpoint_name(monitor_candidates, ver=version)
            version += 1
        return path

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """Compares averages of weights, once there are any, with each other alone."""
        outdated: list[str] = []
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        if not self._of_average and any(isinstance(one, AveragedWeights) and one.averages for one in callbacks):
            self._of_average = True
            outdated, self.best_k_models = list(self.best_k_models), {}
        super()._save_topk_checkpoint(trainer, monitor_candidates)
        for path in outdated if self.save_top_k > 0 else ():
            if path not in self.best_k_models:
                self._remove_checkpoint(trainer, path)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero and Path(self.best_model_path) != self._best and os.path.isfile(self.best_model_path):
            write_atomically(self._best, lambda file: _link(self.best_model_path, file))


def _link(source: str, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
