from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from datamodules import MNISTDataModule
from lightning_modules import Autoencoder, Inversion, MNISTDecoder, MNISTEncoder, OptimizationInversion
from lightning_modules.inversion import at_common_size, norm, total_variation
from lightning_modules.metrics import NormalizedError
from tests.lightning_modules.test_base import trainer


def test_the_normalised_error_is_that_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 256, (700, 3, 5, 5), generator=generator) / 255
    preds = (targets + 0.1 * torch.randn(targets.shape, generator=generator)).clamp(0, 1)
    metric = NormalizedError()
    for part in zip(preds.split(64), targets.split(64), strict=True):
        metric.update(*part)
    errors = np.linalg.norm((preds - targets).flatten(1), axis=1)
    assert float(metric.compute()) == pytest.approx(errors.mean() / pdist(targets.flatten(1)).mean(), rel=1e-4)


def test_the_normalised_error_of_many_images_is_within_a_percent_of_that_from_all_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 200, (5, 1, 3, 6, 6), generator=generator)  # whose images follow each other
    targets = ((classes + torch.randint(0, 56, (5, 300, 3, 6, 6), generator=generator)) / 255).flatten(0, 1)
    values = []
    for most in (10**11, 0):
        monkeypatch.setattr("lightning_modules.metrics._PRODUCTS", most)
        metric = NormalizedError()
        metric.update(targets.flip(3), targets)
        values.append(float(metric.compute()))
    assert values[0] != values[1] == pytest.approx(values[0], rel=0.01)


def test_test_metrics_at_own_and_common_size_and_of_the_features(tmp_path: Path) -> None:
    data, model = MNISTDataModule(), Inversion(MNISTEncoder(), MNISTDecoder(), encoder_checkpoint=None)
    (values,) = trainer(tmp_path, limit_test_batches=1.0).test(model, data, verbose=False)
    images = data.test_set.images.float() / 255
    model.eval()
    with torch.no_grad():
        code, reconstruction = model.encoder(images), model(images)
        again = model.encoder(reconstruction)
        large = [F.interpolate(part, (64, 64), mode="bilinear", antialias=True) for part in (reconstruction, images)]
    assert values["test/feature_error"] == pytest.approx(
        float(((again - code).norm(dim=1) / code.norm(dim=1)).mean()), rel=1e-4
    )
    errors = (reconstruction - images).flatten(1).norm(dim=1)
    assert values["test/normalized_error"] == pytest.approx(
        float(errors.mean()) / pdist(images.flatten(1)).mean(), rel=1e-4
    )
    mse = (large[0] - large[1]).square().mean(dim=(1, 2, 3))
    assert values["test/mse_64"] == pytest.approx(float(mse.mean()), rel=1e-4)
    assert values["test/psnr_64"] == pytest.approx(float((-10 * mse.log10()).mean()), rel=1e-4)
    assert {"test/ssim_64", "test/normalized_error_64"} < set(values)
    assert at_common_size(large[0]) is large[0]


def test_a_small_decoder_is_held_against_the_whole_image(tmp_path: Path) -> None:
    small = nn.Sequential(nn.Unflatten(1, (1, 28, 28)), nn.AvgPool2d(4))  # a perfect decoder, of 7 x 7 pixels
    model = Inversion(nn.Flatten(), small, encoder_checkpoint=None)
    (values,) = trainer(tmp_path).test(model, MNISTDataModule(), verbose=False)
    assert values["test/psnr"] > 20
    assert values["test/psnr_64"] < 17


@pytest.mark.parametrize("cached", [False, True])
def test_a_decoder_is_given_standardised_codes(tmp_path: Path, cached: bool) -> None:
    class Skewed(nn.Flatten):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 7 * super().forward(images) + 100

    decoder = nn.Sequential(nn.Linear(784, 784), nn.Unflatten(1, (1, 28, 28)), nn.Sigmoid())
    model = Inversion(Skewed(), decoder, encoder_checkpoint=None, standardize=True, cache_codes=cached)
    data = MNISTDataModule(num_labels=100, cache_dir=str(tmp_path))
    trainer(tmp_path, max_epochs=1).fit(model, data)
    values = 7 * data.train_set.images.double() / 255 + 100
    assert float(model.code_mean) == pytest.approx(float(values.mean()), rel=1e-5)
    assert float(model.code_std) == pytest.approx(float(values.std()), rel=1e-3)
    seen: list[torch.Tensor] = []
    decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = data.train_set.images.float() / 255
    rebuilt = model(images)
    assert float(seen[0].mean()) == pytest.approx(0, abs=1e-3)
    assert float(seen[0].std()) == pytest.approx(1, abs=1e-3)
    again = Inversion(Skewed(), decoder, encoder_checkpoint=None, standardize=True)
    again.load_state_dict(model.state_dict())  # what codes are standardised by travels with the decoder
    assert again(images).equal(rebuilt)


def test_codes_of_other_data_cannot_be_standardised(tmp_path: Path) -> None:
    model = Inversion(MNISTEncoder(), MNISTDecoder(), encoder_checkpoint=None, standardize=True)
    loader = DataLoader(TensorDataset(torch.rand(4, 1, 28, 28), torch.zeros(4)))
    with pytest.raises(ValueError, match=r"model.standardize needs one of our data modules"):
        trainer(tmp_path).fit(model, loader)


def test_total_variation_and_norm_of_images_one_can_count() -> None:
    images = torch.full((2, 1, 4, 4), 0.5)
    images[1, 0, :, 2:] = 1.0  # one edge of height 0.5, crossed in four rows
    assert total_variation(images).tolist() == [0.0, 4 * 0.25 / 16]
    assert norm(images).tolist() == [0.0, 0.5]


def test_optimisation_finds_the_image_where_the_code_determines_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 784))
    nn.init.orthogonal_(encoder[1].weight)  # type: ignore[arg-type]
    search = OptimizationInversion(
        encoder, image_size=28, channels=1, steps=300, variation_weight=0, norm_weight=0, lr=0.02
    )
    run = trainer(tmp_path, limit_test_batches=1)
    (values,) = run.test(search, MNISTDataModule(batch_size=8), verbose=False)
    assert values["test/psnr"] > 30
    assert values["test/feature_error"] < 0.1
    rough = OptimizationInversion(encoder, image_size=28, channels=1, steps=300, variation_weight=10.0, lr=0.02)
    (smooth,) = trainer(tmp_path, limit_test_batches=1).test(rough, MNISTDataModule(batch_size=8), verbose=False)
    assert smooth["test/psnr"] < values["test/psnr"]


def test_optimisation_ends_where_it_no_longer_improves(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(49, 49))
    code, calls = encoder(torch.rand(4, 1, 7, 7)), list[int]()
    encoder.register_forward_hook(lambda *_: calls.append(1))

    def searched(steps: int) -> tuple[float, int]:
        search = OptimizationInversion(encoder, image_size=7, channels=1, steps=steps, variation_weight=1.0).eval()
        calls.clear()
        images, taken = search.decode(code), len(calls) - 2  # the last and the average are compared
        return float(search._objective(images, code).sum()), taken

    end, taken = searched(5000)
    assert 500 < taken < 3000
    early, few = searched(20)
    assert few == 20 and early > 1.03 * end
    monkeypatch.setattr("lightning_modules.inversion._PATIENCE", 5000)
    assert searched(2 * taken) == (pytest.approx(end, rel=0.005), 2 * taken)


def test_optimisation_searches_under_the_encoder_of_a_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = Autoencoder(MNISTEncoder(), MNISTDecoder())
    trainer(tmp_path, max_epochs=1).fit(trained, MNISTDataModule())
    path = tmp_path / "trained.ckpt"
    torch.save({"state_dict": trained.state_dict()}, path)
    search = OptimizationInversion(MNISTEncoder(), image_size=28, channels=1, steps=2, encoder_checkpoint=str(path))
    trainer(tmp_path, limit_test_batches=1).test(search, MNISTDataModule(), verbose=False)
    assert all(value.equal(trained.encoder.state_dict()[name]) for name, value in search.encoder.state_dict().items())


def test_optimisation_has_nothing_to_fit(tmp_path: Path) -> None:
    search = OptimizationInversion(MNISTEncoder(), image_size=28, channels=1)
    with pytest.raises(ValueError, match="nothing to fit: run preimage test"):
        trainer(tmp_path).fit(search, MNISTDataModule())
