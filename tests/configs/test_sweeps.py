"""The sweeps that are shipped are those of this command line."""

import sys
from pathlib import Path

import pytest
import yaml

from preimage.__main__ import main
from preimage.sweep_file import points_of, read_sweep
from tests.conftest import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "configs/sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_sweep_names_options_that_there_are(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["preimage"])
    content = read_sweep(path)
    assert content["program"] == "main.py"
    head, (subcommand, *rest), tail = content["command"][:3], content["command"][3:-1], content["command"][-1]
    assert (head, tail) == (["${env}", "${interpreter}", "${program}"], "${args}")
    point = points_of(content, 1, seed=0)[0]
    flags = [f"--{name}={value}" for name, value in point.items()]  # as W&B's agent writes them
    with pytest.raises(SystemExit) as stop:
        main([subcommand, *rest, *flags, "--print_config"])
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["test_after_fit"]
    assert config["trainer"]["logger"]["class_path"] == "preimage.loggers.WandbRunLogger"
