import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from lightning_modules import FrozenFeatures, Inversion, MNISTEncoder
from lightning_modules.networks.features import list_layers
from lightning_modules.networks.taps import ALIASES
from tests.conftest import Fails, Run

pytestmark = pytest.mark.filterwarnings("ignore:.*RANDOM weights")
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Small(nn.Module):
    """A network of one's own, with all that must not come alive."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.dropout(self.relu(self.norm(self.conv(images)))) + 1
        return result


class Branching(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


def small(layer: str = "add", **kwargs: Any) -> FrozenFeatures:
    given: dict[str, Any] = {"network": Small(), "layer": layer, "weights": "random", "image_size": None} | kwargs
    return FrozenFeatures(**given)


def features_of(encoder: nn.Module) -> FrozenFeatures:
    assert isinstance(encoder, FrozenFeatures)
    return encoder


@pytest.fixture(scope="module")
def alexnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(models.alexnet().state_dict(), path)
    return path


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(1))


def test_alexnet_layers_are_those_of_the_system(alexnet_file: Path) -> None:
    network = models.alexnet().eval()
    network.load_state_dict(torch.load(alexnet_file, weights_only=True))
    images = torch.rand(1, 3, 80, 80, generator=torch.Generator().manual_seed(0))
    pools = [layer for layer in network.features if isinstance(layer, nn.MaxPool2d)]
    relus = [layer for layer in network.features if isinstance(layer, nn.ReLU)]
    meant = {"conv1": pools[0], "conv2": pools[1], "conv3": relus[2], "conv4": relus[3], "conv5": pools[2]}
    meant |= {"fc6": network.classifier[2], "fc7": network.classifier[5], "fc8": network.classifier[6]}
    expected = {}

    def keep(name: str, node: nn.Module) -> None:
        node.register_forward_hook(lambda module, inputs, output: expected.update({name: output.detach().clone()}))

    for name, node in meant.items():
        keep(name, node)
    keep("features.3", network.features[3])  # before its ReLU, which torchvision's network applies in place
    small = F.interpolate(images, (64, 64), mode="bilinear", antialias=True)
    network((small - MEAN[:, None, None]) / STD[:, None, None])
    assert {*ALIASES["alexnet"], "features.3"} == set(expected)
    for name, value in expected.items():
        features = FrozenFeatures("alexnet", name, str(alexnet_file), image_size=64).train()
        assert torch.allclose(features(images), value, atol=1e-5), name
        assert features.feature_shape(80) == value.shape[1:]
        assert float(value.min()) < 0 if name in ("fc8", "features.3") else float(value.min()) >= 0


def test_the_name_of_a_module_is_that_of_its_last_node(images: Tensor) -> None:
    kwargs: dict[str, Any] = {"network": "squeezenet1_1", "weights": "random", "image_size": 32}
    fire = FrozenFeatures(layer="features.3", **kwargs)
    assert fire(images).equal(FrozenFeatures(layer="features.3.cat", **kwargs)(images))
    assert fire.feature_shape(32) == (128, 7, 7)


def test_normalisation_and_resizing_can_be_left_out(images: Tensor) -> None:
    conv = small("conv", normalize=False)
    weight, bias = conv.network.get_parameter("conv.weight"), conv.network.get_parameter("conv.bias")
    assert torch.allclose(conv(images), F.conv2d(images, weight, bias), atol=1e-6)
    normalized = (images - MEAN[:, None, None]) / STD[:, None, None]
    assert torch.allclose(small("conv")(images), F.conv2d(normalized, weight, bias), atol=1e-5)
    assert small("conv", image_size=9)(images).shape == (2, 4, 7, 7)
    assert small("conv").feature_shape(30) == (4, 28, 28)
    assert small("conv", image_size=9).feature_shape(30) == (4, 7, 7)


def test_grayscale_images_are_repeated(images: Tensor) -> None:
    gray = images[:, :1]
    named = small("features.0", network="squeezenet1_1", normalize=False, image_size=32)
    for features in (small(), named):
        assert features(gray).equal(features(gray.repeat(1, 3, 1, 1)))
    of_gray = FrozenFeatures(MNISTEncoder(), "9", "random", image_size=None, normalize=False)
    assert of_gray.feature_shape(28, channels=1) == of_gray(torch.rand(1, 1, 28, 28)).shape[1:] == (12,)


def test_it_never_learns_nor_comes_alive(images: Tensor) -> None:
    features = small()
    parent = nn.Sequential(features, nn.Conv2d(4, 1, 1)).train()
    before = [value.clone() for value in (*features.parameters(), *features.buffers())]
    assert not any(module.training for module in features.modules())
    assert features(images).equal(features(images))
    assert not features(images).requires_grad
    parent.requires_grad_(True)
    assert not features(images).requires_grad
    parent.requires_grad_(True)(images).sum().backward()
    assert all(parameter.grad is None for parameter in features.parameters())
    assert all(a.equal(b) for a, b in zip(before, (*features.parameters(), *features.buffers()), strict=True))
    asking = images.clone().requires_grad_()
    features(asking).sum().backward()
    assert asking.grad is not None
    assert asking.grad.any()


def test_only_the_hash_is_in_a_state_dict(images: Tensor) -> None:
    features = small()
    parent = nn.Sequential(nn.Identity(), features, nn.Conv2d(4, 1, 1))
    state = parent.state_dict()
    assert list(state) == ["1._extra_state", "2.weight", "2.bias"]
    assert bytes(state["1._extra_state"].tolist()).hex() == features.weights_hash
    other = nn.Sequential(nn.Identity(), small(), nn.Conv2d(4, 1, 1))
    assert not other(images).equal(parent(images))
    other.load_state_dict(state)
    assert other(images).equal(parent(images))
    assert copy.deepcopy(parent)(images).equal(parent(images))
    assert list(copy.deepcopy(parent).state_dict()) == list(state)
    strange = nn.Sequential(nn.Identity(), small(seed=1), nn.Conv2d(4, 1, 1))
    with pytest.raises(
        ValueError, match=r"belongs to other weights of Small up to add \(sha256 \w{12}, those of random"
    ):
        strange.load_state_dict(state)
    with pytest.raises(RuntimeError, match="Unexpected"):
        other.load_state_dict(state | {"1.network.conv.weigth": torch.zeros(1)})


def test_it_follows_the_device_the_memory_format_and_the_type() -> None:
    features = nn.Sequential(small("conv"))
    features.to(memory_format=torch.channels_last)
    weight = features.get_parameter("0.network.conv.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    hashed = features_of(features[0]).weights_hash
    features.to(torch.float64)
    assert features(torch.rand(1, 3, 9, 9).double()).dtype == torch.float64
    assert features_of(features[0]).weights_hash == hashed
    assert features_of(features[0]).mean.dtype == torch.float64
    assert {parameter.device.type for parameter in features.to("meta").parameters()} == {"meta"}


def test_random_weights_are_the_same_in_every_run_and_said_loudly() -> None:
    state = torch.get_rng_state()
    with pytest.warns(UserWarning, match=r"squeezenet1_1 has RANDOM weights \(seed 3\)"):
        first = FrozenFeatures("squeezenet1_1", "features.2", "random", seed=3)
    assert torch.get_rng_state().equal(state)
    torch.rand(1)
    assert first.weights_hash == FrozenFeatures("squeezenet1_1", "features.2", "random", seed=3).weights_hash
    assert first.weights_hash != FrozenFeatures("squeezenet1_1", "features.2", "random", seed=4).weights_hash
    assert small(network=Small()).weights_hash == small(network=Small()).weights_hash
    own = Small()
    assert small("conv", network=own, weights="DEFAULT").network.get_parameter("conv.weight").equal(own.conv.weight)


@pytest.mark.parametrize("form", ["plain", "old", "lightning", "ours", "no counters"])
def test_weights_come_from_files_of_several_forms(tmp_path: Path, images: Tensor, form: str) -> None:
    network = Small()
    nn.init.constant_(network.norm.weight, 0.3)
    state: dict[str, Any] = dict(network.state_dict())
    if form == "no counters":
        del state["norm.num_batches_tracked"]
    if form == "ours":
        state = {f"encoder.{key}": value for key, value in state.items()} | {"decoder.weight": torch.zeros(2)}
    if form in ("lightning", "ours"):
        state = {"state_dict": state, "epoch": 3}
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=form != "old")
    features = small(weights=str(tmp_path / "w.pth"), normalize=False)
    assert features(images).equal(network.eval()(images))


def test_what_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(Small(5).state_dict(), tmp_path / "five.pth")
    with pytest.raises(
        ValueError, match=r"five\.pth.* conv\.weight has shape \(5, 3, 3, 3\), the model's has \(4, 3, 3, 3"
    ):
        small(weights=str(tmp_path / "five.pth"))
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth holds no state dict but a list"):
        small(weights=str(tmp_path / "list.pth"))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.pth is"):
        small(weights=str(tmp_path / "text.pth"))
    with pytest.raises(
        FileNotFoundError, match=r"alexnet has no weights DEFULT: give IMAGENET1K_V1, DEFAULT, random, or"
    ):
        FrozenFeatures("alexnet", "conv1", "DEFULT")
    with pytest.raises(ValueError, match="alexnet has no layer conv6: the nearest are conv5"):
        FrozenFeatures("alexnet", "conv6", "random")
    with pytest.raises(
        ValueError, match=r"no layer feature\.5: the nearest are features\.5, .*`preimage layers` lists"
    ):
        FrozenFeatures("alexnet", "feature.5", "random")
    with pytest.raises(ValueError, match="torchvision has no network alxnet: the nearest are alexnet"):
        FrozenFeatures("alxnet", "conv1", "random")
    with pytest.raises(
        ValueError, match=r"Branching has no layers .* torch\.fx cannot trace it, and it has no modules"
    ):
        FrozenFeatures(Branching(), "x")
    with pytest.raises(ValueError, match="does not take images of 3 x 2 x 2"):
        small().feature_shape(2)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(FileNotFoundError, match=r"weights DEFAULT of alexnet cannot be downloaded \(no network\): set"):
        FrozenFeatures("alexnet", "conv1")


def test_layers_are_listed() -> None:
    layers = list_layers("alexnet", 224)
    wanted = [(64, 27, 27), (192, 13, 13), (384, 13, 13), (256, 13, 13), (256, 6, 6), (4096,), (4096,), (1000,)]
    assert [layers[node].shape for node in ALIASES["alexnet"].values()] == wanted
    assert [layers[node].kind for node in ALIASES["alexnet"].values()] == ["map"] * 5 + ["vector"] * 3
    assert layers["classifier.6"].shorts == ("classifier", "fc8")
    network = Small().train()
    assert list_layers(network, 10)["add"].shape == (4, 8, 8)
    assert network.training
    assert network.conv.weight.device.type == "cpu"
    assert "getattr" not in list_layers("vit_b_16")  # the size of the batch, a number
    with pytest.raises(ValueError, match="torchvision has no network vit: the nearest are vit"):
        list_layers("vit")


def test_a_run_rebuilds_it_from_its_arguments(run: Run, fails: Fails, tmp_path: Path) -> None:
    flags = ["--model=Inversion", "--model.encoder=FrozenFeatures", "--model.encoder_checkpoint=null"]
    flags += ["--model.encoder.network=squeezenet1_1", "--model.encoder.layer=features.2"]
    flags += ["--model.encoder.image_size=32", "--model.decoder=ConvInverter", "--model.decoder.in_channels=64"]
    flags += ["--model.decoder.in_size=7", "--model.decoder.image_size=28", "--model.decoder.width=0.05"]
    flags += ["--model.decoder.out_channels=1", "--data=MNISTDataModule", "--trainer.max_epochs=1", "--name=features"]
    flags += ["--trainer.limit_train_batches=2", "--trainer.limit_test_batches=1", "--trainer.limit_val_batches=1"]
    flags += ["--trainer.accelerator=cpu", "--trainer.enable_model_summary=false"]
    path = run("fit", *flags, "--model.encoder.weights=random") / "features_random/version_0/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    names = [name for name in checkpoint["state_dict"] if name.startswith("encoder.")]
    assert names == ["encoder._extra_state"]
    model = Inversion.load_from_checkpoint(path, weights_only=True)
    encoder = features_of(model.encoder)
    assert encoder.weights_hash == bytes(checkpoint["state_dict"]["encoder._extra_state"].tolist()).hex()
    (group,) = model.configure_optimizers().param_groups
    assert len(group["params"]) == len(list(model.decoder.parameters()))
    run("test", *flags, "--model.encoder.weights=random", f"--ckpt_path={path}")
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "other.pth")
    line = fails("test", *flags, f"--model.encoder.weights={tmp_path / 'other.pth'}", f"--ckpt_path={path}")
    assert "the checkpoint belongs to other weights of squeezenet1_1 up to features.2" in line
    own = ["--model.encoder.network=mine.Net" if "squeezenet" in flag else flag for flag in flags]
    assert "torchvision has no network mine.Net" in fails("fit", *own, "--model.encoder.weights=random")
