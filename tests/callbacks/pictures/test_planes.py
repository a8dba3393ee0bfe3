from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from callbacks import CodePlane
from callbacks.pictures.grids import image_grid
from callbacks.pictures.planes import code_axes, plane_figure
from datamodules import MNISTDataModule
from lightning_modules import Autoencoder, ClassifierReconstructor, MNISTDecoder, MNISTEncoder
from preimage.loggers import RunLogger
from tests.lightning_modules.test_base import trainer


@pytest.mark.parametrize("latent_dim", [2, 5])
def test_the_grid_spans_the_codes_of_the_split(tmp_path: Path, latent_dim: int) -> None:
    torch.manual_seed(0)
    data, model = MNISTDataModule(), Autoencoder(MNISTEncoder(latent_dim), MNISTDecoder(latent_dim))
    plane = CodePlane(steps=3)
    run = trainer(tmp_path, callbacks=[plane], logger=RunLogger(tmp_path))
    run.test(model, data, verbose=False)
    assert (tmp_path / "images/code_plane/test.png").is_file()
    with torch.no_grad():
        codes = model.encoder(data.test_set.images.float() / 255).numpy()
    if latent_dim == 2:
        scores, back = codes, lambda point: point
    else:
        pca = PCA(2, random_state=0).fit(codes)
        scores, back = pca.transform(codes), pca.inverse_transform
    low, high = np.quantile(scores, [0.01, 0.99], axis=0)
    points = [[x, y] for y in np.linspace(high[1], low[1], 3) for x in np.linspace(low[0], high[0], 3)]
    with torch.no_grad():
        expected = image_grid(model.decoder(torch.tensor(back(np.array(points))).float()), 3)
    figure = plane.draw(run, model)
    assert figure is not None
    drawn = np.asarray(figure.axes[0].images[0].get_array()).astype(int)
    assert np.abs(drawn - expected).max() <= 1
    ticks = [float(tick.get_text().replace("\N{MINUS SIGN}", "-")) for tick in figure.axes[0].get_xticklabels()]
    assert ticks == pytest.approx(np.linspace(low[0], high[0], 3).tolist(), rel=0.1, abs=0.01)


def test_axes_of_logits_carry_the_names_of_the_classes(tmp_path: Path) -> None:
    model = ClassifierReconstructor(MNISTEncoder(2), MNISTDecoder(2))
    data = MNISTDataModule()
    data.setup("test")
    data.test_set.labels %= 2
    data.class_names = ["even", "odd"]
    plane = CodePlane(steps=2)
    run = trainer(tmp_path, callbacks=[plane], logger=RunLogger(tmp_path))
    run.test(model, data, verbose=False)
    figure = plane.draw(run, model)
    assert figure is not None
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("logit of even", "logit of odd")


def test_axes_of_a_wide_code_are_orthonormal_and_a_figure_keeps_its_order() -> None:
    centre, axes = code_axes(torch.randn(50, 6))
    assert centre.shape == (6,)
    assert torch.allclose(axes @ axes.T, torch.eye(2), atol=1e-5)
    shades = torch.arange(4).view(4, 1, 1, 1).expand(4, 1, 64, 64) / 3
    figure = plane_figure(shades, torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), ["x", "y"])
    cells = np.asarray(figure.axes[0].images[0].get_array())[33::66, 33::66, 0]
    assert cells.tolist() == [[0, 85], [170, 255]]


@pytest.mark.parametrize(
    ("values", "labels"),
    [([-0.0602, -0.0607], ["-0.06020", "-0.06070"]), ([-1.5, 2.5], ["-1.5", "2.5"]), ([100.0, 380.0], ["100", "380"])],
)
def test_neighbours_on_an_axis_have_labels_of_their_own(values: list[float], labels: list[str]) -> None:
    figure = plane_figure(torch.zeros(4, 1, 8, 8), torch.tensor(values), torch.tensor([1.0, 1.0]), ["x", "y"])
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == labels


@pytest.mark.parametrize("model", ["narrow", "none"])
def test_nothing_is_drawn_of_one_number_or_without_a_decoder(tmp_path: Path, model: str) -> None:
    chosen = (
        Autoencoder(MNISTEncoder(1), MNISTDecoder(1))
        if model == "narrow"
        else ClassifierReconstructor(MNISTEncoder(), MNISTDecoder(), 12, 10, reconstruction="none")
    )
    run = trainer(tmp_path, callbacks=[CodePlane()], logger=RunLogger(tmp_path))
    run.test(chosen, MNISTDataModule(), verbose=False)
    assert not (tmp_path / "images").exists()
