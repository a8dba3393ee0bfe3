"""Frozen networks whose layers are taken by hooks: copied, compiled, in half precision, and on several processes."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightning_modules import FrozenFeatures

pytestmark = pytest.mark.filterwarnings("ignore:.*RANDOM weights")


def vit(layer: str | None = "blocks.1", **kwargs: Any) -> FrozenFeatures:
    pytest.importorskip("timm")
    given: dict[str, Any] = {"weights": "random", "image_size": 32, "seed": 1} | kwargs
    return FrozenFeatures("timm/vit_tiny_patch16_224", layer, **given)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_what_comes_after_the_layer_is_not_computed(images: Tensor) -> None:
    features = vit()
    after = features.network.get_submodule("network.blocks.2")
    after.register_forward_hook(lambda *args: pytest.fail("a later block was called"))
    assert features(images).shape == (2, 5, 192)


def test_a_copy_has_hooks_of_its_own(images: Tensor) -> None:
    features = vit()
    copied = copy.deepcopy(features)
    assert copied(images).equal(features(images))
    with torch.no_grad():
        copied.network.get_parameter("network.blocks.0.norm1.weight").zero_()
    assert not copied(images).equal(features(images))


def test_it_is_compiled_in_one_graph(images: Tensor) -> None:
    features = vit(tokens="grid")
    expected = features(images)
    state = list(nn.Sequential(features).state_dict())
    features.compile(backend="eager", fullgraph=True)
    assert features(images).allclose(expected, atol=1e-5)
    assert list(nn.Sequential(features).state_dict()) == state == ["0._extra_state"]


def test_it_is_a_part_of_a_model_on_several_processes(images: Tensor, tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/start", rank=0, world_size=1)
    try:
        model = DistributedDataParallel(nn.Sequential(vit(tokens="mean"), nn.Linear(192, 2)))
        model(images).sum().backward()
        assert [name for name, value in model.named_parameters() if value.grad is not None] == [
            "module.1.weight",
            "module.1.bias",
        ]
    finally:
        torch.distributed.destroy_process_group()


def test_half_precision_is_for_gpus(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = vit()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert vit(precision="bfloat16")(images).equal(exact(images))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    half = vit(precision="bfloat16")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert half(images).dtype == torch.float32
    assert half.weights_hash == exact.weights_hash
    assert not half(images).equal(exact(images))
    assert half(images).allclose(exact(images), atol=0.1)


def test_several_layers_are_joined(images: Tensor) -> None:
    one, two = vit("blocks.0")(images), vit("blocks.1")(images)
    both: dict[str, Any] = {"layer": None, "layers": ["blocks.0", "blocks.1"]}
    assert vit(**both)(images).equal(torch.cat([one, two], dim=2))
    assert vit(**both, join="sum")(images).equal(one + two)
    assert vit(**both, tokens="grid").feature_shape(32) == (384, 2, 2)
    assert repr(vit(**both, tokens="cls")).count("layer=blocks.0 + blocks.1") == 1
    assert "tokens=cls" in repr(vit(**both, tokens="cls"))
    with pytest.raises(ValueError, match="one layer as layer=NAME, or several as layers="):
        vit(layers=["blocks.0"])
    with pytest.raises(ValueError, match="one layer as layer=NAME, or several as layers="):
        vit(layer=None)


def test_probes_get_the_vector_that_the_network_would_take(images: Tensor) -> None:
    features = vit()
    assert features.kind(32) == "tokens"
    assert features.vectors(features(images)).equal(features(images)[:, 0])
    assert vit(tokens="grid").vectors(vit(tokens="grid")(images)).shape == (2, 192, 2, 2)
