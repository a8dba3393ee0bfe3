from typing import Any

import pytest
import torch
from torch import nn

from lightning_modules import ConvInverter, FullyConnectedInverter
from tests.lightning_modules.networks.test_networks import parameters


# Derived by hand from the layers: weights plus biases of each. `up` is the sum over 256 -> 256, 128, 64, 32, 3:
# 1,638,656 + 819,328 + 204,864 + 51,232 + 2,403 = 2,716,483, at half width 409,728 + ... + 1,203 = 679,843.
@pytest.mark.parametrize(
    ("network", "count"),
    [
        (ConvInverter(256, 6, 192), 3 * 590_080 + 2_716_483),  # conv5
        (ConvInverter(256, 6, 192, width=0.5), 295_040 + 2 * 147_584 + 679_843),
        (ConvInverter(192, 13, 416), 442_624 + 2 * 590_080 + 2_716_483),  # conv2
        (ConvInverter(192, 13, 416, width=0.5), 221_312 + 2 * 147_584 + 679_843),
        # Four up-convolutions, the last one from 64 (or 32) channels to 3.
        (ConvInverter(192, 13, 208), 442_624 + 2 * 590_080 + 1_638_656 + 819_328 + 204_864 + 4_803),
        (ConvInverter(192, 13, 208, width=0.5), 221_312 + 2 * 147_584 + 409_728 + 204_864 + 51_232 + 2_403),
        (FullyConnectedInverter(4096), 3 * 16_781_312 + 2_716_483),  # fc6
        (FullyConnectedInverter(4096, width=0.5), 8_390_656 + 2 * 4_196_352 + 679_843),
        (FullyConnectedInverter(1000), 4_100_096 + 2 * 16_781_312 + 2_716_483),  # fc8
        (FullyConnectedInverter(1000, width=0.5), 2_050_048 + 2 * 4_196_352 + 679_843),
    ],
)
def test_parameter_counts_are_those_of_the_system(network: nn.Module, count: int) -> None:
    assert parameters(network) == count


def test_layers_are_in_the_order_of_the_system() -> None:
    conv: Any = list(ConvInverter(256, 6, 192))
    assert [layer.out_channels for layer in conv[:6:2]] == [256] * 3
    assert [layer.out_channels for layer in conv[6::2]] == [256, 128, 64, 32, 3]
    assert [layer.negative_slope for layer in conv[1:-1:2]] == [0.2] * 7
    names = " ".join(type(layer).__name__ for layer in FullyConnectedInverter(10, 16, 0.01))
    linear = "Flatten Linear LeakyReLU Linear LeakyReLU Linear LeakyReLU Unflatten"
    assert names == f"{linear} ConvTranspose2d LeakyReLU ConvTranspose2d Sigmoid"


@pytest.mark.parametrize(("in_size", "image_size"), [(6, 192), (13, 13), (13, 26), (27, 108), (55, 220), (1, 128)])
def test_feature_maps_of_any_size_become_images(in_size: int, image_size: int) -> None:
    network = ConvInverter(5, in_size, image_size, width=0.02, out_channels=1)
    image = network(50 * torch.randn(2, 5, in_size, in_size))
    assert image.shape == (2, 1, image_size, image_size)
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("image_size", [8, 64, 128])
def test_vectors_and_flattened_maps_become_images(image_size: int) -> None:
    network = FullyConnectedInverter(18, image_size, width=0.05)
    features = torch.randn(2, 2, 3, 3)
    image = network(features)
    assert image.shape == (2, 3, image_size, image_size)
    assert image.equal(network(features.flatten(1)))


@pytest.mark.parametrize(
    ("network", "shape"),
    [(ConvInverter(256, 6, 192), (4, 256, 6, 6)), (FullyConnectedInverter(1000, width=0.5), (16, 1000))],
)
def test_the_initialisation_keeps_the_scale_of_the_features(network: nn.Sequential, shape: tuple[int, ...]) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = nn.Sequential(*list(network)[:-1])(features)
    assert 0.5 < logits.std() < 2.5
    assert all(not value.any() for name, value in network.named_parameters() if name.endswith("bias"))


def test_sizes_that_cannot_be_reached_are_named() -> None:
    for size in (200, 6, 0, -13):
        with pytest.raises(
            ValueError, match=f"image_size={size} cannot be reached .* 13 .*: choose .* 13, 26, 52, 104"
        ):
            ConvInverter(8, 13, size)
    with pytest.raises(ValueError, match="cannot be reached from features of size 4"):
        FullyConnectedInverter(8, 100)
    with pytest.raises(ValueError, match="image_size=4 is too small"):
        FullyConnectedInverter(8, 4)
    with pytest.raises(ValueError, match=r"width=0\.001 leaves none of 256 channels"):
        ConvInverter(8, 4, 8, width=0.001)
