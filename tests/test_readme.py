"""The examples of the README do what it says."""

import re
from pathlib import Path

import pytest

from tests.conftest import QUICK, ROOT, Run
from tests.preimage.test_cli import values

README = (ROOT / "README.md").read_text()


def test_the_examples_run_as_they_stand(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL)))
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^preimage fit --config configs/quickstart.yaml (--\w+\S* mine\..*)$", README, re.MULTILINE)
    assert len(commands) == 2
    quick = [flag for flag in QUICK if flag not in ("--data.val_size", "64")]
    for command in commands:
        runs = run("fit", *quick, *command.split(), "--test_after_fit")
    for number in range(2):
        assert 0 < values(runs / f"quickstart/version_{number}", "test/mse")[0] < 0.5


def test_what_it_names_is_there() -> None:
    for path in re.findall(r"(?:configs|benchmarks|assets)/[\w/]+\.\w+", README):
        assert (ROOT / path).exists(), path
