from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_modules import FrozenFeatures
from lightning_modules.networks.statistics import Statistics, statistics_of

pytestmark = pytest.mark.filterwarnings("ignore:.*RANDOM weights")
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (23, 31, 3), np.uint8)
    return Image.fromarray(pixels).resize((310, 230), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("vit_base_patch16_siglip_224.webli", 0.5),
        ("vit_base_patch32_clip_224.openai", CLIP_MEAN[0]),
        ("vit_small_patch14_dinov2.lvd142m", 0.485),
        ("vit_so400m_patch14_siglip_378.webli", 0.5),  # squashes
    ],
)
def test_a_picture_is_what_timms_own_transform_makes_of_it(name: str, mean: float, picture: Image.Image) -> None:
    timm = pytest.importorskip("timm")
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    own = statistics_of(config)
    assert own.size is not None
    assert own.mean[0] == mean
    prepared = own.picture(picture, own.size).float() / 255
    ours = (prepared - torch.tensor(own.mean)[:, None, None]) / torch.tensor(own.std)[:, None, None]
    assert torch.allclose(ours, timm.data.create_transform(**config)(picture), atol=1e-6)


def test_the_network_gets_what_timms_own_transform_gives(picture: Image.Image) -> None:
    timm = pytest.importorskip("timm")
    features = FrozenFeatures("timm/vit_tiny_patch16_224", "blocks.0", "random", seed=2)
    torch.manual_seed(2)
    network = timm.create_model("vit_tiny_patch16_224").eval()
    given = timm.data.create_transform(**timm.data.resolve_model_data_config(network))(picture)[None]
    expected = network.forward_intermediates(given, indices=[0], norm=False, output_fmt="NLC", intermediates_only=True)
    assert torch.allclose(features(features.picture(picture)[None].float() / 255)[:, 1:], expected[0], atol=1e-5)


def test_the_numbers_are_the_networks_own_and_what_is_given_wins() -> None:
    pytest.importorskip("timm")
    kwargs: dict[str, Any] = {"layer": "conv_stem", "weights": "random"}
    own = FrozenFeatures("timm/efficientnet_lite0", **kwargs)
    assert (own.image_size, own.statistics.interpolation) == (224, "bicubic")
    given = FrozenFeatures("timm/efficientnet_lite0", image_size=64, mean=[0.5] * 3, std=[0.25] * 3, **kwargs)
    assert given.image_size == 64
    assert given.mean.flatten().tolist() == [0.5] * 3
    assert given.std.flatten().tolist() == [0.25] * 3
    assert "mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25]" in given.extra_repr()  # by which its codes are cached
    assert FrozenFeatures("timm/efficientnet_lite0", image_size=None, **kwargs).image_size is None
    alexnet = FrozenFeatures("alexnet", "conv1", "random")
    assert alexnet.image_size == 224
    assert alexnet.statistics == Statistics()


def test_tensors_are_resized_whole_or_cropped_as_pictures_are(picture: Image.Image) -> None:
    statistics = Statistics(size=56, interpolation="bicubic", crop=0.875)
    square = picture.crop((0, 0, 230, 230))
    image = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 255
    cropped, whole = statistics.resize(image, 56, crop=True), statistics.resize(image, 56)
    assert cropped.shape == whole.shape == (1, 3, 56, 56)
    assert (cropped - statistics.picture(square, 56) / 255).abs().max() < 0.01  # Pillow rounds between its passes
    assert (whole - Statistics(interpolation="bicubic").picture(square, 56) / 255).abs().max() < 0.01
    assert (whole - cropped).abs().max() > 0.05


def test_image_processors_of_transformers_say_the_same() -> None:
    transformers = pytest.importorskip("transformers")
    from lightning_modules.networks.sources.huggingface import processor_statistics

    clip = processor_statistics(transformers.CLIPImageProcessor(size={"shortest_edge": 256}))
    assert clip == Statistics(CLIP_MEAN, CLIP_STD, 224, "bicubic", 0.875)
    half = (0.5, 0.5, 0.5)
    assert processor_statistics(transformers.SiglipImageProcessor()) == Statistics(
        half, half, 224, "bicubic", squash=True
    )
    convnext = transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875)
    assert processor_statistics(convnext).crop == 0.875
    plain = processor_statistics(transformers.ViTImageProcessor(do_normalize=False))
    assert (plain.mean, plain.std, plain.interpolation) == ((0.0,) * 3, (1.0,) * 3, "bilinear")


def test_a_network_of_one_channel_gets_gray_pictures(picture: Image.Image) -> None:
    gray = Statistics(mean=(0.0,), std=(1.0,)).picture(picture, 20)
    assert gray.shape == (1, 20, 20)
    assert gray.float().allclose(Statistics().picture(picture.convert("L"), 20)[:1].float(), atol=1)
