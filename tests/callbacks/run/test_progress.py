import re
import sys

import pytest

import callbacks.run.progress
import preimage.progress
from preimage.progress import Progress
from tests.conftest import PLAIN, QUICK, Run


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


class Clock:
    """Goes on by some seconds whenever it is read."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def monotonic(self) -> float:
        self.now += self.tick
        return self.now


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock takes 16 s; there are one or two in a batch."""
    clock = Clock(16.0)
    monkeypatch.setattr(callbacks.run.progress, "time", clock)
    monkeypatch.setattr(preimage.progress, "time", clock)


def test_a_log_file_says_how_far_a_long_epoch_is(run: Run, capsys: pytest.CaptureFixture[str], slow: None) -> None:
    run("fit", *QUICK, "--trainer.limit_train_batches=9", "--data.val_size=2000", "--test_after_fit")
    out = capsys.readouterr().out
    for name, total in (("epoch 1/1", 9), ("validation", 8), ("test", 4)):
        lines = re.findall(rf"^{name}: .* (\d)/{total} \[(\d\d):(\d\d)<(\d\d):(\d\d), .*batches", out, re.MULTILINE)
        assert lines, name
        for done, *clock in lines:
            minutes, seconds, minutes_left, seconds_left = map(int, clock)
            passed, left = 60 * minutes + seconds, 60 * minutes_left + seconds_left
            assert passed >= 30
            assert left == pytest.approx(passed / (int(done) - 1) * (total - int(done)), abs=1)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_fit_estimates_the_whole_after_a_minute(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, slow: None, terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    run("fit", *PLAIN, "--trainer.limit_train_batches=9", "--trainer.max_epochs=10")
    (line,) = re.findall(
        r"about (\S+) for the whole training, (\S+) of it left, at ([\d.]+) steps", capsys.readouterr().out
    )
    whole, left = (sum(int(x) * y for x, y in zip(part.split(":"), (3600, 60, 1), strict=True)) for part in line[:2])
    assert whole == pytest.approx(90 / float(line[2]), rel=0.01)
    assert 60 <= whole - left < 100


def test_a_fit_that_is_nearly_over_estimates_nothing(run: Run, capsys: pytest.CaptureFixture[str], slow: None) -> None:
    run("fit", *PLAIN)  # whose third and last step is over after a minute
    assert "whole training" not in capsys.readouterr().out


def test_what_is_decoded_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preimage.progress, "time", Clock(16.0))
    assert list(Progress(range(5), desc="decoding", unit="images")) == [0, 1, 2, 3, 4]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "decoding:  40% 2/5 [00:32<00:48, 16.00s/images]"
    assert len(lines) == 2
