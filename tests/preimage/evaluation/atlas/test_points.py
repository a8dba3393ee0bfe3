from argparse import Namespace
from pathlib import Path

import pytest

from preimage.evaluation.atlas.points import file_name, label_of, points_of


def test_tokens_and_maps_with_channels_last_are_inverted_as_grids(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    vit = {"network": "timm/vit_tiny_patch16_224", "layers": ["blocks.0"], "weights": "random", "feature_size": 64}
    swin = {"network": "timm/swin_tiny_patch4_window7_224", "layers": ["layers.3"], "weights": "random"}
    points = points_of(Namespace(networks=[vit, swin], out=tmp_path))
    assert [point.shape for point in points] == [(192, 4, 4), (768, 7, 7)]
    assert [point.encoder()["init_args"]["image_size"] for point in points] == [64, 224]
    assert all(point.encoder()["init_args"]["tokens"] == "grid" for point in points)
    assert all("tokens" not in point.arguments for point in points)  # probes get the network's own vector
    assert [point.folder.relative_to(tmp_path).as_posix() for point in points] == [
        "timm_vit_tiny_patch16_224_random/blocks.0",
        "timm_swin_tiny_patch4_window7_224_random/layers.3",
    ]


def test_a_network_is_called_by_its_name_its_weights_or_its_label() -> None:
    assert label_of({"network": "alexnet"}) == "alexnet"
    assert label_of({"network": "alexnet", "weights": "/some/where/own.pth"}) == "alexnet (own)"
    assert label_of({"network": "module:a.b", "weights": "x.pth", "label": "TAEF2"}) == "TAEF2"


@pytest.mark.parametrize(
    ("text", "name"), [("hf/facebook/dinov2", "hf_facebook_dinov2"), ("../up", "up"), ("a b", "a_b")]
)
def test_a_name_becomes_a_folder_of_its_own(text: str, name: str) -> None:
    assert file_name(text) == name
