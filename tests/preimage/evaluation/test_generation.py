from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch.nn import functional as F

from lightning_modules import FrozenFeatures
from preimage.evaluation.generation import Extractor, measure_generation, measure_rfid, named_extractor


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


@pytest.mark.parametrize("standardized", [False, True])
def test_the_rfid_of_gaussians_is_its_closed_form(standardized: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(500, 4, generator=generator) @ torch.randn(4, 4, generator=generator)
    images = (2 * (64 + 8 * mixed).round().clamp(0, 120)).byte().reshape(500, 1, 2, 2)  # even: halves are exact
    extractor = Extractor("pixels", lambda part: part.flatten(1).double(), standardized)
    found = measure_rfid(lambda part: part / 2 + 20 / 255, images, extractor, torch.device("cpu"))
    values = images.flatten(1).double()
    scale = values.std(dim=0) if standardized else torch.ones(4)
    means = (values.mean(dim=0) / 2 - 20) / scale  # between the two
    # C and C / 4 commute: the trace of C + C / 4 - 2 sqrt(C C / 4) is that of C / 4.
    expected = float(means.square().sum() + (values / scale).var(dim=0).sum() / 4)
    assert found["rfid"] == pytest.approx(expected, rel=1e-4)
    halves = [(values[start::2] / scale) for start in (0, 1)]
    covariances = [np.cov(half.T.numpy()) for half in halves]
    distance = (halves[0].mean(dim=0) - halves[1].mean(dim=0)).square().sum()
    floor = float(distance) + np.trace(sum(covariances) - 2 * np.real(sqrtm(covariances[0] @ covariances[1])))
    assert found["rfid_floor"] == pytest.approx(floor, rel=1e-3)
    assert 0 < floor < expected
    assert found["rfid_extractor"] == "pixels, 500 images"
    for said in ("pixels (weights not known)", "500 test images", "at 2 x 2 in 8 bits", "halves of 250 and 250"):
        assert said in found["rfid_protocol"]
    assert ("standardised" in found["rfid_protocol"]) == standardized


def test_the_rfid_of_identical_images_is_none_at_the_size_of_the_reconstructions() -> None:
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    extractor = Extractor("means", lambda part: part.double().mean(dim=(2, 3)))
    device = torch.device("cpu")
    assert measure_rfid(lambda part: part, images, extractor, device)["rfid"] == pytest.approx(0, abs=1e-6)
    small = measure_rfid(
        lambda part: F.interpolate(part, 2, mode="bilinear", antialias=True), images, extractor, device
    )
    assert "at 2 x 2 in 8 bits" in small["rfid_protocol"]
    assert small["rfid"] == pytest.approx(0, abs=1e-6)  # both were reduced in the same way
    assert measure_rfid(lambda part: part, images[:3], extractor, device)["rfid_floor"] is None
