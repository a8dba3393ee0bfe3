import resource
from pathlib import Path

import pytest
import torch

from preimage.evaluation.measures import _peak


@pytest.mark.parametrize(("platform", "unit"), [("darwin", 1), ("freebsd14", 1024)])
def test_the_peak_of_the_process_is_in_bytes_where_linuxs_files_are_missing(
    monkeypatch: pytest.MonkeyPatch, platform: str, unit: int
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.setattr("sys.platform", platform)
    assert _peak(torch.device("cpu")) == unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
