"""The data module around images that are decoded once, into a cache on disk."""

import gc
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from PIL import Image
from torch import Tensor

from preimage.checks import check_range

from .cache import Rows
from .image_cache import ImageCache, OnBadImage, cache_images, square, tell_left_out
from .image_tree import ImageTree
from .in_memory import InMemoryDataModule, InMemoryImages
from .source import EXPECTED, Source
from .splits import stratified_split


class DecodedImagesDataModule(InMemoryDataModule):
    """Serves the images of a folder or zip file, decoded once into a cache on disk, from which later starts read.

    A subclass says which images these are in `_find`, which of them form each split in `_split`, and how the files are
    `expected` to be laid out.

    Args:
        root: Folder or zip file.
        image_size: Height and width, in pixels; the middle square of each image is resized to it.
        on_bad_image: Stop at an image that cannot be read, or `skip` it and list it in the run's `bad_images.json`.
        kwargs: Batch size, augmentations and cache, see `InMemoryDataModule`.
    """

    expected = EXPECTED
    channels = 3

    def __init__(self, root: str, image_size: int, on_bad_image: OnBadImage = "error", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_range("data", "[1, inf)", image_size=image_size)
        self.root = Path(root)
        self.image_size = image_size
        self.on_bad_image: OnBadImage = on_bad_image

    def convert(self, image: Image.Image) -> Tensor:
        """Turns a picture into an image of this data, uint8 `(3, image_size, image_size)`."""
        return torch.from_numpy(square(image, self.image_size).copy())

    def prepare_data(self) -> None:
        """Decodes the images, unless that was done before; on one process of a machine, while the others wait."""
        _ = self._opened

    def setup(self, stage: str) -> None:
        """Draws the splits of the images, which all processes share in one file, once."""
        if hasattr(self, "train_set"):
            return
        tree, cache, splits = self._opened
        self.bad_images = cache.bad
        labels = torch.tensor(tree.labels)
        self.train_set, self.val_set, self.test_set = (
            InMemoryImages(
                Rows(cache.images, index, cache.key), labels[index], names=[tree.names[i] for i in index.tolist()]
            )
            for index in (splits["train"], splits["val"], splits["test"])
        )
        sizes = ", ".join(f"{len(index)} {name}" for name, index in splits.items())
        names = tree.class_names[:10] + (["..."] if len(tree.class_names) > 10 else [])
        classes = f"{len(tree.class_names)} classes ({', '.join(names)})" if names else "no labels"
        rank_zero_info(f"{self.root.name}: {classes}, images: {sizes}")

    @cached_property
    def _opened(self) -> tuple[ImageTree, ImageCache, dict[str, Tensor]]:
        """A folder of a hundred thousand files is looked through once, and its faults are said once."""
        collects = gc.isenabled()
        gc.disable()  # which would go through a million names again and again, for three fourths of the time
        try:
            source = self._source()
            tree = self._find(source)
        finally:
            if collects:
                gc.enable()
        for note in tree.notes:
            rank_zero_info(note)
        cache = cache_images(source, tree.names, self.image_size, self.cache_dir, self.on_bad_image)
        tell_left_out(self.root, cache.bad, len(tree.names))
        splits = self._split(tree, torch.tensor([name not in cache.bad for name in tree.names]))
        if self.trainer is not None and self.trainer.training and not len(splits["train"]):
            there = " and ".join(name for name, index in splits.items() if len(index))
            raise ValueError(
                f"{self.root} has no image to train on, since all are for {there}: set data.root to that folder, or"
                " smaller fractions"
            )
        self.class_names = tree.class_names
        return tree, cache, splits

    def _source(self) -> Source:
        """Where the images are."""
        return Source(self.root, self.expected, self.cache_dir)

    def _find(self, source: Source) -> ImageTree:
        """The images that are to be decoded."""
        raise NotImplementedError

    def _split(self, tree: ImageTree, good: Tensor) -> dict[str, Tensor]:
        """Indices into the images for `train`, `val` and `test`; `good` `(N,)` tells which of them could be read."""
        raise NotImplementedError


class DrawnSplitsDataModule(DecodedImagesDataModule):
    """Draws, by class and seed, the splits that the images do not come with.

    Args:
        root: Folder or zip file.
        image_size: Height and width, in pixels; the middle square of each image is resized to it.
        val_fraction: Share of the images for validation, where they have no such split, in [0, 1].
        test_fraction: Share of the images for the test, where they have no such split, in [0, 1].
        split_seed: Seed of the splits that they do not have.
        kwargs: See `DecodedImagesDataModule`.
    """

    def __init__(
        self,
        root: str,
        image_size: int,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, image_size, **kwargs)
        check_range("data", "[0, 1]", val_fraction=val_fraction, test_fraction=test_fraction)
        if val_fraction + test_fraction > 1:
            raise ValueError(
                f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction} must be together at most 1"
            )
        self.fractions = {"test": test_fraction, "val": val_fraction}
        self.split_seed = split_seed

    def _split(self, tree: ImageTree, good: Tensor) -> dict[str, Tensor]:
        """Takes the splits of the images, and draws a stratified share of `train` for those that they lack."""
        labels = torch.tensor(tree.labels)
        splits = {
            name: torch.tensor([(split or "train") == name for split in tree.splits]).logical_and(good).nonzero()[:, 0]
            for name in ("train", "val", "test")
        }
        total = len(splits["train"])
        missing = {name: part for name, part in self.fractions.items() if total and part and not len(splits[name])}
        if none := [f"data.{name}_fraction={part}" for name, part in missing.items() if not round(part * total)]:
            raise ValueError(
                f"{self.root}: too few images ({total}) for {' and '.join(none)}: set 0 to do without such a split,"
                f" or at least {math.ceil(100 / total) / 100}"
            )
        for name, fraction in missing.items():
            size = min(round(fraction * total), len(splits["train"]))
            rest, drawn = stratified_split(labels[splits["train"]], size, self.split_seed)
            splits[name], splits["train"] = splits["train"][drawn], splits["train"][rest]
        return splits
