"""The examples of the README do what it says."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from preimage.__main__ import main
from tests.conftest import PLAIN, QUICK, ROOT, Digits, Run
from tests.preimage.test_cli import values

README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^preimage .*$", README, re.MULTILINE)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_examples_run_as_they_stand(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("\n".join(block for block in PYTHON if "import preimage" not in block))
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^preimage fit --config configs/quickstart.yaml (--\w+\S* mine\..*)$", README, re.MULTILINE)
    assert len(commands) == 2
    quick = [flag for flag in QUICK if flag not in ("--data.val_size", "64")]
    for command in commands:
        runs = run("fit", *quick, *command.split(), "--test_after_fit")
    for number in range(2):
        assert 0 < values(runs / f"quickstart/version_{number}", "test/mse")[0] < 0.5


def test_a_model_is_asked_as_it_says(run: Run, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("fit", *QUICK, "--trainer.callbacks=null")
    Path("digits").mkdir()
    for index, image in enumerate(digits[0][:3]):
        Image.fromarray(image).save(f"digits/{index}.png")
    (example,) = (block for block in PYTHON if "import preimage" in block)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["codes"].shape == (3, 12)
    assert names["pictures"].shape == (3, 1, 28, 28)
    pixels = torch.from_numpy(digits[0][:3])[:, None]
    assert torch.allclose(names["codes"], names["model"].encode(pixels), atol=1e-6)


def test_every_command_can_be_given_as_it_stands(
    tiny_imagenet: Path, idx_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["preimage"])
    Path("configs").symlink_to(ROOT / "configs")
    Path("tiny-imagenet-200.zip").symlink_to(tiny_imagenet)
    main(["fit", *PLAIN, "--run_dir=RUN"])
    Path("YOUR_IMAGES").mkdir()
    for index in range(30):
        Image.new("RGB", (70, 64), (index * 8, 0, 0)).save(f"YOUR_IMAGES/{index}.png")
    # What trains for long, or with weights from elsewhere, is left to the tests of the command.
    left: list[Any] = []
    monkeypatch.setattr("preimage.evaluation.atlas.draw_atlas", lambda options, rest: left.extend(rest))
    monkeypatch.setattr("preimage.commands.sweep._Job.finished", True)
    small = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"]
    small += ["--trainer.callbacks=null", "--curves=null", "--trainer.enable_model_summary=false"]
    mnist = ["--data.download=false", f"--data.root={idx_root}", "--data.val_size=100"]
    for number, line in enumerate(line for line in COMMANDS if "mine." not in line):
        _, command, *flags = line.split("#")[0].split()
        flags += ["--weights=random", "--image_size=98"] * (command == "predict" and "--network" in flags)
        if command == "fit":
            flags += small + mnist * ("mnist" in line) + [f"--trainer.max_epochs={number + 1}"]
            flags += ["--print_config"] * ("ddp" in line)
        with pytest.raises(SystemExit, match="0") if {"--help", "--print_config"} & set(flags) else nullcontext():
            main([command, *flags])
    assert left == ["--data.root=tiny-imagenet-200.zip"]
    assert "point_011" in Path("runs/sweeps/vae_beta/sweep.csv").read_text()
    assert "vae_cpu" in Path("report/report.md").read_text()
    assert Path("RUN/predictions.npz").is_file()
    assert max(values(Path("runs/mnist/autoencoder/version_0"), "epoch")) >= 4  # it went on


def test_what_it_names_is_there() -> None:
    for path in re.findall(r"(?:configs|benchmarks|assets)/[\w/]+\.\w+", README + (ROOT / "RESULTS.md").read_text()):
        assert (ROOT / path).exists(), path
