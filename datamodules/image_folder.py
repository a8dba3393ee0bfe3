"""Folders and zip files of labelled colour images."""

from typing import Any

import torch
from torch import Tensor

from .decoded_images import DecodedImagesDataModule
from .image_cache import OnBadImage
from .image_tree import ImageTree, Layout, Source, find_images
from .splits import stratified_split


class ImageFolderDataModule(DecodedImagesDataModule):
    """Labelled images of any size and format, from a folder or straight from a zip file, as RGB squares.

    Class folders (`CLASS/*.jpg`), split folders (`train|val|test/CLASS/*.jpg`) and the Kaggle form (a CSV with columns
    `filename` and `label` beside `train/`) are told apart by looking. Splits that the tree lacks are drawn by class and
    seed. The images are decoded once, into a cache on disk, from which later starts read.
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
        super().__init__(root, image_size, on_bad_image, **kwargs)
        if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
            raise ValueError(
                f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction} must be at least 0 and"
                " together below 1"
            )
        self.layout = layout
        self.fractions = {"test": test_fraction, "val": val_fraction}
        self.split_seed = split_seed

    def _find(self, source: Source) -> ImageTree:
        return find_images(source, self.layout)

    def _split(self, tree: ImageTree, good: Tensor) -> dict[str, Tensor]:
        """Takes the splits of the tree, and draws a stratified share of `train` for those that it lacks."""
        labels = torch.tensor(tree.labels)
        splits = {
            name: torch.tensor([(split or "train") == name for split in tree.splits]).logical_and(good).nonzero()[:, 0]
            for name in ("train", "val", "test")
        }
        total = len(splits["train"])
        for name, fraction in self.fractions.items():
            if len(splits[name]) or not fraction:
                continue
            rest, drawn = stratified_split(labels[splits["train"]], round(fraction * total), self.split_seed)
            splits[name], splits["train"] = splits["train"][drawn], splits["train"][rest]
        for name, indices in splits.items():
            counts = torch.bincount(labels[indices], minlength=len(tree.class_names))
            if len(indices) and counts.min() < 1:
                short = tree.class_names[int(counts.argmin())]
                raise ValueError(f"{self.root}: class {short} has too few images for one in the {name} split")
        return splits
