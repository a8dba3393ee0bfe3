import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from lightning_modules import Autoencoder, MNISTEncoder
from lightning_modules.checkpoints import check_start, load_checkpoint, load_part
from preimage.__main__ import main
from tests.conftest import QUICK, Fails, Run
from tests.preimage.test_cli import values


def save(path: Path, encoder: nn.Module) -> Path:
    state = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    torch.save({"state_dict": state | {"decoder.weight": torch.zeros(3)}}, path)
    return path


def test_load_part_takes_the_part_and_leaves_the_rest(tmp_path: Path) -> None:
    source, target = MNISTEncoder(), MNISTEncoder()
    load_part(target, save(tmp_path / "a.ckpt", source), "encoder")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


def test_a_part_of_another_shape_names_both(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", MNISTEncoder(latent_dim=5))
    with pytest.raises(ValueError, match=r"a\.ckpt.*9\.weight has shape \(5, 576\), the model's has \(12, 576\)"):
        load_part(MNISTEncoder(), path, "encoder")


def test_a_missing_and_a_left_over_tensor_are_named(tmp_path: Path) -> None:
    small, large = nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    with pytest.raises(ValueError, match=r"it has no 1\.weight, here of shape \(4, 3\)"):
        load_part(large, save(tmp_path / "small.ckpt", small), "encoder")
    with pytest.raises(ValueError, match=r"its 1\.weight \(4, 3\) is not in the model"):
        load_part(small, save(tmp_path / "large.ckpt", large), "encoder")


def test_files_that_are_no_checkpoint_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.ckpt is"):
        load_checkpoint(tmp_path / "text.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match="has no state_dict"):
        load_checkpoint(tmp_path / "list.ckpt")
    torch.save({"state_dict": {}, "path": Path("x")}, tmp_path / "path.ckpt")
    with pytest.raises(ValueError, match=r"refused.*pathlib"):
        load_checkpoint(tmp_path / "path.ckpt")


def test_a_run_directory_is_its_best_checkpoint_or_its_last(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*checkpoints/last\.ckpt"):
        load_checkpoint(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    for name in ("last", "best"):
        torch.save({"state_dict": {}, "epoch": name}, tmp_path / f"checkpoints/{name}.ckpt")
        assert load_checkpoint(tmp_path)["epoch"] == name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run of one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["preimage"])
        main(["fit", *QUICK, "--trainer.default_root_dir", str(folder)])
    return folder / "quickstart/version_0/checkpoints/last.ckpt"


def without(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(checkpoint: dict[str, Any]) -> None:
        for key in keys:
            del checkpoint[key]

    return change


def having(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(checkpoint: Any) -> None:
        *above, last = path.split("/")
        for key in above:
            checkpoint = checkpoint[int(key) if key.isdigit() else key]
        checkpoint[last] = value

    return change


def of_complex_numbers(checkpoint: dict[str, Any]) -> None:
    checkpoint["state_dict"] = {key: value.to(torch.complex64) for key, value in checkpoint["state_dict"].items()}


WEIGHT = "encoder.0.weight"
DAMAGED = [
    (without("state_dict"), "has no state_dict"),
    (having("state_dict", [1]), "has no state_dict"),
    (having(f"state_dict/{WEIGHT}", 3), f"{WEIGHT} is no tensor, but int '3'"),
    (having(f"state_dict/{WEIGHT}", torch.zeros(2, 2)), "is of another model"),
    (of_complex_numbers, "torch.complex64, the model's of torch.float32"),
    (having("hyper_parameters", "junk"), "its hyper_parameters is str 'junk'"),
    (having("callbacks", [3]), "its callbacks is list"),
    (having("run_state", 3), "its run_state is int"),
    (having("provenance", "me"), "its provenance is str"),
    (without("pytorch-lightning_version"), "it has no pytorch-lightning_version"),
    (having("pytorch-lightning_version", 2), "its pytorch-lightning_version is int '2'"),
]
CANNOT_GO_ON = [
    (having("epoch", "ten"), "its epoch is str 'ten'"),
    (having("epoch", True), "its epoch is bool"),
    (having("epoch", -1), "its epoch is int '-1'"),
    (without("epoch"), "it has no epoch"),
    (without("global_step"), "it has no global_step"),
    (without("loops"), "it has no loops"),
    (having("loops", {}), "its loops.fit_loop is NoneType"),
    (having("loops/fit_loop/epoch_progress", 3), "its loops.fit_loop.epoch_progress is int"),
    (having("loops/fit_loop/epoch_progress/total/ready", "x"), "epoch_progress.total.ready is str 'x'"),
    (without("optimizer_states"), "it has no optimizer_states"),
    (having("optimizer_states", []), "its optimizer_states are empty"),
    (having("optimizer_states", [{}]), "and no param_groups"),
    (having("optimizer_states/0/state", {}), "the state of its optimizer is empty after step 3"),
    (having("optimizer_states/0/state", 3), "the state of its optimizer is int '3'"),
    (without("lr_schedulers"), "it has no lr_schedulers"),
    (having("lr_schedulers", []), "its lr_schedulers are empty"),
]


@pytest.mark.parametrize(
    ("loop", "change", "said"),
    [*(("test_loop", *case) for case in DAMAGED), *(("fit_loop", *case) for case in (*DAMAGED, *CANNOT_GO_ON))],
)
def test_a_damaged_checkpoint_is_refused(
    tmp_path: Path, trained: Path, loop: str, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    model = Autoencoder.load_from_checkpoint(trained, weights_only=True)
    checkpoint = torch.load(trained, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'last.ckpt'} ")) as error:
        check_start(tmp_path / "last.ckpt", model, loop, getattr(Trainer(logger=False), loop).state_dict())
    assert said in str(error.value)


@pytest.mark.parametrize(("command", "change", "said"), [("test", *DAMAGED[-1]), ("fit", *CANNOT_GO_ON[-1])])
def test_it_is_refused_before_anything_is_written(
    fails: Fails, tmp_path: Path, trained: Path, command: str, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    checkpoint = torch.load(trained, weights_only=True)
    change(checkpoint)
    path = tmp_path / "run/checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(checkpoint, path)
    (tmp_path / "run/config.yaml").write_text("as it was")
    line = fails(command, *QUICK, "--ckpt_path", path, "--trainer.max_epochs", 2)
    assert line.startswith(f"error: {path} ")
    assert said in line
    assert (tmp_path / "run/config.yaml").read_text() == "as it was"
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"checkpoints", "config.yaml"}


@pytest.mark.parametrize(
    "change",
    [
        lambda checkpoint: checkpoint["optimizer_states"][0]["state"][0].update(exp_avg="x"),
        lambda checkpoint: checkpoint["optimizer_states"][0]["param_groups"][0].update(betas=0.5),
        lambda checkpoint: checkpoint["optimizer_states"][0]["param_groups"][0].update(params=[1]),
        having("run_state/processes", [3]),
    ],
)
def test_what_fails_before_the_first_step_is_put_down_to_the_checkpoint(
    fails: Fails, tmp_path: Path, trained: Path, change: Callable[[Any], None]
) -> None:
    checkpoint = torch.load(trained, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    line = fails("fit", *QUICK, "--ckpt_path", tmp_path / "last.ckpt", "--trainer.max_epochs", 2)
    assert "unexpected" not in line
    assert str(tmp_path / "last.ckpt") in line or "of another optimizer" in line


def test_weights_alone_can_be_measured(run: Run, tmp_path: Path, trained: Path) -> None:
    checkpoint = torch.load(trained, weights_only=True)
    without("epoch", "global_step", "loops", "optimizer_states", "lr_schedulers", "callbacks", "run_state")(checkpoint)
    torch.save(checkpoint, tmp_path / "weights.ckpt")
    assert values(run("test", *QUICK, "--ckpt_path", tmp_path / "weights.ckpt") / "quickstart/version_0", "test/mse")
