from pathlib import Path

import numpy as np
import pytest
import torch

from callbacks import GradientNorms
from callbacks.pictures.curves import curves_figure
from datamodules import MNISTDataModule
from lightning_modules import Autoencoder, Classifier, MLPHead, MNISTDecoder, MNISTEncoder
from preimage.files import read_metrics
from preimage.loggers import RunLogger
from tests.lightning_modules.test_base import trainer


def norms(path: Path) -> list[dict[str, float]]:
    rows = [
        {key.removeprefix("gradient_norm/"): value for key, value in row.items() if "gradient" in key}
        for row in read_metrics(path)
    ]
    return [row for row in rows if row]


def test_norms_are_those_of_the_gradients(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = Autoencoder(MNISTEncoder(), MNISTDecoder()), MNISTDataModule(batch_size=400, val_size=3600)
    data.setup("fit")
    images = data.train_set.images.float() / 255
    torch.nn.functional.mse_loss(model(images), images).backward()
    expected = {
        part: sum(float(p.grad.square().sum()) for p in model.get_submodule(part).parameters() if p.grad is not None)
        for part in ("encoder", "decoder", "encoder.0", "decoder.6")
    }
    model.zero_grad()
    for depth, parts in ((1, ("encoder", "decoder")), (2, ("encoder.0", "decoder.6"))):
        folder = tmp_path / str(depth)
        run = trainer(folder, callbacks=[GradientNorms(depth)], logger=RunLogger(folder), log_every_n_steps=1)
        run.fit(model, data)
        (row,) = norms(folder / "metrics.csv")[:1]
        assert len(row) == (2 if depth == 1 else 8)
        for part in parts:
            if depth == 1:  # the second fit starts from other weights
                assert row[part] == pytest.approx(expected[part] ** 0.5, rel=1e-4)
            assert row[part] > 0


def test_it_looks_only_now_and_then_and_leaves_frozen_layers_out(tmp_path: Path) -> None:
    model = Classifier(MNISTEncoder(), MLPHead(), freeze_encoder=True)
    options = {"logger": RunLogger(tmp_path), "log_every_n_steps": 4, "limit_train_batches": 9}
    trainer(tmp_path, callbacks=[GradientNorms(depth=1)], **options).fit(model, MNISTDataModule())
    rows = norms(tmp_path / "metrics.csv")
    assert [set(row) for row in rows] == [{"head"}] * 3
    figure = curves_figure(tmp_path / "metrics.csv")
    assert figure is not None
    (panel,) = [axes for axes in figure.axes if axes.get_title() == "gradient_norm"]
    assert np.array_equal(panel.get_lines()[0].get_xdata(), [0, 4, 8])


def test_a_training_that_logs_no_steps_has_no_norms(tmp_path: Path) -> None:
    run = trainer(tmp_path, callbacks=[GradientNorms()], logger=RunLogger(tmp_path), log_every_n_steps=0)
    run.fit(Autoencoder(MNISTEncoder(), MNISTDecoder()), MNISTDataModule(batch_size=400, val_size=3600))
    assert not norms(tmp_path / "metrics.csv")
