"""How arguments are read where jsonargparse, or the class that takes them, would guess what a user means."""

from collections.abc import Iterator
from pydoc import locate
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_modules.metrics import direction
from preimage.checks import check_inside, check_range
from preimage.runs import as_list

#: What compares a metric with its best value so far, and takes `min` for every metric that no mode is given for.
FOLLOWERS = (EarlyStopping, ModelCheckpoint, ReduceLROnPlateau)

#: Options of the trainer that `barebones` rules out.
_NOT_BARE = ["enable_checkpointing", "enable_progress_bar", "enable_model_summary", "log_every_n_steps"]
_NOT_BARE += ["num_sanity_val_steps", "profiler"]
#: Where numbers must be that Lightning does not look at; it divides by some, and takes others for something else.
_RANGES = {
    "[0, inf)": ("gradient_clip_val", "log_every_n_steps", "overfit_batches", "min_epochs", "min_steps"),
    "[1, inf)": ("accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes"),
    "[-1, inf)": ("max_epochs", "max_steps", "num_sanity_val_steps"),
}


def settle_modes(config: Namespace) -> None:
    """Fills into a configuration whether more or less of a metric is better, where the user has not said.

    Raises:
        ValueError: Nothing is known of the metric.
    """
    for name, options in [("checkpoint", config.checkpoint), *_followers(config)]:
        metric = options.get("monitor", "val/loss")  # torch's own ReduceLROnPlateau names none
        known = direction(metric) if metric else "min"
        given = options.get("mode")
        if given is None:
            if known is None:
                raise ValueError(
                    f"{name} monitors {metric}, and whether more or less of it is better is not known: set its mode,"
                    " min or max"
                )
            options["mode"] = known
        elif metric and known not in (None, given):
            rank_zero_warn(f"{name}: mode {given} is kept as it was given, though the best {metric} is its {known}")


def settle_trainer(options: dict[str, Any], ours: list[Callback]) -> list[Callback]:
    """Settles options of the trainer that rule each other out: what switches something off prevails.

    Args:
        options: Arguments of the trainer, which are changed.
        ours: The callbacks that are always on, our progress bar among them; those are returned that stay.

    Raises:
        ValueError: A user's checkpoints would leave the run, or write over its own.
    """
    users = as_list(options["callbacks"])
    for callback in users:
        if isinstance(callback, ModelCheckpoint):
            _settle_checkpoint(callback)
    barebones = options["barebones"]
    unwanted: list[type[Callback]] = []
    if barebones:  # measures the trainer's own speed: nothing is saved, logged or shown
        rank_zero_info("trainer.barebones: no metrics, checkpoints, pictures, config.yaml, checks or progress bar")
        ours = []
        options |= dict.fromkeys(_NOT_BARE) | {"logger": False, "detect_anomaly": False}
        unwanted.append(EarlyStopping)
    if barebones or options["enable_checkpointing"] is False:
        unwanted.append(Checkpoint)
    if barebones or options["enable_progress_bar"] is False:
        unwanted.append(ProgressBar)
    options["callbacks"] = [callback for callback in users if not isinstance(callback, tuple(unwanted))]
    for kind in (ProgressBar, ModelSummary):
        if any(isinstance(callback, kind) for callback in options["callbacks"]):
            unwanted.append(kind)  # in favour of the user's
    if options["enable_model_summary"] is False:
        unwanted.append(ModelSummary)
    options["enable_model_summary"] = False  # which would add Lightning's
    return [callback for callback in ours if not isinstance(callback, tuple(unwanted))]


def _settle_checkpoint(users: ModelCheckpoint) -> None:
    if users.filename is not None:
        check_inside("ModelCheckpoint.filename", users.filename)
    if users.dirpath is None and users.filename in ("best", "last"):
        raise ValueError(
            f"ModelCheckpoint.filename={users.filename} is what --{'last_' * (users.filename == 'last')}checkpoint"
            " writes in this folder: give another name"
        )
    if users.dirpath is None and users.save_last:
        rank_zero_info("ModelCheckpoint.save_last is left to --last_checkpoint, which writes last.ckpt anyway")
        users.save_last = None


def _followers(part: Any) -> Iterator[tuple[str, Namespace]]:
    """The name and the options of every class in a configuration that follows a metric."""
    if isinstance(part, list):
        for item in part:
            yield from _followers(item)
    elif isinstance(part, Namespace):
        kind = locate(part.class_path) if isinstance(part.get("class_path"), str) else None
        if isinstance(kind, type) and issubclass(kind, FOLLOWERS) and part.get("init_args") is not None:
            yield kind.__name__, part.init_args
        for item in vars(part).values():
            yield from _followers(item)


def check_trainer(trainer: Namespace, checkpoint: Namespace) -> None:
    """Looks at the numbers of the trainer and of the best checkpoint that Lightning does not look at.

    Raises:
        ValueError: One is out of range, or no checkpoint would ever be written.
    """
    for interval, names in _RANGES.items():
        check_range("trainer", interval, **{name: trainer.get(name) for name in names})
    step = trainer.get("val_check_interval")
    if isinstance(step, int | float) and not step > 0:
        raise ValueError(
            f"trainer.val_check_interval={step} must be above 0: to do without validation, set"
            " trainer.limit_val_batches 0"
        )
    schedule = {name: checkpoint.get(name) for name in ("every_n_train_steps", "every_n_epochs")}
    check_range("checkpoint", "[0, inf)", **schedule)
    check_range("checkpoint", "[-1, inf)", save_top_k=checkpoint.get("save_top_k"))
    saves = any(schedule.values()) or 0 not in schedule.values() or checkpoint.get("train_time_interval") is not None
    if not saves and trainer.get("enable_checkpointing") is not False:
        raise ValueError(
            "checkpoint.every_n_epochs=0 leaves nothing to save: set it to 1, or trainer.enable_checkpointing to false"
        )
