"""Run directories: how they are numbered, and which one a command goes on with."""

from pathlib import Path

from jsonargparse import Namespace

from callbacks.run_directory import slurm_job
from lightning_modules.checkpoints import load_checkpoint


def experiment_directory(config: Namespace) -> Path:
    """The folder of an experiment: `default_root_dir/name`."""
    name = config.name
    if name is None:
        name = Path(str(config.config[0])).stem if config.config else config.model.class_path.rsplit(".", 1)[-1]
    if config.model.get("init_args.encoder.init_args.weights") == "random":
        name += "_random"  # features of no trained network: nobody is to take them for those of one
    return Path(config.trainer.default_root_dir) / name


def _versions(folder: Path) -> list[Path]:
    """The runs of an experiment, oldest first."""
    runs = [path for path in folder.glob("version_*") if path.name.removeprefix("version_").isdigit()]
    return sorted(runs, key=lambda path: int(path.name.removeprefix("version_")))


def _own_runs(config: Namespace) -> list[Path]:
    """The runs that this command may go on with, newest first: that of `--run_dir`, else those of the experiment."""
    return [Path(config.run_dir)] if config.run_dir else _versions(experiment_directory(config))[::-1]


def newest_checkpoint(config: Namespace, which: str) -> Path:
    """The checkpoint of the newest run that has it."""
    for folder in _own_runs(config):
        path = folder / "checkpoints" / f"{which}.ckpt"
        if path.is_file():
            load_checkpoint(path)
            return path
    where = config.run_dir or f"{experiment_directory(config)}/version_*"
    raise FileNotFoundError(f"--ckpt_path {which}: there is no checkpoints/{which}.ckpt in {where}; train first")


def requeued_checkpoint(config: Namespace) -> str | None:
    """The checkpoint from which a requeued SLURM job goes on; None where it was stopped before there was one."""
    for folder in _own_runs(config):
        job, path = folder / "slurm_job", folder / "checkpoints/last.ckpt"
        if job.is_file() and job.read_text() == slurm_job() and path.is_file():
            return str(path)
    return None


def run_directory(config: Namespace, subcommand: str) -> Path:
    """Where a command writes: the folder of its checkpoint, that of `--run_dir`, or the next `version_N`."""
    if config.run_dir is not None:
        path = Path(config.run_dir)
        if subcommand == "fit" and config.ckpt_path is None and (path / "config.yaml").exists():
            raise FileExistsError(f"{path} holds a run: resume it with --ckpt_path last, or give another --run_dir")
        return path
    if config.ckpt_path is not None:
        path = Path(config.ckpt_path).parent.parent
        if (path / "config.yaml").is_file():
            return path  # a run that is resumed or measured keeps its directory
    experiment = experiment_directory(config)
    versions = _versions(experiment)
    number = int(versions[-1].name.removeprefix("version_")) + 1 if versions else 0
    return experiment / f"version_{number}"
