"""LightningCLI with a run directory per run, callbacks that are always on, and errors in one line."""

import logging
import os
import re
import sys
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from jsonargparse import ActionYesNo, Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

import datamodules  # noqa: F401  whose classes configs name
import lightning_modules  # noqa: F401
from callbacks import (
    REPLACED,
    AtomicCheckpointIO,
    BestCheckpoint,
    CPUPrecision,
    Curves,
    EffectiveBatch,
    LastCheckpoint,
    ModelMemory,
    ModelParts,
    PredictionWriter,
    ProgressBar,
    Provenance,
    RunDirectory,
    RunState,
    StopOnNaN,
)
from lightning_modules.base import EncoderModule
from lightning_modules.checkpoints import check_start, load_checkpoint
from preimage.beginning import Beginning, Start, experiment_directory
from preimage.checks import check_inside
from preimage.configs import check_class_paths, with_bases, with_run
from preimage.links import link
from preimage.locks import PATIENCE
from preimage.loggers import RunLogger, reporters, run_directory
from preimage.parsing import OneLineErrorParser
from preimage.processes import agree, check_processes, check_slurm
from preimage.retired import renewed_text
from preimage.runs import Run, as_list, stoppers
from preimage.trainer_options import check_trainer, settle_modes, settle_trainer

#: What acts on every run, by its name in `config.yaml`, where it can be changed.
_ALWAYS_MADE: dict[str, type[Callback]] = {
    "checkpoint": BestCheckpoint,
    "last_checkpoint": LastCheckpoint,
    "cpu_precision": CPUPrecision,
}
#: What acts on every run too, and can be switched off there.
ALWAYS_ON: dict[str, type[Callback]] = {
    "stop_on_nan": StopOnNaN,
    "curves": Curves,
    "predictions": PredictionWriter,
    "model_memory": ModelMemory,
    "effective_batch": EffectiveBatch,
    "provenance": Provenance,
    "progress_bar": ProgressBar,
}
#: Warnings whose advice does not hold here.
_IGNORED = (
    ".*does not have many workers.*",  # batches are made whole, in memory
    ".*multiple `ModelCheckpoint` callbacks.*",
    "Checkpoint directory .* exists and is not empty",  # a resumed run goes on in its directory
    ".*in eval mode at the start of training.*",  # a frozen encoder is meant to be
    ".*Total length of `list` across ranks is zero.*",  # no validation split
    ".*isinstance.treespec, LeafSpec.*",
    ".*is smaller than the logging interval.*",  # the loss is logged per epoch anyway
    ".*You are trying to `self.log.*barebones",
    ".*could not find the monitored key in the returned metrics.*",  # no validation, or none yet: then last.ckpt
    ".*args parameter is intended to run from within Python.*",  # as `atlas` and `label-efficiency` do
)


class PreimageCLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict` of any model on any data, from YAML files.

    Args:
        args: The arguments, by default those of the process.
    """

    def __init__(self, args: list[str] | None = None) -> None:
        logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_as_flags)
        for message in _IGNORED:
            warnings.filterwarnings("ignore", message)
        words = [renewed_text(arg) for arg in with_bases(with_run(sys.argv[1:] if args is None else args))]
        commands = LightningCLI.subcommands()
        # The options of the others take as long again as those of the one that is asked for.
        asked = {name: commands[name] for name in words[:1] if name in commands} or commands
        self.subcommands = lambda: asked  # type: ignore[method-assign]
        exit_code = 1
        with ExitStack() as self._held:  # the lock of the run
            try:
                super().__init__(
                    parser_class=OneLineErrorParser,
                    parser_kwargs={"prog": "preimage"},
                    subclass_mode_model=True,
                    subclass_mode_data=True,
                    save_config_callback=None,  # RunDirectory writes it
                    seed_everything_default=0,
                    trainer_defaults={"default_root_dir": "runs", "log_every_n_steps": 50},
                    auto_configure_optimizers=False,  # the modules do it, so that frozen parts stay out
                    args=words,
                )
                exit_code = 0
            finally:  # not at the end of the fit: the test still logs
                for reporter in reporters(self.trainer) if hasattr(self, "trainer") else ():
                    reporter.close(exit_code)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: a model that is copied for an average of weights holds it, through what makes its optimiser."""
        return self

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what is ours to every command."""
        parser.add_argument(
            "--name", type=str | None, help="Name of the experiment; runs go to `default_root_dir/name/version_N`."
        )
        parser.add_argument(
            "--run_dir",
            type=str | None,
            help="Run directory, instead of the next `version_N`. `--ckpt_path last` and `best` are those of this run,"
            " or of the newest of this configuration; `auto` begins where there is none, and leaves what is finished.",
        )
        parser.add_argument(
            "--test_after_fit",
            action=ActionYesNo,
            default=False,
            help="After `fit`, test the best checkpoint (the last one where there is no validation).",
        )
        for name, kind in _ALWAYS_MADE.items():
            parser.add_lightning_class_args(kind, name)
        for name, kind in ALWAYS_ON.items():
            default, does = {"class_path": f"callbacks.{kind.__name__}"}, str(kind.__doc__).split("\n")[0]
            parser.add_argument(f"--{name}", type=kind | None, default=default, help=f"{does} null for none.")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults({"weights_only": True})
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments, refuses what must not be called, and gives those that are one number the same value."""
        super().parse_arguments(parser, args)
        try:
            check_class_paths(self.config[self.config.subcommand])
        except ValueError as error:
            parser.error(str(error))
        link(self.config[self.config.subcommand], args)

    def _parse_ckpt_path(self) -> None:
        """Leaves the config alone: Lightning would put the checkpoint's hyperparameters over the user's flags."""

    def instantiate_classes(self) -> None:
        """Settles the run directory, then builds everything with it; `config.yaml` gets the config as it was given."""
        given = self.config
        config = given[given.subcommand]
        written = config.clone()  # in which a mode that follows from the metric stays open
        settle_modes(config)
        check_trainer(config.trainer, config.checkpoint)
        # Without what belongs to this start alone, so that the file trains the same model anew.
        written.run_dir = written.ckpt_path = None
        self.config_text = self._parser(given.subcommand).dump(written, skip_none=False)
        self.start = self._begin(config, given.subcommand)
        config.ckpt_path, self.run_dir = self.start.checkpoint, Path(self.start.folder)
        if self.start.finished:
            rank_zero_info(self.start.finished)
            if not self.start.to_test:
                self.subcommand = None  # for Lightning to run
                return
        if given.subcommand != "fit" and config.ckpt_path is None:
            rank_zero_warn(f"{given.subcommand} without --ckpt_path: the weights are those the model starts with")
        self.config = given.clone()
        _place_loggers(self.config[given.subcommand], self.run_dir, given.subcommand)
        for theirs, ours in REPLACED.items():
            self.parser.add_instantiator(partial(_in_place_of, ours), theirs, subclasses=False)
        super().instantiate_classes()
        if config.ckpt_path is not None and isinstance(self.model, EncoderModule):  # others may make parts later
            loop = f"{given.subcommand}_loop"
            check_start(config.ckpt_path, self.model, loop, getattr(self.trainer, loop).state_dict())

    def _begin(self, config: Namespace, command: str) -> Start:
        """The run of this command, on which all its processes agree."""
        check_slurm()
        if config.checkpoint.filename is not None:
            check_inside("--checkpoint.filename", config.checkpoint.filename)
        self.beginning = Beginning(command, config, self.config_text, self._held)
        chosen, first = agree(self.beginning.start, config.trainer.num_nodes, self._held)
        start = Start(*chosen)
        if not first:
            self._held.enter_context(Run(start.folder).lock(PATIENCE, shared=True))
        return start

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds the run's logger and the callbacks that are always on."""
        config = self._get(self.config_init, "trainer")
        loggers = [logger for logger in as_list(config.logger) if not isinstance(logger, bool)]
        kwargs["logger"] = [RunLogger(self.run_dir), *loggers]
        plugins = as_list(config.plugins)
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        named = [self._get(self.config_init, name) for name in (*_ALWAYS_MADE, *ALWAYS_ON)]
        ours = [RunDirectory(self.config_text), RunState(stoppers(self.beginning.settings["trainer"]))]
        ours += [ModelParts()]
        options = {**config, **kwargs}
        always = settle_trainer(options, [*filter(None, named), *ours])
        try:
            trainer = self._instantiate_trainer(options, always)
        except TypeError as error:  # Lightning's answer to devices that are no number, among others
            raise ValueError(f"trainer: {error}") from error
        check_processes(trainer)
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs the command; memory that does not suffice is put down to the batch size, a failed start to its file."""
        try:
            if self.start.finished:
                self.after_fit()
            else:
                super()._run_subcommand(subcommand)
        except (TypeError, KeyError, AttributeError, IndexError) as error:
            path = self._get(self.config, "ckpt_path")
            before = load_checkpoint(path).get("global_step", 0) if path and subcommand == "fit" else -1
            if self.trainer.global_step > before:  # it has gone on
                raise
            raise ValueError(
                f"{path} is damaged, or of another optimizer or version: the first step after it failed with"
                f" {type(error).__name__}: {error}"
            ) from error
        except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
            text = str(error)
            if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in text:
                raise
            size = getattr(self.datamodule, "batch_size", None)
            half = f"{max(1, size // 2)} --trainer.accumulate_grad_batches 2" if size else "HALF"
            raise MemoryError(
                f"out of memory with data.batch_size={size}: try --data.batch_size {half}, --trainer.precision"
                f" bf16-mixed, or a smaller model ({text.split('. ')[0][:120] or 'MemoryError'})"
            ) from error

    def before_fit(self) -> None:
        """Says where the run goes."""
        if run_directory(self.trainer) is not None:
            rank_zero_info(f"run directory: {self.run_dir}")

    def after_fit(self) -> None:
        """Tests the run if asked to, and lists its pictures."""
        if self._get(self.config, "test_after_fit"):
            # Not those of the user's own; the best one, and the last one without a validation.
            ours = [c for c in self.trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint | LastCheckpoint)]
            saved = [callback.best_model_path for callback in ours]
            saved += [str(Run(self.run_dir).kept)] if self.start.finished else []
            path = next((path for path in saved if path), None)
            if path is None:
                rank_zero_info("--test_after_fit: without a checkpoint, of the weights as the training has left them")
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=path, weights_only=True)
        for picture in sorted(self.run_dir.glob("images/**/*.png")) if self.trainer.is_global_zero else ():
            print(picture)


def _in_place_of(ours: type[Callback], theirs: type[Callback], *args: Any, **kwargs: Any) -> Callback:
    return ours(*args, **kwargs)


def _as_flags(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning's holds here; what it says of the Trainer's arguments becomes flags."""
    text = record.getMessage()
    record.msg, record.args = re.sub(r"`Trainer\((\w+)=([^)]*)\)`", r"--trainer.\1=\2", text), ()
    return not re.search("Tip:|Detected KeyboardInterrupt|barebones=True|^Loading `train_", text)


def _place_loggers(config: Namespace, run_dir: Path, command: str) -> None:
    """Puts the files of TensorBoard and W&B into the run directory, which relative `save_dir`s are relative to."""
    for logger in as_list(config.trainer.logger):
        if not isinstance(logger, Namespace):
            continue
        init_args = logger.get("init_args", Namespace())
        init_args["save_dir"] = str(run_dir / (init_args.get("save_dir") or ""))
        if logger.class_path.endswith("TensorBoardLogger"):
            logger.class_path = "preimage.loggers.TensorBoardRunLogger"  # Lightning's own stops the run when it fails
        elif logger.class_path.endswith(("WandbLogger", "WandbRunLogger")):
            logger.class_path = "preimage.loggers.WandbRunLogger"
            _describe_wandb_run(init_args, config, run_dir, command)


def _describe_wandb_run(init_args: Namespace, config: Namespace, run_dir: Path, command: str) -> None:
    """Keeps W&B's files inside the run, names the run, and continues that of the checkpoint, if it has one."""
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        os.environ.setdefault(variable, str(run_dir.absolute() / "wandb"))
    resumed = load_checkpoint(config.ckpt_path).get("wandb_id") if config.ckpt_path else None
    described = {
        "name": "/".join(run_dir.parts[-2:]),
        "group": experiment_directory(config).name,
        "job_type": "fit" if resumed else command,
        "tags": [part.class_path.rsplit(".", 1)[-1] for part in (config.model, config.data)],
        "id": None if "WANDB_RUN_ID" in os.environ else resumed,
    }
    for key, value in described.items():
        if init_args.get(key) is None:
            init_args[key] = value
