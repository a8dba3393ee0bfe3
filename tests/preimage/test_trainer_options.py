"""Options of the trainer, which work by themselves and beside each other, from the first step to the test."""

from pathlib import Path

import pytest
from lightning.pytorch.callbacks.progress.rich_progress import _RICH_AVAILABLE

from tests.conftest import QUICK, Fails, Run

TQDM = "--trainer.callbacks+=TQDMProgressBar"
BARE = ["--trainer.barebones=true", TQDM, "--trainer.callbacks+=ModelCheckpoint", "--trainer.profiler=simple"]


@pytest.mark.parametrize(
    ("flags", "files"),
    [
        ([TQDM], {"best.ckpt", "last.ckpt"}),
        pytest.param(
            ["--trainer.callbacks+=callbacks.ProgressBar"], {"best.ckpt", "last.ckpt"}, marks=pytest.mark.slow
        ),
        pytest.param(["--trainer.enable_progress_bar=false"], {"best.ckpt", "last.ckpt"}, marks=pytest.mark.slow),
        (["--trainer.enable_progress_bar=false", TQDM], {"best.ckpt", "last.ckpt"}),
        (["--trainer.callbacks+=Timer", "--trainer.callbacks.duration=00:01:00:00"], {"best.ckpt", "last.ckpt"}),
        (["--trainer.profiler=simple", "--trainer.max_time=00:01:00:00"], {"best.ckpt", "last.ckpt"}),
        (["--trainer.enable_checkpointing=false", "--trainer.callbacks+=ModelCheckpoint"], set()),
        (["--trainer.fast_dev_run=true"], set()),
        (["--trainer.fast_dev_run=2", "--trainer.callbacks+=LearningRateFinder"], set()),
        (["--trainer.barebones=true"], set()),
        (BARE, set()),
    ],
)
def test_it_works_from_fit_to_test(
    run: Run, flags: list[str], files: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = run("fit", *QUICK, *flags, "--test_after_fit")
    assert {path.name for path in runs.glob("quickstart/version_0/checkpoints/*")} == files
    writes = not any(flag.startswith(("--trainer.barebones", "--trainer.fast_dev_run")) for flag in flags)
    assert (runs / "quickstart/version_0/config.yaml").exists() == writes
    output = capsys.readouterr()
    assert ("test/mse" in output.out) == ("--trainer.barebones=true" not in flags)
    assert "Trainer(" not in output.out + output.err


def test_max_time_needs_no_number_of_epochs(run: Run, fails: Fails) -> None:
    flags = [*QUICK, "--trainer.max_time=00:00:00:01", "--trainer.max_epochs=-1"]
    assert "OneCycle must know the number of steps: set trainer.max_epochs" in fails("fit", *flags)
    runs = run("fit", *flags, "--model.scheduler=null", "--test_after_fit")
    assert list(runs.rglob("best.ckpt"))


@pytest.mark.parametrize("name", ["RichProgressBar", "RichModelSummary"])
def test_rich_is_used_or_asked_for(run: Run, fails: Fails, name: str, tmp_path: Path) -> None:
    flags = [*QUICK, f"--trainer.callbacks+={name}"]
    if _RICH_AVAILABLE:
        run("fit", *flags, "--test_after_fit")
    else:
        line = fails("fit", *flags)
        assert f"`{name}` requires `rich`" in line
        assert "pip install -U rich`" in line
        assert "subclass" not in line
