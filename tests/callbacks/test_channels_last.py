from pathlib import Path

import pytest
import torch
from torch import Tensor

from callbacks import ChannelsLast
from datamodules import MNISTDataModule
from lightning_modules import VAE, Autoencoder, MNISTDecoder, MNISTEncoder, MNISTGaussianEncoder
from tests.lightning_modules.test_base import trainer


def test_values_and_checkpoints_stay_and_feature_maps_follow(tmp_path: Path) -> None:
    def fit(*callbacks: ChannelsLast) -> tuple[dict[str, Tensor], bool]:
        torch.manual_seed(0)
        model, layouts = Autoencoder(MNISTEncoder(), MNISTDecoder()), []
        model.encoder[2].register_forward_hook(  # type: ignore[index]
            lambda module, args, output: layouts.append(output.is_contiguous(memory_format=torch.channels_last))
        )
        trainer(tmp_path, callbacks=list(callbacks)).fit(model, MNISTDataModule())
        return model.state_dict(), all(layouts)

    plain, before = fit()
    converted, after = fit(ChannelsLast())
    assert not before
    assert after
    assert list(plain) == list(converted)
    assert all(torch.allclose(plain[name], converted[name], atol=1e-4) for name in plain)


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
    assert values["val/mse"] == pytest.approx(plain["val/mse"], rel=1e-2)
    assert values["val/ssim"] == pytest.approx(plain["val/ssim"], abs=1e-2)
