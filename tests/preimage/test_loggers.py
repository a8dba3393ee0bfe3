"""Weights & Biases without a server, and loggers that fail."""

import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
import yaml
from PIL import Image

from preimage.loggers import WandbRunLogger
from preimage.reporting.atlas import log_atlas
from tests.conftest import QUICK, ROOT, Run
from tests.preimage.test_cli import values

OVERLAY = ["--config", str(ROOT / "configs/logger/wandb.yaml")]


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_RUN_ID", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
    wandb.teardown()  # W&B reads the environment once per process
    yield
    wandb.teardown()


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the runs of a test hold when they end."""
    runs: list[dict[str, Any]] = []
    close = WandbRunLogger.close

    def look_and_close(self: WandbRunLogger, exit_code: int) -> None:
        run = self.experiment
        kept = ("id", "name", "project", "group", "job_type", "tags", "dir", "settings")
        runs.append({key: getattr(run, key) for key in kept})
        runs[-1] |= {"summary": dict(run.summary), "config": run.config.as_dict(), "code": exit_code}
        close(self, exit_code)

    monkeypatch.setattr(WandbRunLogger, "close", look_and_close)
    return runs


def pngs(run: dict[str, Any], key: str) -> list[Path]:
    return sorted(Path(run["dir"]).glob(f"media/images/{key}_*.png"))


def table(run: dict[str, Any], key: str) -> dict[str, Any]:
    (path,) = Path(run["dir"]).glob(f"media/table/{key}_*.table.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_a_run_holds_config_commit_pictures_tables_and_best_metrics(run: Run, ended: list[dict[str, Any]]) -> None:
    classifier = ["--model=Classifier", "--model.encoder=MNISTEncoder", "--model.head=MLPHead"]
    callbacks = ["--trainer.callbacks=ConfusionMatrix", "--trainer.callbacks+=GradientNorms"]
    callbacks += ["--trainer.callbacks+=LatentProjection", "--trainer.log_every_n_steps=1"]
    flags = ["--trainer.max_epochs", 2, "--trainer.logger.project", "digits", "--trainer.logger.tags", "[a, b]"]
    runs = run("fit", *QUICK, *OVERLAY, *classifier, *callbacks, *flags, "--test_after_fit")
    run_dir = runs / "quickstart/version_0"
    (found,) = ended
    assert (found["project"], found["group"], found["job_type"], found["tags"]) == (
        "digits",
        "quickstart",
        "fit",
        ("a", "b"),
    )
    assert found["name"] == "quickstart/version_0"
    assert Path(found["dir"]).is_relative_to(run_dir / "wandb")
    written = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert found["config"]["model"] == written["model"]
    assert found["config"]["trainer"]["max_epochs"] == 2
    assert yaml.safe_load((Path(found["dir"]) / "experiment.yaml").read_text()) == written
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert str(found["config"]["git_commit"]).removesuffix("-dirty") == head
    assert found["settings"].git_commit == head
    best = min(values(run_dir, "val/loss"))
    place = values(run_dir, "val/loss").index(best)
    assert found["summary"]["best/val/loss"] == pytest.approx(best)
    assert found["summary"]["best/val/accuracy"] == pytest.approx(values(run_dir, "val/accuracy")[place])
    assert found["summary"]["val/loss"] == pytest.approx(values(run_dir, "val/loss")[-1])
    assert found["summary"]["gradient_norm/head.0"] > 0
    tested = dict(table(found, "test_results")["data"])
    assert tested["test/accuracy"] == pytest.approx(values(run_dir, "test/accuracy")[0])
    confusion = table(found, "test_confusion")
    assert confusion["columns"][1:] == [str(digit) for digit in range(10)]
    assert sum(sum(row[1:]) for row in confusion["data"]) == 1000
    assert len(pngs(found, "test/confusion")) == 1
    (picture,) = pngs(found, "test/latents")
    assert np.array_equal(np.asarray(Image.open(picture)), np.asarray(Image.open(run_dir / "images/latents/test.png")))
    assert not list(Path(found["dir"]).parent.rglob("*.ckpt"))  # no artifact unasked


def test_numbers_are_logged_over_the_step(
    run: Run, ended: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[dict[str, Any]] = []
    axes: list[tuple[str, Any]] = []
    log, define = wandb.Run.log, wandb.Run.define_metric

    def note_row(self: Any, data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        rows.append(data)
        log(self, data, *args, **kwargs)

    def note_axis(self: Any, name: str, step_metric: Any = None, **kwargs: Any) -> Any:
        axes.append((name, step_metric))
        return define(self, name, step_metric, **kwargs)

    monkeypatch.setattr(wandb.Run, "log", note_row)
    monkeypatch.setattr(wandb.Run, "define_metric", note_axis)
    run("fit", *QUICK, *OVERLAY, "--trainer.max_epochs", 2)
    assert ("*", "trainer/global_step") in axes
    steps = {row["epoch"]: row["trainer/global_step"] for row in rows if "val/loss" in row}
    assert steps == {0: 2, 1: 5}


def test_without_a_key_it_is_offline_and_says_how_to_sync(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="logged offline, since"):
        run_dir = run("fit", *QUICK, *OVERLAY) / "quickstart/version_0"
    (folder,) = run_dir.glob("wandb/offline-run-*")
    line = re.search(r"wandb sync (\S+)", re.sub(r"\x1b\[\d+(;\d+)?m", "", capsys.readouterr().err))
    assert line is not None
    assert Path(line[1]) == folder
    assert wandb.run is None


def test_offline_is_not_warned_of_where_it_is_asked_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    earlier = tmp_path / "earlier.yaml"  # as an earlier version wrote it
    earlier.write_text("trainer: {logger: [{class_path: callbacks.WandbRunLogger, init_args: {save_dir: .}}]}")
    run_dir = run("fit", *QUICK, "--config", earlier, "--name", "quickstart") / "quickstart/version_0"
    assert "preimage.loggers.WandbRunLogger" in (run_dir / "config.yaml").read_text()
    assert list(run_dir.glob("wandb/offline-run-*"))
    assert not [warning for warning in recwarn if "W&B" in str(warning.message)]


def test_a_server_that_cannot_be_reached_costs_seconds_and_not_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    wandb.teardown()
    start = time.monotonic()
    with pytest.warns(UserWarning, match=r"offline, since http://127.0.0.1:9 does not answer"):
        run_dir = run("fit", *QUICK, *OVERLAY) / "quickstart/version_0"
    assert time.monotonic() - start < 60
    assert values(run_dir, "val/loss")
    assert list(run_dir.glob("wandb/offline-run-*"))


def test_a_resumed_run_is_the_same_run_also_in_another_directory(
    run: Run, tmp_path: Path, ended: list[dict[str, Any]]
) -> None:
    path = run("fit", *QUICK, *OVERLAY) / "quickstart/version_0/checkpoints/last.ckpt"
    assert torch.load(path, weights_only=True)["wandb_id"] == ended[0]["id"]
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes(path.read_bytes())
    more = [*QUICK, *OVERLAY, "--trainer.max_epochs", 2]
    run("fit", *more, "--ckpt_path", path)
    run("fit", *more, "--ckpt_path", moved, "--run_dir", tmp_path / "other")
    run("test", *QUICK, *OVERLAY, "--ckpt_path", path)
    run("fit", *QUICK, *OVERLAY)
    ids = [found["id"] for found in ended]
    assert ids[:4] == [ids[0]] * 4
    assert ids[4] != ids[0]
    assert {found["job_type"] for found in ended} == {"fit"}
    assert all(found["settings"].resume == "allow" for found in ended)


def test_a_failing_wandb_is_warned_of_once_and_the_run_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    finish = wandb.Run.finish

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the service is gone")

    def finish_and_fail(self: Any, exit_code: int) -> None:
        finish(self, exit_code)
        fail()

    monkeypatch.setattr(wandb.Run, "log", fail)
    monkeypatch.setattr(wandb.Run, "finish", finish_and_fail)
    run_dir = run("fit", *QUICK, *OVERLAY, "--test_after_fit") / "quickstart/version_0"
    assert values(run_dir, "test/mse")
    assert len([warning for warning in recwarn if "the service is gone" in str(warning.message)]) == 1


def test_a_wandb_that_does_not_start_is_warned_of_and_the_run_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise wandb.errors.Error("no service")

    monkeypatch.setattr(wandb, "init", fail)
    assert values(run("fit", *QUICK, *OVERLAY) / "quickstart/version_0", "val/loss")
    assert len([w for w in recwarn if "the run goes on: Error: no service" in str(w.message)]) == 1


def kill_service(*args: Any) -> None:
    """Kills W&B's service process, a child of this one."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = (path / "stat").read_text().rsplit(")", 1)[1].split()[1]
            is_service = b"wandb-core" in (path / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if int(parent) == os.getpid() and is_service:
            os.kill(int(path.name), signal.SIGKILL)
            time.sleep(0.1)  # until its socket is closed


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's list of processes")
@pytest.mark.parametrize(
    ("command", "moment"),
    [
        ("fit", "callbacks.EffectiveBatch.on_fit_start"),
        pytest.param("fit", "callbacks.EffectiveBatch.on_train_epoch_start", marks=pytest.mark.slow),
        pytest.param("fit", "preimage.cli.PreimageCLI.after_fit", marks=pytest.mark.slow),  # as in the next test
        pytest.param("fit", "callbacks.EffectiveBatch.on_test_start", marks=pytest.mark.slow),
        pytest.param("fit", "callbacks.EffectiveBatch.on_test_end", marks=pytest.mark.slow),
        ("fit", "preimage.loggers.WandbRunLogger.close"),
        pytest.param("validate", "callbacks.EffectiveBatch.on_validation_start", marks=pytest.mark.slow),
        ("test", "callbacks.EffectiveBatch.on_test_start"),
        ("predict", "callbacks.EffectiveBatch.on_predict_start"),
    ],
)
def test_a_killed_service_of_wandb_costs_a_warning_at_any_moment(
    run: Run, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, command: str, moment: str
) -> None:
    owner, name = moment.rsplit(".", 1)
    method = getattr(pkgutil.resolve_name(owner), name)

    def kill_first(*args: Any, **kwargs: Any) -> Any:
        kill_service()
        return method(*args, **kwargs)

    monkeypatch.setattr(moment, kill_first)
    flags = ["--test_after_fit"] if command == "fit" else []
    run_dir = run(command, *QUICK, *OVERLAY, "--trainer.logger.offline=true", *flags) / "quickstart/version_0"
    assert len([warning for warning in recwarn if "WandbRunLogger failed" in str(warning.message)]) == 1
    if command == "predict":
        assert (run_dir / "predictions.npz").is_file()
    else:
        assert values(run_dir, "val/mse" if command == "validate" else "test/mse")
    assert wandb.run is None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's list of processes")
def test_a_killed_service_of_wandb_leaves_no_traceback_at_the_exit(tmp_path: Path) -> None:
    """Killed between the fit and the test, which imports what W&B looks at."""
    code = "import sys, main; from preimage import cli; from tests.preimage.test_loggers import kill_service; "
    code += "after = cli.PreimageCLI.after_fit; "
    code += "cli.PreimageCLI.after_fit = lambda self: (kill_service(), after(self)); main.main(sys.argv[1:])"
    flags = [*QUICK, *OVERLAY, "--trainer.logger.offline=true", "--trainer.default_root_dir", str(tmp_path)]
    command = [sys.executable, "-c", code, "fit", *flags, "--test_after_fit"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0
    assert "WandbRunLogger failed, the run goes on" in result.stderr
    assert "Traceback" not in result.stderr
    assert values(tmp_path / "quickstart/version_0", "test/mse")


def test_a_logger_that_cannot_be_had_is_asked_for_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def fail(*args: Any, **kwargs: Any) -> None:
        tries.append(1)
        raise wandb.errors.Error("no service")

    monkeypatch.setattr(wandb, "init", fail)
    with pytest.warns(UserWarning, match="no service"):
        run("fit", *QUICK, *OVERLAY, "--trainer.logger.offline=true")
    assert len(tries) == 1


@pytest.mark.parametrize("logger", ["callbacks.TensorBoardRunLogger", "lightning.pytorch.loggers.TensorBoardLogger"])
def test_a_failing_tensorboard_is_warned_of_and_the_run_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, logger: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left")

    for call in ("add_scalar", "add_image", "flush"):
        monkeypatch.setattr(f"torch.utils.tensorboard.SummaryWriter.{call}", fail)
    flags = ["--trainer.logger", logger, "--trainer.logger.save_dir", ".", "--test_after_fit"]
    run_dir = run("fit", *QUICK, *flags) / "quickstart/version_0"
    assert values(run_dir, "test/mse")
    assert len([w for w in recwarn if "the run goes on: OSError" in str(w.message)]) == 1


def test_pictures_are_sent_ever_more_rarely(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    logger = WandbRunLogger(save_dir=str(tmp_path), offline=True, max_pictures=4)
    sent: list[int] = []
    monkeypatch.setattr(WandbRunLogger, "log_metrics", lambda self, metrics, step: sent.append(step))
    for step in range(20):
        logger.log_picture("val/x", np.zeros((4, 4), dtype=np.uint8), step=step)
    assert sent == [0, 1, 2, 3, 4, 6, 8, 12, 16]


def test_a_checkpoint_is_an_artifact_only_if_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[list[str]] = []
    monkeypatch.setattr(
        wandb.Run, "log_artifact", lambda self, artifact, aliases: names.append([*artifact.manifest.entries, *aliases])
    )
    run("fit", *QUICK, *OVERLAY)
    assert names == []
    run("fit", *QUICK, *OVERLAY, "--trainer.logger.log_model", "true", "--trainer.max_epochs", 2)
    assert names == [["model.ckpt", "latest", "best"]]


def test_an_atlas_is_a_table_a_chart_and_pictures(
    atlas: Path, ended: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(atlas / "plane.png")
    log_atlas(atlas, "planes")
    (found,) = ended
    assert (found["project"], found["name"], found["job_type"], found["code"]) == ("planes", "atlas", "atlas", 0)
    assert found["config"]["atlas"]["net (random)"] == ["conv.1", "conv.2"]
    assert atlas in Path(found["dir"]).parents
    shown = table(found, "atlas/table")
    row = dict(zip(shown["columns"], shown["data"][3], strict=True))
    assert (row["network"], row["layer"], row["linear"], row["psnr_64_sd"]) == ("net (random)", "conv.1", 0.3, 0.5)
    assert shown["data"][0][shown["columns"].index("psnr_64")] is None  # of the image itself
    chart = table(found, "atlas/plane_chart_table")
    points: dict[str, list[tuple[float, float]]] = {}
    for step, key, value in (
        [line[chart["columns"].index(name)] for name in ("step", "lineKey", "lineVal")] for line in chart["data"]
    ):
        points.setdefault(key, []).append((step, value))
    assert points["net (random)"] == [(0, 0.2), (0.3, 0.3), (0.5, 0.5)]
    assert points["pixels"] == [(0, 0.2), (0.69, 0.05)]
    (picture,) = pngs(found, "atlas/plane")
    assert np.asarray(Image.open(picture)).tolist() == np.full((20, 30, 3), 200).tolist()
