from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from preimage.processes import check_processes, check_slurm
from tests.conftest import PLAIN, Fails


def slurm(monkeypatch: pytest.MonkeyPatch, **variables: int | str) -> None:
    for name, value in ({"JOB_NAME": "train", "JOB_ID": "7", "NODEID": 0, "LOCALID": 0} | variables).items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))


def test_fewer_processes_than_devices_are_refused(
    fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(monkeypatch, NTASKS=1, PROCID=0)
    line = fails("fit", *PLAIN, "--trainer.devices=2", "--trainer.strategy=ddp")
    assert "1 processes were started for trainer.devices x trainer.num_nodes = 2 x 1" in line
    assert "--ntasks-per-node=2" in line
    assert not (tmp_path / "runs").exists()


def test_processes_that_know_nothing_of_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(monkeypatch, NTASKS=2, NTASKS_PER_NODE=2, PROCID=0, STEP_ID=0)
    with pytest.raises(ValueError, match=r"2 processes were started for .* = 1 x 1"):
        check_processes(Trainer(accelerator="cpu", devices=1, logger=False))


def test_a_process_that_would_wait_for_others_says_so_before(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(monkeypatch, NTASKS=2)
    assert "SLURM_NTASKS=2, and this process was not started by srun" in fails(
        "fit", *PLAIN, "--trainer.devices=2", "--trainer.strategy=ddp"
    )
    slurm(monkeypatch, NTASKS=2, PROCID=0)  # as in the script of a batch job
    with pytest.warns(UserWarning, match="may wait for the 1 others for ever; start it by srun"):
        check_slurm()
    slurm(monkeypatch, JOB_NAME="interactive")
    check_slurm()
