import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from callbacks import ModelParts
from callbacks.run import scale
from callbacks.run.scale import training_memory
from datamodules import MNISTDataModule
from lightning_modules import Autoencoder, FaceDecoder, FaceEncoder, Inversion, MNISTDecoder, MNISTEncoder
from tests.conftest import QUICK, Fails, Run
from tests.lightning_modules.test_base import trainer


def test_the_full_size_takes_sixteen_bytes_a_parameter_and_a_frozen_part_four() -> None:
    with torch.device("meta"):
        model = nn.ModuleList([FaceEncoder(), FaceDecoder()])
    assert training_memory(model) == 16 * 370_234_629
    assert training_memory(model, shards=4) == 7 * 370_234_629
    model[1].requires_grad_(False)
    assert training_memory(model) == 16 * 84_320_258 + 4 * 285_914_371
    assert training_memory(nn.Linear(9, 1, dtype=torch.bfloat16)) == 4 * 2 * 10


def test_it_is_the_memory_that_adam_has_in_the_end(tmp_path: Path) -> None:
    model = Inversion(MNISTEncoder(), MNISTDecoder(), encoder_checkpoint=None)
    run = trainer(tmp_path)
    run.fit(model, MNISTDataModule())
    moments = [value for state in run.optimizers[0].state.values() for key, value in state.items() if key != "step"]
    tensors = [*model.parameters(), *moments, *(p for p in model.parameters() if p.requires_grad)]
    assert training_memory(model) == sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_it_is_said_at_every_fit(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run("fit", *QUICK)
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("memory: ")]
    assert "0.1 M parameters take 0.00 GB with their gradients and two moments (Adam)" in line


def test_the_parts_of_a_model_are_counted(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run("fit", *QUICK, "--trainer.enable_model_summary=true", "--model.encoder.latent_dim=3")
    texts = [record.getMessage() for record in caplog.records]
    (text,) = [text for text in texts if text.startswith("part")]
    encoder, decoder = (sum(p.numel() for p in net.parameters()) for net in (MNISTEncoder(3), MNISTDecoder(3)))
    assert [line.split() for line in text.splitlines()] == [
        ["part", "class", "parameters", "trained"],
        ["encoder", "MNISTEncoder", *[f"{encoder:,}"] * 2],
        ["decoder", "MNISTDecoder", *[f"{decoder:,}"] * 2],
        ["in", "all", "Autoencoder", *[f"{encoder + decoder:,}"] * 2],
    ]
    assert not [text for text in texts if "FLOP" in text or "model summary" in text]


def test_what_is_frozen_is_not_counted_as_trained(caplog: pytest.LogCaptureFixture) -> None:
    model = Inversion(MNISTEncoder(), MNISTDecoder(), encoder_checkpoint=None)
    model.scale = nn.Parameter(torch.ones(7))
    with caplog.at_level("INFO"):
        ModelParts().on_fit_start(Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"), model)
    rows = {line.split("  ")[0]: line.split()[-2:] for line in caplog.messages[-1].splitlines()}
    encoder, decoder = (f"{sum(p.numel() for p in net.parameters()):,}" for net in (model.encoder, model.decoder))
    assert (rows["encoder"], rows["decoder"], rows["scale"]) == ([encoder, "0"], [decoder, decoder], ["7", "7"])


def test_a_model_that_does_not_fit_is_refused_before_a_run_is_made(
    fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "device_memory", lambda device: 500_000)
    line = fails("fit", *QUICK)
    assert "0.1 M parameters take 0.00 GB" in line
    assert "cpu has 0.00 GB" in line
    assert "take a smaller model" in line
    assert not (tmp_path / "runs").exists()


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, none = tmp_path / "memory.max", tmp_path / "no"
    monkeypatch.setattr(scale, "CONTAINER_LIMITS", (limit, none))
    physical = scale.device_memory(torch.device("cpu"))
    assert physical == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for text, expected in (("max\n", physical), ("123456\n", 123456), (f"{2**63 - 4096}\n", physical)):
        limit.write_text(text)
        assert scale.device_memory(torch.device("cpu")) == expected


def test_processes_on_one_machine_share_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = Autoencoder(MNISTEncoder(), MNISTDecoder())
    monkeypatch.setattr(scale, "device_memory", lambda device: 3 * training_memory(model))
    for devices, fits in ((2, True), (4, False)):
        run = trainer(tmp_path, devices=devices, strategy="ddp")
        if fits:
            scale.ModelMemory().setup(run, model, "fit")
        else:
            with pytest.raises(ValueError, match="GB for each process"):
                scale.ModelMemory().setup(run, model, "fit")
            scale.ModelMemory().setup(run, model, "test")
