"""Names of splits; stratified splits and label subsets, drawn by a seed and the same on every machine and rank."""

import re
from functools import cache
from typing import Literal

import torch
from torch import Tensor

SplitName = Literal["train", "val", "test"]
_WORDS: dict[str, SplitName] = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_WORDS |= {"val": "val", "valid": "val", "validation": "val", "dev": "val"}
_NAME = re.compile(rf"({'|'.join(_WORDS)})[ _-]?(set|split|data|images|imgs|\d{{1,4}})?")


@cache
def split_named(name: str) -> SplitName | None:
    """The split that a folder or a cell of a table names, as `Training_set`, `VALID` or `test2017`; None for others."""
    found = _NAME.fullmatch(name.strip().lower())
    return _WORDS[found[1]] if found else None


def split_of_path(path: str) -> SplitName | None:
    """The split that the outermost of the folders of a path names, if there is one."""
    return _split_of_folder(path.rpartition("/")[0])


@cache
def _split_of_folder(folder: str) -> SplitName | None:
    return next((split for part in folder.split("/") if (split := split_named(part))), None)


def stratified_split(labels: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draws a subset in which every class has its share.

    Args:
        labels: Class indices `(N,)`, -1 for images without a label, which count as one more class.
        size: Size of the subset; classes get `size * share` images, rounded so that they add up to `size`.
        seed: Seed of the draw; the global random state is neither read nor changed.

    Returns:
        The sorted indices of the rest `(N - size,)` and of the subset `(size,)`.
    """
    if not 0 <= size <= len(labels):
        raise ValueError(f"cannot take {size} images out of {len(labels)}")
    labels = labels + 1 if (labels < 0).any() else labels
    shares = torch.bincount(labels).double() * size / max(len(labels), 1)
    takes = shares.floor().long()
    # The largest remainders get the images that rounding down left over.
    takes[(takes - shares).argsort(stable=True)[: size - int(takes.sum())]] += 1
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[_draw(labels, takes.tolist(), seed)] = True
    return (~chosen).nonzero()[:, 0], chosen.nonzero()[:, 0]


def balanced_subset(labels: Tensor, size: int, num_classes: int, seed: int) -> Tensor:
    """Draws the same number of images of every class.

    Args:
        labels: Class indices `(N,)`.
        size: Size of the subset.
        num_classes: Number of classes.
        seed: Seed of the draw; the global random state is neither read nor changed.

    Returns:
        The sorted indices of the subset `(size,)`.
    """
    each, left = divmod(size, num_classes)
    if left or each < 1:
        raise ValueError(f"num_labels={size} cannot be divided evenly among {num_classes} classes")
    for label in range(num_classes):
        if (there := int((labels == label).sum())) < each:
            raise ValueError(f"num_labels={size} needs {each} images of class {label}, the training split has {there}")
    return _draw(labels, [each] * num_classes, seed).sort().values


def _draw(labels: Tensor, takes: list[int], seed: int) -> Tensor:
    """Indices of so many images of each class."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [torch.empty(0, dtype=torch.long)]
    for label, take in enumerate(takes):
        members = (labels == label).nonzero()[:, 0]
        chosen.append(members[torch.randperm(len(members), generator=generator)[:take]])
    return torch.cat(chosen)
