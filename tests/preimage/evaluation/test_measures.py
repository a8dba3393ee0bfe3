import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from datamodules.in_memory import InMemoryDataModule, InMemoryImages
from lightning_modules import Autoencoder, Classifier, FrozenFeatures
from preimage.evaluation.evaluate import _probes
from preimage.evaluation.measures import _peak, encode_splits, feature_error


@pytest.mark.parametrize(("platform", "unit"), [("darwin", 1), ("freebsd14", 1024)])
def test_the_peak_of_the_process_is_in_bytes_where_linuxs_files_are_missing(
    monkeypatch: pytest.MonkeyPatch, platform: str, unit: int
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.setattr("sys.platform", platform)
    assert _peak(torch.device("cpu")) == unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class FewImages(InMemoryDataModule):
    def __init__(self, cache_dir: Path) -> None:
        super().__init__(cache_dir=str(cache_dir))
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (3, 12, 3, 32, 32), dtype=torch.uint8, generator=generator)
        labels = torch.arange(12) % 2
        self.train_set, self.val_set, self.test_set = (InMemoryImages(images, labels) for images in pixels)
        self.class_names = ["a", "b"]


@pytest.mark.filterwarnings("ignore:.*RANDOM weights")
def test_the_codes_of_a_transformer_are_its_class_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr("preimage.evaluation.probes.MLP_IMAGES", 1)
    features = FrozenFeatures("timm/vit_tiny_patch16_224", "blocks.1", weights="random", image_size=64)
    model, data = Classifier(features, nn.Flatten(), num_classes=2), FewImages(tmp_path)
    tested = encode_splits(model, data, ["test"], torch.device("cpu"))
    codes, labels = tested["test"]
    tokens = features(data.test_set.images / 255)
    assert tokens.shape == (12, 17, 192)
    assert codes.allclose(tokens[:, 0], atol=1e-5)
    assert labels.equal(data.test_set.labels)
    figures, notes = _probes(model, data, tested, [1], torch.device("cpu"))
    assert figures is not None
    assert "codes 17 x 192 are pooled as their network does to 192 numbers for the probes" in notes


def test_tokens_of_an_encoder_that_says_nothing_of_them_are_averaged(tmp_path: Path) -> None:
    patches = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Flatten(3), nn.Flatten(1, 2))
    model, data = Autoencoder(patches, nn.Identity()), FewImages(tmp_path)
    codes, _ = encode_splits(model, data, ["val"], torch.device("cpu"))["val"]
    assert codes.allclose((data.val_set.images / 255).flatten(2).mean(dim=1), atol=1e-6)


def test_the_feature_error_is_relative_to_the_code_of_the_image() -> None:
    images = torch.randint(1, 256, (70, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def rebuild(batch: torch.Tensor) -> torch.Tensor:
        return batch * batch[:, :1, :1, :1]

    error = feature_error(rebuild, nn.Flatten(), images, torch.device("cpu"))
    assert error == pytest.approx(float((1 - images[:, 0, 0, 0] / 255).mean()), rel=1e-5)

    def colour(batch: torch.Tensor) -> torch.Tensor:
        return batch.mean(dim=(2, 3), keepdim=True).expand(-1, -1, 2, 2)  # smaller than what it is a reconstruction of

    assert feature_error(colour, lambda batch: batch.mean(dim=(2, 3)), images, torch.device("cpu")) < 1e-6
