from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from callbacks import CodePlane, Interpolation, Traversal
from callbacks.pictures import Picture
from datamodules import MNISTDataModule
from lightning_modules import (
    VAE,
    Autoencoder,
    Classifier,
    Inversion,
    MLPHead,
    MNISTDecoder,
    MNISTEncoder,
    MNISTGaussianEncoder,
)
from preimage.loggers import RunLogger
from tests.lightning_modules.test_base import trainer


def test_interpolation_runs_from_one_image_to_the_other(tmp_path: Path) -> None:
    """With codes that are the images themselves, the path is their cross-fade."""
    model = Autoencoder(nn.Flatten(), nn.Unflatten(1, (1, 28, 28)))
    picture = Interpolation(pairs=3, steps=3, every_n_epochs=1)
    run = trainer(tmp_path, callbacks=[picture], logger=RunLogger(tmp_path))
    run.test(model, MNISTDataModule(), verbose=False)
    grid = np.asarray(Image.open(tmp_path / "images/interpolation/test.png"))[:, :, 0].astype(float)
    cells = [[grid[2 + 58 * row :][:56, 2 + 58 * column :][:, :56] for column in range(5)] for row in range(3)]
    for row in cells:
        assert np.array_equal(row[0], row[1])  # the image and its code, decoded
        assert np.array_equal(row[3], row[4])
        assert not np.array_equal(row[0], row[4])
        assert np.allclose(row[2], (row[0] + row[4]) / 2, atol=1)


def test_traversal_moves_the_most_active_dimensions_one_at_a_time() -> None:
    codes = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.1, 3.0, 0.0, 2.0])
    codes += 1
    walk = Traversal(dimensions=3, steps=5, span=2.0).walk(codes).view(3, 5, 5)
    for row, dimension, scale in zip(walk, (2, 4, 0), (3.0, 2.0, 1.0), strict=True):
        expected = 1 + scale * torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
        assert torch.allclose(row[:, dimension], expected, atol=0.2)
        others = [index for index in range(5) if index != dimension]
        assert torch.equal(row[:, others], codes[0, others].expand(5, 4))


def test_walks_are_drawn_of_models_that_decode(tmp_path: Path) -> None:
    pictures = [Interpolation(pairs=2, steps=4), Traversal(dimensions=3, steps=5)]
    vae = VAE(MNISTGaussianEncoder(4), MNISTDecoder(4), latent_dim=4)
    trainer(tmp_path, callbacks=list(pictures), logger=RunLogger(tmp_path)).test(vae, MNISTDataModule(), verbose=False)
    assert np.asarray(Image.open(tmp_path / "images/interpolation/test.png")).shape == (2 * 58 + 2, 6 * 58 + 2, 3)
    assert np.asarray(Image.open(tmp_path / "images/traversal/test.png")).shape == (3 * 58 + 2, 5 * 58 + 2, 3)
    run = trainer(tmp_path, callbacks=list(pictures), logger=RunLogger(tmp_path / "other"))
    run.test(Classifier(MNISTEncoder(), MLPHead()), MNISTDataModule(), verbose=False)
    assert not (tmp_path / "other/images").exists()


@pytest.mark.parametrize("picture", [Interpolation(pairs=2, steps=3), Traversal(steps=3), CodePlane(steps=3)])
def test_codes_are_decoded_as_in_training(tmp_path: Path, picture: Picture) -> None:
    model = Inversion(MNISTEncoder(2), MNISTDecoder(2), encoder_checkpoint=None, standardize=True)
    model.code_mean.fill_(30.0)
    model.code_std.fill_(0.01)
    seen: list[torch.Tensor] = []
    model.decoder.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].flatten() if not args[0].is_meta else torch.empty(0))
    )
    run = trainer(tmp_path, callbacks=[picture], logger=RunLogger(tmp_path))
    run.test(model, MNISTDataModule(), verbose=False)
    codes = torch.cat(seen)
    seen.clear()
    picture.draw(run, model)  # of codes near 0, which are far from what the decoder is given of them
    drawn = torch.cat(seen)
    assert drawn.mean() == pytest.approx(-3000, rel=0.1) and codes.mean() == pytest.approx(-3000, rel=0.1)
