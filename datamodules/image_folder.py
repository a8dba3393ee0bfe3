"""Folders and zip files of colour images, with labels or without."""

import re
from typing import Any

import torch

from .decoded_images import DrawnSplitsDataModule
from .image_tree import ImageTree, Layout, find_images
from .source import Source
from .tables import Wanted

_TINY_IMAGENET = re.compile(r"(^|/)train/n\d{8}/images/")
_IDX = re.compile(r"-(images-idx3|labels-idx1)-ubyte")


class ImageFolderDataModule(DrawnSplitsDataModule):
    """Images of any size and format, from a folder or straight from a zip file, as RGB squares.

    Class folders (`CLASS/*.jpg`), split folders (`train|val|test/CLASS/*.jpg`, also as `Training_set` or `valid`), the
    Kaggle form (a CSV of file names and labels beside the images) and images without labels, which get label -1, are
    told apart by looking; what can be taken in two ways is refused, and what is left out is said. Splits that the tree
    lacks are drawn by class and seed. The images are decoded once, into a cache on disk, from which later starts read.

    Args:
        root: Folder or zip file.
        image_size: Height and width, in pixels; the middle square of each image is resized to it.
        layout: How the images are laid out; `auto` looks. `folders` takes every folder for a class, whatever it is
            called, `splits` reads no table, and `flat` takes all images without labels.
        table: File of labels, its path in `root` or elsewhere; by default every CSV that names images and labels.
        filename_column: Its column of file names, by default that which names images.
        label_column: Its column of labels, by default that which is called so, or the only other one.
        kwargs: See `DrawnSplitsDataModule`.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 128,
        layout: Layout = "auto",
        table: str | None = None,
        filename_column: str | None = None,
        label_column: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, image_size, **kwargs)
        self.wanted = Wanted(table, filename_column, label_column)
        if any(self.wanted) and layout not in ("auto", "csv"):
            raise ValueError(
                f"data.layout={layout} reads no table: leave out data.table and its columns, or the layout"
            )
        self.layout = layout

    def _find(self, source: Source) -> ImageTree:
        if self.layout == "auto" and any(map(_TINY_IMAGENET.search, source.sizes)):
            raise ValueError(f"{self.root} is a tree of Tiny ImageNet: --data TinyImageNetDataModule takes it")
        if any(map(_IDX.search, source.sizes)) and not source.images():
            raise ValueError(f"{self.root} holds IDX files: --data MNISTDataModule takes them")
        tree = find_images(source, self.layout, self.wanted)
        self._split(tree, torch.ones(len(tree.names), dtype=torch.bool))  # before anything is decoded
        return tree
