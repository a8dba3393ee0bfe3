from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightning_modules import FaceDecoder, FaceEncoder
from lightning_modules.networks.faces import UnitTanh
from tests.lightning_modules.networks.test_networks import parameters


def test_parameter_counts_are_those_of_the_system() -> None:
    with torch.device("meta"):
        encoder, decoder = FaceEncoder(), FaceDecoder()
    assert parameters(encoder) == 84_320_258
    assert parameters(encoder) + parameters(decoder) == 370_234_629
    assert max(p.numel() for p in decoder.parameters()) == 1024 * 1024 * 16 * 16  # 268.4 M in one matrix


def test_layers_and_feature_maps_are_those_of_the_system() -> None:
    shapes: list[tuple[int, ...]] = []
    with torch.device("meta"):
        encoder, decoder, images = FaceEncoder(), FaceDecoder(), torch.empty(5, 3, 256, 256)
    for layer in (*encoder, *decoder):
        if not isinstance(layer, nn.LeakyReLU):
            layer.register_forward_hook(lambda layer, given, result: shapes.append(tuple(result.shape[1:])))
        else:
            assert layer.negative_slope == 0.1
    assert decoder(encoder(images)).shape == (5, 3, 256, 256)
    assert shapes[:4] == [(128, 64, 64), (256, 32, 32), (512, 16, 16), (1024, 8, 8)]
    assert shapes[4:7] == [(65536,), (1024,), (2,)]
    assert shapes[7:10] == [(1024,), (262144,), (1024, 16, 16)]
    assert shapes[10:] == [(512, 32, 32), (256, 64, 64), (128, 128, 128), (3, 256, 256), (3, 256, 256)]


@pytest.mark.parametrize(("width", "latent_dim"), [(0.25, 2), (0.1, 7)])
def test_width_scales_channels_and_features(width: float, latent_dim: int) -> None:
    channels = [round(count * width) for count in (1, 128, 256, 512, 1024)]
    channels[0] = 1
    convolutions = sum(25 * a * b + b for a, b in pairwise(channels))
    last = channels[-1]
    linear = 64 * last * last + last + last * latent_dim + latent_dim
    assert parameters(FaceEncoder(latent_dim, width)) == convolutions + linear
    channels[0] = 3
    convolutions = sum(25 * a * b + a for a, b in pairwise(channels))
    linear = latent_dim * last + last + last * last * 256 + last * 256
    decoder = FaceDecoder(latent_dim, width)
    assert parameters(decoder) == convolutions + linear
    assert decoder(torch.randn(2, latent_dim)).shape == (2, 3, 256, 256)


@pytest.mark.parametrize(("image_size", "side"), [(32, 2), (100, 7), (256, 16)])
def test_images_have_the_size_that_is_wanted_or_the_next_multiple_of_16(image_size: int, side: int) -> None:
    decoder = FaceDecoder(3, width=0.02, image_size=image_size)
    assert decoder(torch.randn(2, 3)).shape == (2, 3, 16 * side, 16 * side)
    channels = [round(0.02 * count) for count in (1024, 512, 256, 128)]
    linear = 3 * channels[0] + channels[0] + (channels[0] + 1) * channels[0] * side * side
    assert parameters(decoder) == linear + sum(25 * a * b + b for a, b in pairwise([*channels, 3]))


def test_a_width_that_leaves_nothing_is_refused() -> None:
    for width in (0.001, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"width=.* leaves none of 128 channels: set it above 0\.004"):
            FaceEncoder(width=width)


def test_the_input_is_luma_at_128_pixels_and_not_the_red_channel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0) / 255
    encoder = FaceEncoder(width=0.02)
    prepared = encoder.prepare(image)
    assert prepared.shape == (1, 1, 128, 128)
    gray = Image.fromarray(pixels).convert("L").resize((128, 128), Image.Resampling.BILINEAR)
    assert np.abs(prepared[0, 0].numpy() * 255 - np.asarray(gray, dtype=float)).max() < 2
    pure = torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 8, 8)
    assert encoder.prepare(pure).mean(dim=(1, 2, 3)).tolist() == pytest.approx([0.299, 0.587, 0.114], abs=2e-4)
    assert encoder.prepare(torch.rand(2, 1, 28, 28)).shape == (2, 1, 128, 128)  # gray already


def test_every_output_is_an_image_and_softmax_cannot_draw_brightness() -> None:
    codes = 300 * torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    for activation in ("sigmoid", "softmax", "tanh"):
        torch.manual_seed(0)
        images = FaceDecoder(width=0.02, output_activation=activation)(codes)
        assert images.min() >= 0 and images.max() <= 1
        brightness = images.sum(dim=1)
        assert torch.allclose(brightness, torch.ones_like(brightness), atol=1e-5) == (activation == "softmax")
    values = torch.linspace(-5, 5, 11)
    assert torch.allclose(UnitTanh()(values), torch.sigmoid(2 * values), atol=1e-6)
    with pytest.raises(ValueError, match="output_activation must be one of sigmoid, softmax, tanh, not relu"):
        FaceDecoder(width=0.02, output_activation="relu")  # type: ignore[arg-type]
