import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from preimage.files import git_commit
from tests.conftest import QUICK, ROOT, Run


def provenance(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)["provenance"]
    return found


def test_a_checkpoint_says_how_long_it_was_trained_and_a_resumed_run_goes_on_counting(run: Run) -> None:
    start = time.monotonic()
    folder = run("fit", *QUICK, "--trainer.callbacks=null") / "quickstart/version_0"
    first = provenance(folder)
    assert 0 < first["minutes"] < (time.monotonic() - start) / 60
    assert first["git_commit"] == git_commit()
    torch_file = folder / "checkpoints/last.ckpt"
    checkpoint = torch.load(torch_file, weights_only=True)
    checkpoint["provenance"]["minutes"] = 1000.0
    torch.save(checkpoint, torch_file)
    run("fit", "--config", folder / "config.yaml", "--ckpt_path", torch_file, "--trainer.max_epochs", 2)
    assert 1000 < provenance(folder)["minutes"] < 1010


def test_the_commit_is_gits_and_none_outside_a_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("preimage.files.__file__", str(tmp_path / "provenance.py"))
    assert git_commit() is None
    monkeypatch.undo()
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        assert re.fullmatch(f"{head}(-dirty)?", str(git_commit()))
