import re
import sys

import pytest

from tests.conftest import QUICK, Run


def test_a_log_file_gets_a_line_per_epoch(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("fit", *QUICK, "--trainer.max_epochs", 3)
    lines = re.findall(r"epoch (\d)/3  train/loss ([\d.]+)  val/loss ([\d.]+)", capsys.readouterr().out)
    assert [number for number, *_ in lines] == ["1", "2", "3"]
    assert all(float(value) > 0 for _, *numbers in lines for value in numbers)


def test_a_terminal_gets_a_bar_with_the_numbers(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    run("fit", *QUICK, "--trainer.max_epochs", 2)
    out = capsys.readouterr().out
    assert "val/psnr=" in out
    assert "loss=" in out
    assert "epoch 1/2  train" not in out
