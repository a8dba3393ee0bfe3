"""The examples of the README do what it says."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.conftest import QUICK, ROOT, Digits, Run
from tests.preimage.test_cli import values

README = (ROOT / "README.md").read_text()
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


def test_what_it_names_is_there() -> None:
    for path in re.findall(r"(?:configs|benchmarks|assets)/[\w/]+\.\w+", README + (ROOT / "RESULTS.md").read_text()):
        assert (ROOT / path).exists(), path
