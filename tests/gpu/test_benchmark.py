from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT


def test_the_benchmark_runs_in_tiny_sizes_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    ways = ["bf16, channels_last, compiled", "bf16, NCCL with one rank, SyncBatchNorm", "bf16, FSDP on one device"]
    monkeypatch.setattr(gpu, "SYSTEMS", {"VAE": gpu.SYSTEMS["VAE"], "none": ("mnist/vae.yaml", ["--model.none=1"])})
    monkeypatch.setattr(gpu, "WAYS", {name: gpu.WAYS[name] for name in ways})
    gpu.main(["--tiny", str(tmp_path / "table.md")])
    _, _, *lines = (tmp_path / "table.md").read_text().splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines[2:]}
    assert list(cells) == ["VAE", "none", *(f"real_fake_full: {way}" for way in ways[:2])]
    rate, bare, ratio, _ = cells.pop("VAE")
    to_number = [float(cell.replace(",", "")) for cell in (rate, bare)]
    assert to_number[0] / to_number[1] == pytest.approx(float(ratio), abs=0.01)
    assert cells.pop("none")[0].startswith("failed: SystemExit")
    assert all(float(row[0]) > 0 for row in cells.values())
    assert not torch.distributed.is_initialized()


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU here"):
        gpu.main([])
