from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from callbacks.run.scale import check_processes, check_slurm
from tests.conftest import PLAIN, Fails, Run


def announced(caplog: pytest.LogCaptureFixture) -> str:
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("a step: ")]
    return line


def test_a_fit_says_what_a_step_takes(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run("fit", *PLAIN, "--trainer.accumulate_grad_batches=3", "--trainer.max_epochs=2", "--model.encoder_lr=0.001")
    line = announced(caplog)
    assert "batch of 32 x 1 processes x 3 accumulated = 96 images," in line
    assert "learning rate 0.008, 0.001 (OneCycle)" in line
    assert "2 steps in 2 epochs" in line


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--trainer.accumulate_grad_batches=64"], "batch of 32 x 1 processes x 3 accumulated = 96 images,"),
        (["--trainer.accumulate_grad_batches=2"], "x 2 accumulated = 64 images (the last of an epoch: 32),"),
        (["--data.val_size=3900", "--trainer.limit_train_batches=1.0"], "x 1 accumulated = 32 images (the last of an"),
        (["--data.val_size=3900", "--data.batch_size=256"], "batch of 100 x 1 processes x 1 accumulated = 100 images,"),
    ],
)
def test_no_more_images_are_announced_than_there_are(
    run: Run, caplog: pytest.LogCaptureFixture, flags: list[str], text: str
) -> None:
    with caplog.at_level("INFO"):
        run("fit", *PLAIN, *flags)
    assert text in announced(caplog)


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
