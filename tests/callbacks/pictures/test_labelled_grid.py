from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image
from torch.nn.functional import interpolate

from callbacks import LabelledGrid
from callbacks.pictures.labelled_grid import labelled_figure
from datamodules import ImageFolderDataModule, MNISTDataModule
from lightning_modules import (
    Autoencoder,
    ClassifierReconstructor,
    FaceDecoder,
    FaceEncoder,
    MNISTDecoder,
    MNISTEncoder,
)
from preimage.loggers import RunLogger
from tests.lightning_modules.test_base import trainer


@pytest.mark.parametrize("reconstruction", ["joint", "none"])
def test_rows_are_what_the_encoder_sees_the_target_and_the_reconstruction(
    tmp_path: Path, face_root: Path, reconstruction: Any
) -> None:
    data = ImageFolderDataModule(str(face_root), image_size=256, cache_dir=str(tmp_path / "cache"))
    networks = FaceEncoder(width=0.02), FaceDecoder(width=0.02)
    model = ClassifierReconstructor(*networks, reconstruction=reconstruction)
    grid = LabelledGrid(count=4)
    run = trainer(tmp_path, callbacks=[grid], logger=RunLogger(tmp_path))
    run.test(model, data, verbose=False)
    assert Image.open(tmp_path / "images/labelled/test.png").size[0] > 300
    figure = grid.draw(run, LightningModule())  # whatever the model: the outputs of its steps say it all
    assert figure is not None
    titles = [axes.get_title() for axes in figure.axes[:4]]
    shown = data.test_set.images[::2].float() / 255  # 4 of 8, spread evenly
    with torch.no_grad():
        probability = model(shown).softmax(1)
    names = [data.class_names[index] for index in data.test_set.labels[::2].tolist()]
    for title, name, (fake, real) in zip(titles, names, probability.tolist(), strict=True):
        best = f"predicted fake {fake:.0%}" if fake >= real else f"predicted real {real:.0%}"
        assert title == f"{name}\n{best}"
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert len(pictures) == (12 if reconstruction == "joint" else 4)
    luma = torch.einsum("nchw,c->nhw", shown, torch.tensor([0.2989, 0.587, 0.114]))[:, None]
    assert np.allclose(pictures[1], interpolate(luma, (128, 128), mode="bilinear", antialias=True)[1, 0], atol=1e-6)
    if reconstruction == "joint":
        assert np.allclose(pictures[5], shown[1].permute(1, 2, 0))
        assert np.allclose(pictures[9], model.reconstruct(shown)[1].detach().permute(1, 2, 0), atol=1e-6)


def test_right_wrong_and_unlabelled_differ() -> None:
    images, probabilities = torch.rand(3, 3, 8, 8), torch.tensor([[0.9, 0.1]] * 3)
    figure = labelled_figure({"image": images}, torch.tensor([0, 1, -1]), probabilities, ["fake", "real"])
    titles = [axes.title for axes in figure.axes]
    assert [title.get_color() for title in titles] == ["green", "red", "gray"]
    assert [title.get_text().split("\n")[0] for title in titles] == ["fake", "real", "unlabelled"]


def test_it_needs_a_model_that_classifies(tmp_path: Path) -> None:
    run = trainer(tmp_path, callbacks=[LabelledGrid()], logger=RunLogger(tmp_path))
    run.test(Autoencoder(MNISTEncoder(), MNISTDecoder()), MNISTDataModule(), verbose=False)
    assert not (tmp_path / "images").exists()
