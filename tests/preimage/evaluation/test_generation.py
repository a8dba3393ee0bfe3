from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_modules import FrozenFeatures
from preimage.evaluation.generation import Extractor, measure_generation, named_extractor


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError("expected 3 channels"), ValueError, r"the extractor some takes no images \(1, 8, 8\)"),
    ],
)
def test_a_failing_extractor_is_blamed_for_the_images_and_not_for_the_memory(
    error: Exception, raised: type[Exception], said: str
) -> None:
    def fail(images: Tensor) -> Tensor:
        raise error

    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(raised, match=said):
        measure_generation(
            lambda count: torch.zeros(count, 1, 8, 8), images, Extractor("some", fail), torch.device("cpu")
        )


MINE = """
from torch import nn

def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 6))
"""


@pytest.mark.filterwarnings("ignore:.*RANDOM weights")
@pytest.mark.parametrize(
    ("given", "network", "layer"),
    [
        ("alexnet:conv1:random", "alexnet", "conv1"),
        ("timm/vit_tiny_patch16_224:blocks.0:random", "timm/vit_tiny_patch16_224", "blocks.0"),
        ("module:extracted.network:0:random", "module:extracted.network", "0"),
        ("module:extracted.network:3", "module:extracted.network", "3"),
    ],
)
def test_an_extractor_is_a_layer_of_any_network(
    given: str, network: str, layer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "extracted.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    if network.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)  # what a function of one's own draws
    extractor = named_extractor(given, torch.device("cpu"))
    torch.manual_seed(0)
    features = FrozenFeatures(network, layer, weights="random" if given.endswith("random") else "DEFAULT")
    images = torch.rand(2, 3, 32, 32)
    expected = features((images * 255).round() / 255)
    if expected.ndim > 2:
        expected = expected.mean(dim=(2, 3)) if expected.ndim == 4 else expected[:, 0]
    assert extractor.of(images).allclose(expected, atol=1e-5)
    assert extractor.name.startswith(f"{network} {layer} (")


@pytest.mark.parametrize("given", ["alexnet", "module:extracted.network"])
def test_an_extractor_needs_a_layer(given: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"no extractor {given}: give a run, a checkpoint, or NETWORK:LAYER"):
        named_extractor(given, torch.device("cpu"))
