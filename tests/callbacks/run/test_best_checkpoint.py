from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tests.conftest import PLAIN, Fails, Run


class Score(Callback):
    """Logs as a metric what it is told, one number after each epoch."""

    def __init__(self, name: str, values: list[float]) -> None:
        self.name, self.values = name, values

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            pl_module.log(self.name, self.values[trainer.current_epoch])


def scored(name: str, *values: float) -> list[str]:
    flags = ["--trainer.limit_train_batches=1", f"--trainer.max_epochs={len(values)}", "--trainer.limit_val_batches=1"]
    flags += ["--trainer.callbacks+=tests.callbacks.run.test_best_checkpoint.Score"]
    flags += [f"--trainer.callbacks.name={name}", f"--trainer.callbacks.values={list(values)}"]
    return [*PLAIN, f"--checkpoint.monitor={name}", *flags]


def epochs(folder: Path) -> dict[str, int]:
    """The epoch that each checkpoint of a run is of."""
    paths = folder.glob("quickstart/version_0/checkpoints/*")
    return {path.name: torch.load(path, weights_only=True)["global_step"] - 1 for path in paths}


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (["--checkpoint.save_top_k=2"], {f"epoch={i}-step={i + 1}-val_own_psnr={5 - i}.0000.ckpt": i for i in (1, 2)}),
        (["--checkpoint.save_top_k=-1", "--checkpoint.filename={epoch}"], {f"{i}.ckpt": i for i in range(4)}),
        (["--checkpoint.save_top_k=2", "--checkpoint.filename=mine"], {"mine.ckpt": 2, "mine-v1.ckpt": 1}),
        (["--checkpoint.filename={epoch}-{val/own_psnr:.1f}"], {"1-4.0.ckpt": 1}),
        ([], {}),
    ],
)
def test_best_is_the_best_whatever_else_is_kept(run: Run, flags: list[str], kept: dict[str, int]) -> None:
    runs = run("fit", *scored("val/own_psnr", 1, 4, 3, 2), *flags, "--test_after_fit")
    assert epochs(runs) == {"best.ckpt": 1, "last.ckpt": 3} | kept


def test_best_is_what_is_tested_and_what_the_path_means(
    run: Run, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*scored("val/own_psnr", 1, 4, 3), "--checkpoint.filename={epoch}"]
    flags += ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/loss"]  # the user's own
    flags += ["--trainer.callbacks.filename=own", "--trainer.callbacks.save_top_k=3"]
    with caplog.at_level("INFO"):
        runs = run("fit", *flags, "--test_after_fit")
        run("test", *flags, "--ckpt_path=best")
    assert "checkpoints/1.ckpt" in caplog.text  # after the fit
    assert "checkpoints/best.ckpt" in caplog.text
    assert epochs(runs).keys() >= {"best.ckpt", "1.ckpt", "own.ckpt", "own-v2.ckpt"}


@pytest.mark.parametrize(
    ("before", "after"), [(2, 2), (3, 1), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((1, 2), (2, -1)))]
)
def test_a_resumed_run_goes_on_with_what_it_has_kept(run: Run, before: int, after: int, tmp_path: Path) -> None:
    whole = scored("val/error", 5, 2, 4, 1, 3)
    runs = run("fit", *whole, f"--checkpoint.save_top_k={before}", "--trainer.max_epochs=3")
    moved = runs.rename(tmp_path / "moved") / "quickstart/version_0"
    run("fit", *whole, f"--checkpoint.save_top_k={after}", f"--ckpt_path={moved}/checkpoints/last.ckpt")
    found = epochs(tmp_path / "moved")
    assert found["best.ckpt"] == 3
    state = torch.load(moved / "checkpoints/last.ckpt", weights_only=True)["callbacks"]
    (kept,) = (part["best_k_models"] for key, part in state.items() if key.startswith("BestCheckpoint"))
    scores = sorted(float(score) for score in kept.values())
    assert scores == {(2, 2): [1, 2], (1, 2): [1, 2], (3, 1): [1], (2, -1): [1, 2, 3, 4]}[before, after]
    assert all(Path(path).is_file() for path in kept)


def test_best_of_a_checkpoint_that_lightnings_own_callback_wrote_stays_the_best(run: Run) -> None:
    flags = scored("val/error", 1, 3)
    runs = run("fit", *flags, "--trainer.max_epochs=1")
    path = runs / "quickstart/version_0/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    states = checkpoint["callbacks"].items()
    checkpoint["callbacks"] = {key.replace("BestCheckpoint", "ModelCheckpoint"): state for key, state in states}
    torch.save(checkpoint, path)
    run("fit", *flags, "--ckpt_path=last")
    assert epochs(runs) == {"best.ckpt": 0, "last.ckpt": 1}


@pytest.mark.parametrize(
    ("flags", "culprit"),
    [
        (["--checkpoint.filename=last"], "checkpoint.filename=last"),
        (["--checkpoint.filename={val/loss"], "checkpoint.filename={val/loss is no pattern"),
        (["--checkpoint.filename={epoch:q}"], "checkpoint.filename={epoch:q} is no pattern"),
        (["--checkpoint.filename={}"], "checkpoint.filename={} is no pattern"),
        (["--checkpoint.monitor=val/energy"], "checkpoint monitors val/energy"),
        (["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/x"], "EarlyStopping monitors val/x"),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss", "--data.val_size=0"],
            "EarlyStopping follows val/loss, and there is no validation",
        ),
    ],
)
def test_what_cannot_be_the_best_is_refused(fails: Fails, flags: list[str], culprit: str) -> None:
    assert culprit in fails("fit", *PLAIN, *flags)


def test_early_stopping_knows_the_direction_and_a_mode_that_is_given_is_kept(run: Run) -> None:
    flags = [*scored("val/own_psnr", 1, 2, 3, 2, 1), "--trainer.callbacks+=EarlyStopping"]
    flags += ["--trainer.callbacks.monitor=val/own_psnr", "--trainer.callbacks.patience=1"]
    with pytest.warns(UserWarning, match="checkpoint: mode min is kept"):
        runs = run("fit", *flags, "--checkpoint.mode=min")
    assert epochs(runs) == {"best.ckpt": 0, "last.ckpt": 3}


def test_a_metric_that_is_not_logged_is_named_without_advice_for_programmers(fails: Fails) -> None:
    line = fails("fit", *PLAIN, "--checkpoint.monitor=val/own", "--checkpoint.mode=min")
    assert "'val/own'" in line
    assert "LightningModule" not in line


@pytest.mark.parametrize("name", ["best", "last", "../../{epoch}", "/tmp/{epoch}"])
def test_a_users_own_checkpoints_leave_those_of_the_run_alone(fails: Fails, tmp_path: Path, name: str) -> None:
    flags = ["--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.filename={name}"]
    assert "ModelCheckpoint.filename" in fails("fit", *PLAIN, *flags)
    assert not (tmp_path / "runs").exists()


def test_checkpoints_of_two_runs_are_never_in_one_folder(fails: Fails, tmp_path: Path) -> None:
    line = fails("fit", *PLAIN, f"--checkpoint.dirpath={tmp_path / 'elsewhere'}")
    assert "choose that by --run_dir" in line


def test_last_is_written_once_beside_a_users_own_checkpoints(run: Run) -> None:
    mine = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_last=true"]
    runs = run("fit", *scored("val/own_loss", 2, 1), *mine, *mine, "--trainer.callbacks.monitor=val/loss")
    assert epochs(runs).keys() == {"best.ckpt", "last.ckpt", "epoch=1-step=2.ckpt", "epoch=1-step=2-v1.ckpt"}
