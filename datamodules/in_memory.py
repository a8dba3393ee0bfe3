"""uint8 images, in memory or mapped into it, that are served a batch at a time, and the data module around them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_modules.base import Batch
from preimage.checks import check_range

from .cache import Rows
from .code_cache import cache_codes
from .resumable import ResumableLoader, ResumableSampler


class InMemoryImages(Dataset[Batch]):
    """Images and labels; a batch is one indexing operation.

    Args:
        images: uint8 images `(N, C, H, W)`, in memory or in a file.
        labels: Class indices `(N,)`, -1 for an image whose label is not given.
        index: Which images an epoch holds, as often as each is named `(M,)`; by default every one once.
        names: File names of the images, if they come from files.
    """

    def __init__(
        self, images: Tensor | Rows, labels: Tensor, index: Tensor | None = None, names: Sequence[str] | None = None
    ) -> None:
        self.images: Any = images  # a tensor, or what is read by index as one
        self.labels = labels
        self.index = index
        self.names = names
        #: Codes `(N, ...)` of the images, where a frozen encoder has cached them; batches then hold them too.
        self.codes: Tensor | None = None
        #: Whether batches with codes hold the images too, or None in their place.
        self.serve_images = True

    def __len__(self) -> int:
        """Number of images in an epoch."""
        return len(self.images if self.index is None else self.index)

    def __getitem__(self, index: int) -> Batch:
        """Image `(C, H, W)` and label `()`."""
        images, labels, _ = self.__getitems__([index])
        return Batch(images[0], labels[0])

    def __getitems__(self, indices: list[int]) -> Batch:
        """Images `(B, C, H, W)` and labels `(B,)`; called by the loader in place of B calls for one image."""
        index = torch.tensor(indices) if self.index is None else self.index[indices]
        images: Any = self.images.index_select(0, index) if self.codes is None or self.serve_images else None
        codes = None if self.codes is None else self.codes.index_select(0, index)
        return Batch(images, self.labels.index_select(0, index), codes)


def _identity(batch: Any) -> Batch:
    """The collate function of batches that are batches already; at module level, so that workers can import it."""
    return batch


class InMemoryDataModule(LightningDataModule):
    """Serves uint8 images batch-wise and turns them into floats in [0, 1] on the device.

    A subclass fills `train_set`, `val_set`, `test_set` and `class_names` (empty where there are no labels) in `setup`.

    Args:
        batch_size: Images per batch and device.
        augmentations: Transforms of float batches `(B, C, H, W)` in [0, 1], applied in order to training batches on
            the device: `PerImageAffine`, or any of `kornia.augmentation` or `torchvision.transforms.v2` (which
            treats all images of a batch alike).
        predict_split: The split that `predict` goes through.
        cache_dir: Folder of decoded images and cached codes, by default `preimage` in the user's cache folder.
        code_cache_limit_gb: Largest size of the cached codes of a split on disk, in gigabytes.
    """

    train_set: InMemoryImages
    val_set: InMemoryImages
    test_set: InMemoryImages
    class_names: list[str]

    def __init__(
        self,
        batch_size: int = 64,
        augmentations: Sequence[nn.Module] | None = None,
        predict_split: Literal["train", "val", "test"] = "test",
        cache_dir: str | None = None,
        code_cache_limit_gb: float = 20.0,
    ) -> None:
        super().__init__()
        check_range("data", "[1, 1e9]", batch_size=batch_size)
        check_range("data", "[0, inf]", code_cache_limit_gb=code_cache_limit_gb)
        self.batch_size = batch_size
        self.augmentations = list(augmentations or [])
        self.predict_split = predict_split
        default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "preimage"
        self.cache_dir = default if cache_dir is None else Path(cache_dir)
        self.code_cache_limit_gb = code_cache_limit_gb

    def convert(self, image: Image.Image) -> Tensor:
        """Turns a picture of any size and mode into an image of this data, uint8 `(C, H, W)`."""
        raise ValueError(f"{type(self).__name__} does not say how pictures are converted: give tensors")

    @property
    def predict_set(self) -> InMemoryImages:
        """The split that `predict` goes through."""
        split: InMemoryImages = getattr(self, f"{self.predict_split}_set")
        return split

    def cache_codes(self, encode: Callable[[Tensor], Tensor], key: str, serve_images: bool) -> None:
        """Encodes the training and validation images, or finds their codes on disk; batches then hold the codes too.

        Args:
            encode: Maps uint8 images `(B, C, H, W)` to codes `(B, ...)` on the CPU.
            key: What the codes depend on besides the images.
            serve_images: Whether batches still hold the images.
        """
        if self.augmentations:
            raise ValueError("model.cache_codes needs images as they are: set data.augmentations to null")
        for split in (self.train_set, self.val_set):
            if len(split):
                split.codes = cache_codes(split.images, encode, key, self.cache_dir, self.code_cache_limit_gb)
                split.serve_images = serve_images

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the training split, the share of this process."""
        sampler = ResumableSampler(self.train_set, int(os.environ.get("PL_GLOBAL_SEED", 0)), *self._processes())
        return ResumableLoader(
            dataset=self.train_set,
            batch_size=self.batch_size,
            drop_last=len(sampler) % self.batch_size == 1 < len(sampler),  # batch norm needs two images
            sampler=sampler,
            collate_fn=_identity,
            generator=torch.Generator(),  # each pass would draw from the global one, which is to go on as it was saved
        )

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Batches of the validation split, in order; none where the split is empty."""
        return self._loader(self.val_set) if len(self.val_set) else []

    def test_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Batches of the test split, in order; none where the split is empty."""
        if not len(self.test_set):
            rank_zero_info("the test split has no images: nothing is tested")
            return []
        return self._loader(self.test_set)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of `predict_split`, in order."""
        if not len(self.predict_set):
            raise ValueError(f"data.predict_split={self.predict_split} has no images: choose another")
        return self._loader(self.predict_set)

    def _loader(self, images: InMemoryImages) -> DataLoader[Batch]:
        # No worker processes: handing a small batch over costs more than making it. Without gradients nothing is kept
        # for the backward pass, so evaluation takes larger batches; only free bits in a loss depend on them.
        batch_size, sampler = max(self.batch_size, 256), None
        processes, rank = self._processes()
        if processes > 1:
            if len(images) < processes:
                raise ValueError(f"{len(images)} images to evaluate are too few for {processes} processes: start fewer")
            # Lightning's own sampler would repeat images until all processes have as many, and they would count twice.
            sampler = UnrepeatedDistributedSampler(images, num_replicas=processes, rank=rank, shuffle=False)
            fewest, most = len(images) // processes, -(-len(images) // processes)
            # As many batches everywhere: DDP broadcasts the buffers in each, and would wait for ever.
            while -(-fewest // batch_size) != -(-most // batch_size):
                batch_size += 1
        return DataLoader(dataset=images, batch_size=batch_size, sampler=sampler, collate_fn=_identity)

    def _processes(self) -> tuple[int, int]:
        """How many there are, and which of them this is."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turns uint8 images into floats in [0, 1] and augments those of the training split, on the device."""
        if batch.images is None:  # a model that reads cached codes alone
            return batch
        # In float64 where the model computes in it; half precision is a matter of its layers, and targets stay exact.
        module = None if self.trainer is None else self.trainer.lightning_module
        images = batch.images.to(torch.promote_types(torch.float32, getattr(module, "dtype", torch.float32))).div_(255)
        if self.trainer is not None and self.trainer.training:
            for augmentation in self.augmentations:
                images = augmentation(images)
        return batch._replace(images=images)
