"""Folders and zip files of labelled colour images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from .image_cache import ImageCache, OnBadImage, cache_images
from .image_tree import ImageTree, Layout, Source, find_images
from .in_memory import InMemoryDataModule, InMemoryImages
from .splits import stratified_split


class ImageFolderDataModule(InMemoryDataModule):
    """Labelled images of any size and format, from a folder or straight from a zip file, as RGB squares.

    Class folders (`CLASS/*.jpg`), split folders (`train|val|test/CLASS/*.jpg`) and the Kaggle form (a CSV with columns
    `filename` and `label` beside `train/`) are told apart by looking. Splits that the tree lacks are drawn by class and
    seed. The images are decoded once, into a cache on disk that later starts map into memory.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 128,
        layout: Layout = "auto",
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        on_bad_image: OnBadImage = "error",
        **kwargs: Any,
    ) -> None:
        """Chooses the images and their splits; nothing is read yet.

        Args:
            root: Folder or zip file.
            image_size: Height and width, in pixels; the middle square of each image is resized to it.
            layout: How the images are laid out; `auto` looks.
            val_fraction: Share of the images for validation, where the tree has no such split, in [0, 1).
            test_fraction: Share of the images for the test, where the tree has no such split, in [0, 1).
            split_seed: Seed of the splits that the tree does not have.
            on_bad_image: Stop at an image that cannot be read, or `skip` it and list it in the run's `bad_images.json`.
            kwargs: Batch size, augmentations and cache, see `InMemoryDataModule`.
        """
        super().__init__(**kwargs)
        if image_size < 1 or min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
            raise ValueError(
                f"data.image_size={image_size} must be at least 1, and data.val_fraction={val_fraction} and"
                f" data.test_fraction={test_fraction} at least 0 and together below 1"
            )
        self.root = Path(root)
        self.image_size = image_size
        self.layout = layout
        self.fractions = {"test": test_fraction, "val": val_fraction}
        self.split_seed = split_seed
        self.on_bad_image: OnBadImage = on_bad_image

    def prepare_data(self) -> None:
        """Decodes the images, unless that was done before; on one process of a machine, while the others wait."""
        self._open()

    def setup(self, stage: str) -> None:
        """Maps the decoded images and draws the splits, once."""
        if hasattr(self, "train_set"):
            return
        tree, cache = self._open()
        self.class_names = tree.class_names
        good = torch.tensor([name not in cache.bad for name in tree.names])
        self.bad_images = cache.bad
        if cache.bad:
            rank_zero_info(f"{len(cache.bad)} images cannot be read and are left out: {', '.join(cache.bad)}")
        labels = torch.tensor(tree.labels)
        splits = self._split(labels, good, tree.splits)
        self.train_set, self.val_set, self.test_set = (
            InMemoryImages(_select(cache, index), labels[index], names=[tree.names[i] for i in index.tolist()])
            for index in (splits["train"], splits["val"], splits["test"])
        )
        sizes = ", ".join(f"{len(index)} {name}" for name, index in splits.items())
        rank_zero_info(f"{self.root.name}: {len(tree.class_names)} classes, images: {sizes}")

    def _open(self) -> tuple[ImageTree, ImageCache]:
        source = Source(self.root)
        tree = find_images(source, self.layout)
        return tree, cache_images(source, tree.names, self.image_size, self.cache_dir, self.on_bad_image)

    def _split(self, labels: Tensor, good: Tensor, given: list[str | None]) -> dict[str, Tensor]:
        """Indices of each split: those of the tree, and a stratified share of `train` for those that it lacks."""
        splits = {
            name: torch.tensor([(split or "train") == name for split in given]).logical_and(good).nonzero()[:, 0]
            for name in ("train", "val", "test")
        }
        total = len(splits["train"])
        for name, fraction in self.fractions.items():
            if len(splits[name]) or not fraction:
                continue
            rest, drawn = stratified_split(labels[splits["train"]], round(fraction * total), self.split_seed)
            splits[name], splits["train"] = splits["train"][drawn], splits["train"][rest]
        for name, indices in splits.items():
            counts = torch.bincount(labels[indices], minlength=len(self.class_names))
            if len(indices) and counts.min() < 1:
                short = self.class_names[int(counts.argmin())]
                raise ValueError(f"{self.root}: class {short} has too few images for one in the {name} split")
        return splits


def _select(cache: ImageCache, indices: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(cache.images[indices.numpy()]))
