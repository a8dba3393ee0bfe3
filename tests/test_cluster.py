"""The scripts for clusters, with a stand-in for srun."""

import os
import subprocess
from pathlib import Path

from tests.conftest import ROOT


def submit(folder: Path, *args: str, **variables: str) -> list[str]:
    """The command that a batch job gives to srun."""
    (folder / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (folder / "srun").chmod(0o755)
    slurm = {"JOB_ID": "7", "NNODES": "2", "NTASKS_PER_NODE": "4", "CPUS_PER_TASK": "3"} | variables
    environment = os.environ | {f"SLURM_{key}": value for key, value in slurm.items()}
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    command = ["bash", str(ROOT / "cluster/slurm.sbatch"), *args]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_job_goes_on_with_its_own_run_after_a_requeue(tmp_path: Path) -> None:
    expected = ["preimage", "fit", "--config", "a b.yaml", "--run_dir", "runs/slurm/7", "--ckpt_path", "auto"]
    assert submit(tmp_path, "--config", "a b.yaml") == [
        *expected,
        *["--trainer.num_nodes", "2", "--trainer.devices", "4"],
    ]


def test_each_task_of_an_array_has_its_run_and_its_seed(tmp_path: Path) -> None:
    command = submit(tmp_path, "--seed_everything", "{}", "--name=s{}", ARRAY_JOB_ID="5", ARRAY_TASK_ID="3")
    assert command[2:7] == ["--seed_everything", "3", "--name=s3", "--run_dir", "runs/slurm/5_3"]


def test_the_job_asks_for_the_signal_and_to_be_requeued() -> None:
    lines = (ROOT / "cluster/slurm.sbatch").read_text().splitlines()
    asked = [line.split(" # ")[0].removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    assert {"--signal=SIGUSR1@90", "--requeue", "--nodes=2", "--open-mode=append"} <= set(asked)
