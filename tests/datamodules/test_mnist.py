from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from datamodules import MNISTDataModule
from tests.conftest import QUICK, Digits, Fails, write_idx


def ready(**kwargs: object) -> MNISTDataModule:
    data = MNISTDataModule(**kwargs)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup("fit")
    return data


def test_digits5k_is_split_by_class_and_seed() -> None:
    data = ready()
    sizes = [torch.bincount(split.labels).tolist() for split in (data.train_set, data.val_set, data.test_set)]
    assert sizes == [[350] * 10, [50] * 10, [100] * 10]
    images = torch.cat([split.images for split in (data.train_set, data.val_set, data.test_set)]).flatten(1)
    assert len(images.unique(dim=0)) == len(images)  # no image in two splits (and none twice in the data)
    assert ready().val_set.images.equal(data.val_set.images)
    assert not ready(split_seed=1).val_set.images.equal(data.val_set.images)


def test_binarised_pixels_are_drawn_once_with_the_probability_of_their_intensity() -> None:
    gray, data = ready(), ready(binarize_seed=0)
    for split in ("train_set", "val_set", "test_set"):
        images, intensities = getattr(data, split).images, getattr(gray, split).images.float() / 255
        assert set(images.unique().tolist()) == {0, 255}
        for low, high in ((0.0, 0.001), (0.2, 0.4), (0.6, 0.8), (0.999, 1.001)):
            chosen = (intensities >= low) & (intensities < high)
            share = (images[chosen] == 255).float().mean()
            assert float(share) == pytest.approx(float(intensities[chosen].mean()), abs=0.02)
    assert ready(binarize_seed=0).test_set.images.equal(data.test_set.images)
    assert not ready(binarize_seed=1).test_set.images.equal(data.test_set.images)


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
def test_official_files_in_torchvisions_layout(idx_root: Path, digits: Digits, dataset: str) -> None:
    data = ready(dataset=dataset, root=str(idx_root), val_size=100)
    assert data.test_set.images[:, 0].numpy().tolist() == digits[0][1000:1200].tolist()
    assert data.test_set.labels.tolist() == digits[1][1000:1200].tolist()
    assert len(data.train_set) == 900
    assert data.class_names[9] == {"mnist": "9", "fashion_mnist": "ankle boot"}[dataset]


def test_files_directly_in_the_root(idx_root: Path) -> None:
    data = ready(dataset="mnist", root=str(idx_root / "MNIST/raw"), val_size=0)
    assert len(data.train_set) == 1000
    assert data.val_dataloader() == []


def test_labelled_subset_is_balanced_seeded_and_the_rest_stays() -> None:
    data = ready(num_labels=100)
    assert torch.bincount(data.train_set.labels).tolist() == [10] * 10
    assert ready(num_labels=100).train_set.images.equal(data.train_set.images)
    assert not ready(num_labels=100, label_seed=1).train_set.images.equal(data.train_set.images)
    kept = ready(num_labels=100, keep_unlabeled=True).train_set
    assert kept.images.equal(ready().train_set.images)
    assert (kept.labels >= 0).sum() == 100
    assert kept.images[kept.labels >= 0].equal(data.train_set.images)
    assert kept.labels[kept.labels >= 0].equal(data.train_set.labels)


def test_batches_are_whole_shuffled_and_in_the_unit_interval() -> None:
    data = ready(batch_size=64)
    batches = list(data.train_dataloader())
    assert [len(labels) for _, labels, _ in batches] == [64] * 54 + [44]
    assert batches[0][0].dtype == torch.uint8
    seen = torch.cat([images for images, *_ in batches]).flatten(1)
    assert not seen.equal(data.train_set.images.flatten(1))
    assert seen.unique(dim=0).equal(data.train_set.images.flatten(1).unique(dim=0))  # each image once
    images, *_ = data.on_after_batch_transfer(batches[0], 0)
    assert images.dtype == torch.float32
    assert images.shape == (64, 1, 28, 28)
    assert images.min() == 0
    assert images.max() == 1
    single, label, _ = data.train_set[3500 - 1]
    assert single.shape == (1, 28, 28)
    assert label == data.train_set.labels[-1]


def test_repeat_passes_over_a_handful_of_images() -> None:
    data = ready(num_labels=10, repeat=5, batch_size=50)
    ((_, labels, _),) = list(data.train_dataloader())
    assert torch.bincount(labels).tolist() == [5] * 10
    assert len(data.train_set.images) == 10  # what measures the images meets each once
    assert [int(data.train_set[place][1]) for place in (3, 13)] == [int(data.train_set.labels[3])] * 2


def test_augmentations_change_training_batches_only() -> None:
    class Stage:
        training, lightning_module = True, None

    data = ready(augmentations=[v2.RandomInvert(p=1.0)])
    batch = data.val_set[0]
    data.trainer = Stage()  # type: ignore[assignment]
    images, *_ = data.on_after_batch_transfer(batch, 0)
    assert torch.allclose(images, 1 - batch[0].float() / 255)
    Stage.training = False
    images, *_ = data.on_after_batch_transfer(batch, 0)
    assert torch.allclose(images, batch[0].float() / 255)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data.num_labels=105"], ["num_labels=105", "10 classes"]),
        (["--data.num_labels=0"], ["num_labels=0"]),
        (["--data.num_labels=5000"], ["num_labels=5000", "500 images of class 0"]),
        (["--data.val_size=4000"], ["val_size=4000", "4000 training images"]),
        (["--data.val_size=-1"], ["val_size", "-1"]),
        (["--data.batch_size=0"], ["batch_size", "0"]),
        (["--data.repeat=0"], ["repeat", "0"]),
    ],
)
def test_impossible_numbers_end_in_one_line(fails: Fails, tmp_path: Path, flags: list[str], words: list[str]) -> None:
    line = fails("fit", *QUICK, *flags)
    for word in words:
        assert word in line
    assert not (tmp_path / "runs").exists()


def test_damaged_files_end_in_one_line(fails: Fails, tmp_path: Path, digits: Digits) -> None:
    images, labels = digits
    for split in ("train", "t10k"):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte", images[:200])
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", labels[:200])
    flags = ["--data.dataset=mnist", f"--data.root={tmp_path}", "--data.val_size=20"]
    broken = tmp_path / "t10k-images-idx3-ubyte"
    broken.write_bytes(broken.read_bytes()[:9000])
    assert "t10k-images-idx3-ubyte is truncated" in fails("fit", *QUICK, *flags)
    write_idx(broken, images[:150])
    assert "do not belong together" in fails("fit", *QUICK, *flags)
    write_idx(broken, images[:200])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", labels[:200] + 1)
    assert "has a label 10, expected 0 to 9" in fails("fit", *QUICK, *flags)
    broken.unlink()
    assert "no t10k-images-idx3-ubyte(.gz) in" in fails("fit", *QUICK, *flags)


def test_download_is_asked_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("torchvision.datasets.KMNIST", lambda root, download: calls.append((root, download)))
    MNISTDataModule(dataset="kmnist", root=str(tmp_path), download=True).prepare_data()
    assert calls == [(tmp_path, True)]
    with pytest.raises(FileNotFoundError):
        MNISTDataModule(dataset="kmnist", root=str(tmp_path)).prepare_data()
    assert len(calls) == 1


def test_a_picture_of_16_bits_is_scaled_and_not_clipped() -> None:
    pixels = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28) * 83
    found = MNISTDataModule().convert(Image.fromarray(pixels))
    assert np.array_equal(found[0], (pixels / 257).round())
