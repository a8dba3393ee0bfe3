from copy import deepcopy
from pathlib import Path

import pytest
import torch

from callbacks import ChannelsLast
from datamodules import MNISTDataModule
from lightning_modules import VAE, Autoencoder, MNISTDecoder, MNISTEncoder, MNISTGaussianEncoder
from tests.lightning_modules.test_base import trainer


def test_values_and_checkpoints_stay_and_feature_maps_follow(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, layouts = Autoencoder(MNISTEncoder(), MNISTDecoder()).double(), []
    model.encoder[2].register_forward_hook(  # type: ignore[index]
        lambda module, args, output: layouts.append(output.is_contiguous(memory_format=torch.channels_last))
    )
    images, state = torch.rand(8, 1, 28, 28, dtype=torch.double), deepcopy(model.state_dict())
    before = model(images)
    ChannelsLast().setup(trainer(tmp_path), model, "fit")
    after = model(images)
    assert layouts == [False, True]
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    # Another order of summation: six layers of at most 576 terms of size 1 round by 6 * 576 * 2 ** -53 < 4e-13 in all.
    # (A training would multiply that at every step, and differently on every CPU.)
    assert torch.allclose(before, after, rtol=0, atol=1e-10)


@pytest.mark.parametrize("model", ["autoencoder", "vae"])
def test_metrics_take_its_images_also_in_bfloat16(tmp_path: Path, model: str) -> None:
    torch.manual_seed(0)
    module = (
        Autoencoder(MNISTEncoder(), MNISTDecoder())
        if model == "autoencoder"
        else VAE(MNISTGaussianEncoder(4), MNISTDecoder(4), latent_dim=4)
    )
    plain = trainer(tmp_path).validate(module, MNISTDataModule(), verbose=False)[0]
    fast = trainer(tmp_path, callbacks=[ChannelsLast()], precision="bf16-mixed")
    values = fast.validate(module, MNISTDataModule(), verbose=False)[0]
    # A pixel in [0, 1] is off by some roundings of 2 ** -9, and the square of a difference below 1 by twice as much.
    assert values["val/mse"] == pytest.approx(plain["val/mse"], abs=2**-7)
    assert values["val/ssim"] == pytest.approx(plain["val/ssim"], abs=1e-2)
