import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tests.conftest import QUICK, Run


class Signal(Callback):
    """The time of one process is nearly up at its third step."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank == trainer.world_size - 1 and trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 5:
            raise RuntimeError("killed")


@pytest.mark.parametrize("works", [True, False])
def test_all_processes_save_after_the_same_step_and_the_job_is_requeued(
    works: bool, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n' + ("" if works else "echo no such job >&2; exit 1\n")
    (tmp_path / "scontrol").write_text(script)
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in {"JOB_ID": "9", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    flags = ["--trainer.limit_train_batches=8", "--trainer.callbacks+=Requeue", "--trainer.callbacks.every_n_steps=2"]
    flags += [f"--trainer.callbacks+={__name__}.Signal"]
    flags += ["--trainer.devices=2", "--trainer.strategy=ddp_fork"] if works else []
    with pytest.raises(SystemExit):
        run("fit", *QUICK, *flags)
    path = tmp_path / "runs/quickstart/version_0/checkpoints/last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 4
    assert (tmp_path / "called").read_text() == "requeue 7_2\n"
