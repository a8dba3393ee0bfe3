import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from callbacks import CPUPrecision
from datamodules import MNISTDataModule
from lightning_modules import Autoencoder, MNISTDecoder, MNISTEncoder
from tests.conftest import QUICK, ROOT, Run
from tests.lightning_modules.test_base import trainer


def machine(monkeypatch: pytest.MonkeyPatch, *known: torch.dtype) -> None:
    """Takes the place of the question to the processor."""
    monkeypatch.setattr("callbacks.run.speed.has_instructions", lambda dtype: dtype in known)


@pytest.mark.parametrize(
    ("asked", "known", "force", "used"),
    [
        ("bf16-mixed", [], False, "32-true"),
        ("bf16-mixed", [torch.bfloat16], False, "bf16-mixed"),
        ("bf16-mixed", [torch.float16], False, "32-true"),
        ("bf16-mixed", [], True, "bf16-mixed"),
        ("16-mixed", [torch.float16], False, "32-true"),  # which Lightning takes for bf16-mixed on a CPU
        ("bf16-true", [], False, "32-true"),
        ("16-true", [torch.bfloat16], False, "32-true"),
        ("16-true", [torch.float16], False, "16-true"),
        ("64-true", [], False, "64-true"),
    ],
)
def test_precisions(
    asked: str, known: list[torch.dtype], force: bool, used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, *known)
    callback, run = CPUPrecision(force), trainer(tmp_path, precision=asked)
    for _ in range(2):  # a fit and its test
        callback.setup(run, Autoencoder(MNISTEncoder(), MNISTDecoder()), "fit")
        assert run.precision == used


def test_all_machines_of_a_run_compute_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, torch.bfloat16)
    run = trainer(tmp_path, precision="bf16-mixed")
    monkeypatch.setattr(run.strategy, "reduce_boolean_decision", lambda decision: False)  # another one cannot
    CPUPrecision().setup(run, Autoencoder(MNISTEncoder(), MNISTDecoder()), "fit")
    assert run.precision == "32-true"


def test_a_model_is_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    model = Autoencoder(MNISTEncoder(), MNISTDecoder())
    run = trainer(tmp_path, precision="bf16-true", callbacks=[CPUPrecision()])
    run.validate(model, MNISTDataModule(), verbose=False)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_one_line_says_so_and_the_config_keeps_what_was_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine(monkeypatch)
    caplog.set_level("INFO", "lightning.pytorch")
    saved = {}
    for precision in ("32-true", "bf16-mixed"):
        caplog.clear()
        flags = [*QUICK, "--trainer.callbacks=null", f"--name={precision}", "--test_after_fit"]
        folder = run("fit", *flags, "--trainer.precision", precision) / precision / "version_0"
        saved[precision] = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        assert saved[precision]["provenance"]["precision"] == "32-true"
        assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["precision"] == precision
    lines = [record.getMessage() for record in caplog.records if "precision: " in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("precision: 32-true, not trainer.precision=bf16-mixed, since this CPU has no bfloat16")
    assert "--cpu_precision.force true" in lines[0]
    states = [saved[precision]["state_dict"] for precision in saved]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN can be held back on x86 alone")
def test_a_processor_is_asked_in_the_way_that_torch_computes() -> None:
    code = "import torch; from preimage.private_api import has_instructions as has; "
    code += "assert not has(torch.bfloat16) and not has(torch.float16)"
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "SSE41"}  # which has neither, as any older processor
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=ROOT, timeout=120)
