"""LightningDataModules: every one yields batches of the kind `Batch`, images as floats in [0, 1] `(B, C, H, W)`."""
# ruff: noqa: F401

from .augmentation import PerImageAffine
from .huggingface import HuggingFaceDataModule
from .image_folder import ImageFolderDataModule
from .in_memory import InMemoryDataModule
from .mnist import MNISTDataModule
from .tiny_imagenet import TinyImageNetDataModule

__all__ = [name for name in dir() if name[0].isupper()]
