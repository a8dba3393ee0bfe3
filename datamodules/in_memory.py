"""Images in memory: uint8 tensors that are served a batch at a time, and the data module around them."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Batch = tuple[Tensor, Tensor]


class InMemoryImages(Dataset[Batch]):
    """Images and labels as whole tensors; a batch is one indexing operation.

    Args:
        images: uint8 images `(N, C, H, W)`.
        labels: Class indices `(N,)`, -1 for an image whose label is not given.
        repeat: Times the images are passed over in one epoch.
    """

    def __init__(self, images: Tensor, labels: Tensor, repeat: int = 1) -> None:
        """Keeps the tensors as they are."""
        self.images = images
        self.labels = labels
        self.repeat = repeat

    def __len__(self) -> int:
        """Number of images in an epoch."""
        return len(self.images) * self.repeat

    def __getitem__(self, index: int) -> Batch:
        """Returns image `(C, H, W)` and label `()`."""
        return self.images[index % len(self.images)], self.labels[index % len(self.images)]

    def __getitems__(self, indices: list[int]) -> Batch:
        """Returns images `(B, C, H, W)` and labels `(B,)`; called by the loader in place of B calls for one image."""
        index = torch.tensor(indices)
        if self.repeat > 1:
            index %= len(self.images)
        return self.images.index_select(0, index), self.labels.index_select(0, index)


def identity(batch: Any) -> Batch:
    """The collate function of batches that are batches already; at module level, so that workers can import it."""
    return batch


class InMemoryDataModule(LightningDataModule):
    """Serves uint8 images batch-wise and turns them into floats in [0, 1] on the device.

    A subclass fills `train_set`, `val_set`, `test_set` and `class_names` in `setup`.
    """

    train_set: InMemoryImages
    val_set: InMemoryImages
    test_set: InMemoryImages
    class_names: list[str]

    def __init__(self, batch_size: int = 64, augmentations: Sequence[nn.Module] | None = None) -> None:
        """Sets what all in-memory data sets share.

        Args:
            batch_size: Images per batch and device.
            augmentations: Transforms of float batches `(B, C, H, W)` in [0, 1], applied in order to training batches on
                the device: `PerImageAffine`, or any of `torchvision.transforms.v2`.
        """
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size must be at least 1, not {batch_size}")
        self.batch_size = batch_size
        self.augmentations = list(augmentations or [])

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the training split."""
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Batches of the validation split, in order; none where the split is empty."""
        return self._loader(self.val_set) if len(self.val_set) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the test split, in order."""
        return self._loader(self.test_set)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of the test split, in order."""
        return self._loader(self.test_set)

    def _loader(self, images: InMemoryImages, shuffle: bool = False) -> DataLoader[Batch]:
        # No worker processes: handing a small batch over costs more than making it. Without gradients nothing is kept
        # for the backward pass, so evaluation takes larger batches; they change no per-image metric.
        return DataLoader(
            dataset=images,
            batch_size=self.batch_size if shuffle else max(self.batch_size, 256),
            shuffle=shuffle,
            collate_fn=identity,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turns uint8 images into floats in [0, 1] and augments those of the training split, on the device."""
        images, labels = batch
        images = images.float().div_(255)
        if self.trainer is not None and self.trainer.training:
            for augmentation in self.augmentations:
                images = augmentation(images)
        return images, labels
