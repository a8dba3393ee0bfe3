import csv
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lightning_modules import Autoencoder, Classifier, Inversion
from preimage.__main__ import main
from preimage.cli import ALWAYS_ON
from tests.callbacks.run.test_checkpoints import SLURM
from tests.conftest import PLAIN, QUICK, ROOT, Digits, Fails, Run, fork, wait_for


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def values(run_dir: Path, key: str) -> list[float]:
    return [float(row[key]) for row in rows(run_dir) if row.get(key)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def test_a_run_directory_holds_the_whole_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = run("fit", *QUICK, "--test_after_fit", "--curves=Curves") / "quickstart/version_0"
    files = {str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "metrics.csv",
        "classes.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "images/curves.png",
        "images/reconstructions/test.png",
        "images/latents/test.png",
    } <= files
    assert {path.name for path in run_dir.parent.parent.iterdir()} == {"quickstart"}
    assert 0 < values(run_dir, "test/mse")[-1] < 0.5
    out = capsys.readouterr().out
    assert "test/psnr" in out
    assert "reconstructions/test.png" in out


def test_runs_are_numbered_and_never_mixed(run: Run, fails: Fails) -> None:
    run("fit", *QUICK)
    runs = run("fit", *QUICK) / "quickstart"
    assert {path.name for path in runs.iterdir()} == {"version_0", "version_1"}
    assert "holds a run" in fails("fit", *QUICK, "--run_dir", runs / "version_0")


def test_same_seed_same_weights(run: Run) -> None:
    run("fit", *QUICK)
    runs = run("fit", *QUICK) / "quickstart"
    run("fit", *QUICK, "--seed_everything", "1")
    first, second, other = (weights(runs / f"version_{i}/checkpoints/last.ckpt") for i in range(3))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_saved_config_serves_every_command_and_results_stay_with_the_run(run: Run) -> None:
    run_dir = (
        run("fit", *QUICK, "--model.encoder.latent_dim", 5, "--model.decoder.latent_dim", 5) / "quickstart/version_0"
    )
    config = (run_dir / "config.yaml").read_text()
    best = run_dir / "checkpoints/best.ckpt"
    run("validate", "--config", run_dir / "config.yaml", "--ckpt_path", best)
    run("test", "--ckpt_path", run_dir)  # a run says what it is
    run("predict", f"--ckpt_path={best}")
    assert [path.name for path in run_dir.parent.iterdir()] == ["version_0"]
    assert (run_dir / "config.yaml").read_text() == config
    assert len(values(run_dir, "test/mse")) == 1
    predictions = np.load(run_dir / "predictions.npz")
    assert predictions["code"].shape == (1000, 5)
    assert predictions["reconstruction"].shape == (1000, 1, 28, 28)
    run("fit", "--config", run_dir / "config.yaml", "--ckpt_path", run_dir, "--trainer.max_epochs", 2)
    run("fit", "--config", run_dir / "config.yaml")  # trains anew, and does not resume again
    for folder in (run_dir, run_dir.parent / "version_1"):
        assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 6


def test_predictions_are_in_the_order_of_the_data(run: Run, idx_root: Path, digits: Digits) -> None:
    flags = ["--data.dataset", "mnist", "--data.root", idx_root]
    with pytest.warns(UserWarning, match="predict without --ckpt_path"):
        run_dir = run("predict", *QUICK, *flags) / "quickstart/version_0"
    assert np.load(run_dir / "predictions.npz")["label"].tolist() == digits[1][1000:1200].tolist()


def test_flags_win_over_the_checkpoint(run: Run) -> None:
    flags = ["--model.optimizer.lr", "0.001"]
    run_dir = run("fit", *QUICK, *flags) / "quickstart/version_0"
    other = ["--model.optimizer.lr", "0.5", "--trainer.max_epochs", 2]
    run("fit", *QUICK, *other, "--ckpt_path", run_dir / "checkpoints/last.ckpt")
    written = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert written["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.5


def test_another_optimizer_brings_its_own_defaults(run: Run) -> None:
    run_dir = run("fit", *QUICK, "--model.optimizer", "torch.optim.AdamW") / "quickstart/version_0"
    state = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]
    assert state["param_groups"][0]["weight_decay"] == 0.01


def test_a_resumed_run_continues_its_curves(run: Run) -> None:
    runs = run("fit", *QUICK) / "quickstart"
    run("fit", *QUICK, "--trainer.max_epochs", 3, "--ckpt_path", "last")
    assert [path.name for path in runs.iterdir()] == ["version_0"]
    assert values(runs / "version_0", "epoch") == sorted(values(runs / "version_0", "epoch"))
    assert len(values(runs / "version_0", "val/loss")) == 3


def test_last_is_the_last_state_also_without_progress(run: Run) -> None:
    # Lightning's save_last only follows the best checkpoint; here the loss explodes after the first epoch.
    flags = ["--trainer.max_epochs", 3, "--checkpoint.mode", "max", "--model.scheduler", "null"]
    run_dir = run("fit", *QUICK, *flags) / "quickstart/version_0"
    assert torch.load(run_dir / "checkpoints/best.ckpt", weights_only=True)["global_step"] == 3
    assert torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 9


@pytest.mark.parametrize(("model", "extra"), [(Autoencoder, []), (Inversion, ["--model.encoder_checkpoint", "null"])])
def test_a_checkpoint_alone_rebuilds_its_model(run: Run, model: type[Autoencoder], extra: list[str]) -> None:
    flags = [f"--model={model.__name__}", "--model.encoder=MNISTEncoder", "--model.encoder.latent_dim=3"]
    flags += ["--model.decoder=MNISTDecoder", "--model.decoder.latent_dim=3", *extra]
    run_dir = run("fit", *QUICK, *flags) / "quickstart/version_0"
    loaded = model.load_from_checkpoint(run_dir / "checkpoints/last.ckpt", weights_only=True)
    assert loaded.encoder.state_dict()["9.weight"].shape == (3, 576)
    saved = weights(run_dir / "checkpoints/last.ckpt")
    assert all(torch.equal(value, saved[name]) for name, value in loaded.state_dict().items())


def test_a_users_own_network_works_by_its_import_path(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_own.py").write_text(
        "from torch import nn\n"
        "class Flat(nn.Sequential):\n"
        "    def __init__(self, size: int = 4):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(784, size))\n"
    )
    monkeypatch.chdir(tmp_path)
    flags = ["--model.encoder", "users_own.Flat", "--model.encoder.size", 12]
    assert (run("fit", *QUICK, *flags) / "quickstart/version_0/checkpoints/last.ckpt").is_file()


def test_tensorboard_writes_into_the_run_directory(run: Run) -> None:
    runs = run("fit", *QUICK, "--config", ROOT / "configs/logger/tensorboard.yaml", "--test_after_fit")
    assert list((runs / "quickstart/version_0").glob("tensorboard/events.out.*"))
    assert values(runs / "quickstart/version_0", "val/mse")  # metrics.csv is written beside


def test_logger_false_and_fast_dev_run(run: Run) -> None:
    runs = run("fit", *QUICK, "--trainer.fast_dev_run", "true", "--test_after_fit")
    assert not runs.exists()
    run("fit", *QUICK, "--trainer.logger", "false", "--trainer.enable_progress_bar", "false")
    assert (runs / "quickstart/version_0/metrics.csv").is_file()


# What goes wrong ------------------------------------------------------------------------------------------------------


def test_missing_data_is_named_before_a_run_is_made(run: Run, fails: Fails, tmp_path: Path) -> None:
    line = fails("fit", *QUICK, "--data.dataset", "kmnist", "--data.root", tmp_path / "none")
    assert f"{tmp_path}/none/KMNIST/raw" in line
    assert "--data.download true" in line
    assert not (tmp_path / "runs").exists()


def test_last_without_a_run_is_an_error_and_not_an_untrained_score(fails: Fails, tmp_path: Path) -> None:
    assert "no checkpoints/last.ckpt" in fails("test", *QUICK, "--ckpt_path", "last")
    assert f"no checkpoint at {tmp_path}/none.ckpt" in fails("test", *QUICK, "--ckpt_path", tmp_path / "none.ckpt")


def test_checkpoint_of_another_model_names_both_shapes(run: Run, fails: Fails) -> None:
    path = run("fit", *QUICK) / "quickstart/version_0/checkpoints/last.ckpt"
    line = fails("test", *QUICK, "--model.encoder.latent_dim", 7, "--model.decoder.latent_dim", 7, "--ckpt_path", path)
    assert "encoder.9.weight" in line
    assert "(12, 576)" in line
    assert "(7, 576)" in line


def test_checkpoint_with_code_in_it_is_refused(run: Run, fails: Fails, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/executed",)

    torch.save({"state_dict": {}, "evil": Evil()}, tmp_path / "evil.ckpt")
    assert "refused" in fails("test", *QUICK, "--ckpt_path", tmp_path / "evil.ckpt")
    assert "refused" in fails("fit", *QUICK, "--model.encoder_checkpoint", tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()


def test_truncated_checkpoint_is_named(run: Run, fails: Fails, tmp_path: Path) -> None:
    path = run("fit", *QUICK) / "quickstart/version_0/checkpoints/last.ckpt"
    path.write_bytes(path.read_bytes()[:5000])
    assert f"{path} is truncated" in fails("test", *QUICK, "--ckpt_path", path)


def test_a_truncated_last_checkpoint_offers_the_newest_good_one(run: Run, fails: Fails) -> None:
    folder = run("fit", *QUICK) / "quickstart/version_0/checkpoints"
    (folder / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:-100])
    line = fails("fit", *QUICK, "--ckpt_path", "last")
    assert f"{folder}/last.ckpt is truncated" in line
    assert f"newest good one beside it is {folder}/best.ckpt" in line


def test_a_requeued_slurm_job_goes_on_in_its_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in SLURM.items():
        monkeypatch.setenv(key, value)
    named = ["--run_dir", tmp_path / "named"]
    runs = run("fit", *QUICK) / "quickstart"
    run("fit", *QUICK, *named)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for _ in range(2):  # the second time, all is done
        run("fit", *QUICK, "--trainer.max_epochs", 2)
        run("fit", *QUICK, "--trainer.max_epochs", 2, *named)
        assert sorted(path.name for path in runs.iterdir()) == ["version_0"]
        for folder in (runs / "version_0", tmp_path / "named"):
            assert len(values(folder, "val/loss")) == 2
    run("fit", *QUICK, "--seed_everything", 1)  # another job
    assert sorted(path.name for path in runs.iterdir()) == ["version_0", "version_1"]


@pytest.mark.parametrize("kind", ["gpu", "tensor", "list"])
def test_memory_that_does_not_suffice_names_the_batch_size(
    fails: Fails, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def step(*args: object) -> None:
        if kind == "gpu":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has too little")
        torch.empty(2**60) if kind == "tensor" else [0] * 2**60

    monkeypatch.setattr(Autoencoder, "training_step", step)
    line = fails("fit", *QUICK)
    assert "out of memory with data.batch_size=32" in line
    assert "--data.batch_size 16 --trainer.accumulate_grad_batches 2" in line


def test_nan_stops_and_keeps_the_last_good_checkpoint(run: Run, fails: Fails, tmp_path: Path) -> None:
    path = run("fit", *QUICK) / "quickstart/version_0/checkpoints/last.ckpt"
    before = weights(path)
    flags = ["--trainer.max_epochs", 3, "--model.optimizer.lr", "1e38", "--model.scheduler", "null"]
    broken = torch.load(path, weights_only=True)
    broken["optimizer_states"][0]["param_groups"][0]["lr"] = 1e38
    broken["lr_schedulers"] = []
    torch.save(broken, tmp_path / "exploding.ckpt")
    line = fails("fit", *QUICK, *flags, "--ckpt_path", tmp_path / "exploding.ckpt", "--run_dir", path.parent.parent)
    assert "NaN or infinite at step 5" in line
    assert str(path) in line
    after = weights(path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_output_folder_that_cannot_be_made_is_named(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "Not a directory" in fails("fit", *QUICK, "--run_dir", tmp_path / "file/run")


@pytest.mark.parametrize("resumed", [False, True])
def test_a_disk_that_is_full_at_the_start_is_named(run: Run, fails: Fails, small_disk: Path, resumed: bool) -> None:
    run_dir = small_disk / "run"
    flags = ["--ckpt_path", run_dir / "checkpoints/last.ckpt"] if resumed else []
    if resumed:
        callbacks = ["--trainer.callbacks=[]", "--checkpoint.save_top_k=0"]
        run("fit", *QUICK, *callbacks, "--run_dir", run_dir)
    run_dir.mkdir(exist_ok=True)
    with pytest.raises(OSError, match="No space left"), (small_disk / "other").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    line = fails("fit", *QUICK, *flags, "--run_dir", run_dir, "--trainer.max_epochs", 2)
    assert line.startswith(f"error: {run_dir}/")
    assert "No space left on device" in line
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_a_full_disk_ends_in_one_line_and_loses_nothing(run: Run, tmp_path: Path) -> None:
    # No file may grow past 300 KB: the checkpoints, of 750 KB, meet what a full disk does.
    run_dir = run("fit", *QUICK) / "quickstart/version_0"
    before = (run_dir / "checkpoints/last.ckpt").read_bytes()

    def fit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        main(["fit", *PLAIN, "--run_dir", str(run_dir), "--ckpt_path", "last", "--trainer.max_epochs", "2"])

    process = fork(fit, tmp_path / "said")
    process.join(120)
    assert process.exitcode == 1
    line = (tmp_path / "said").read_text().strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert "File too large" in line
    assert (run_dir / "checkpoints/last.ckpt").read_bytes() == before
    assert len(values(run_dir, "val/loss")) >= 1


def test_ctrl_c_keeps_the_last_state_and_says_how_to_resume(tmp_path: Path, run: Run) -> None:
    run_dir = tmp_path / "run"
    flags = ["--run_dir", str(run_dir), "--trainer.max_epochs=10000", "--trainer.limit_train_batches=20"]
    process = fork(lambda: main(["fit", *PLAIN, *flags]), tmp_path / "said")
    wait_for(run_dir / "checkpoints/last.ckpt", process)
    os.kill(process.pid, signal.SIGINT)
    process.join(120)
    assert process.exitcode == 1
    err = (tmp_path / "said").read_text()
    assert "Traceback" not in err
    path = run_dir / "checkpoints/last.ckpt"
    assert f"--ckpt_path {path}" in err
    step = torch.load(path, weights_only=True)["global_step"]
    assert f"saved at step {step}" in err
    run("fit", *PLAIN, "--ckpt_path", path, "--trainer.max_steps", step + 4, "--trainer.max_epochs", -1)
    assert torch.load(path, weights_only=True)["global_step"] == step + 4


def test_classifier_checkpoint_loads_without_the_encoders_run(run: Run, tmp_path: Path) -> None:
    pretrained = run("fit", *QUICK) / "quickstart/version_0/checkpoints/last.ckpt"
    flags = ["--model=Classifier", "--model.encoder=MNISTEncoder", "--model.head=MLPHead", "--trainer.callbacks=null"]
    run("fit", *QUICK, *flags, "--model.encoder_checkpoint", pretrained, "--name", "classifier")
    pretrained.unlink()
    path = tmp_path / "runs/classifier/version_0/checkpoints/last.ckpt"
    assert Classifier.load_from_checkpoint(path, weights_only=True).num_classes == 10
    run("test", *QUICK, *flags, "--model.encoder_checkpoint", pretrained, "--ckpt_path", path)


def test_what_is_always_on_stands_in_the_config_and_can_be_changed_and_switched_off(run: Run) -> None:
    runs = run("fit", *QUICK, "--trainer.callbacks=null", "--stop_on_nan.every_n_steps=7")
    config = yaml.safe_load((runs / "quickstart/version_0/config.yaml").read_text())
    assert config["stop_on_nan"] == {"class_path": "callbacks.StopOnNaN", "init_args": {"every_n_steps": 7}}
    assert config["curves"] is None
    assert set(ALWAYS_ON) <= set(config)
    assert not (runs / "quickstart/version_0/images/curves.png").exists()
    flags = ["--trainer.callbacks=null", "--ckpt_path=last", "--trainer.max_epochs=2", "--curves=Curves"]
    run("fit", *QUICK, *flags)  # it is watched otherwise
    assert (runs / "quickstart/version_0/images/curves.png").exists()
