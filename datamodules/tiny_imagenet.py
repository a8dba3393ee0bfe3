"""Tiny ImageNet: 64 x 64 photographs of 200 classes, of which an experiment takes some."""

import difflib
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from preimage.checks import check_range

from .decoded_images import DecodedImagesDataModule
from .image_tree import ImageTree
from .source import Source

_IN_CLASS = re.compile(r"((?:.*/)?)train/(n\d{8})/")


class TinyImageNetDataModule(DecodedImagesDataModule):
    """Some classes of Tiny ImageNet, the same number of images of each, from the standard tree or its zip file.

    All splits are drawn from `train/`: a fixed number of images of each class for the test, the rest for training and
    validation. A test image stays one whichever other classes are chosen. Only the chosen classes are decoded, once,
    into a cache on disk, from which later starts read.

    Args:
        root: Folder or zip file.
        image_size: Height and width, in pixels, to which images are resized.
        num_classes: Number of classes, drawn from those in `wnids.txt`, or in `train/` where there is no such file.
        class_seed: Seed of the draw of classes; by one seed, a larger draw holds the smaller ones.
        wnids: WordNet ids of the classes, as `n01443537`, to take these instead of drawing them.
        val_fraction: Share for validation of the images that are not for the test, in [0, 1).
        test_per_class: Number of test images of each class.
        split_seed: Seed of the splits.
        kwargs: See `DecodedImagesDataModule`.
    """

    expected = "train/WNID/images/*.JPEG, wnids.txt and words.txt, at any depth"

    def __init__(
        self,
        root: str,
        image_size: int = 64,
        num_classes: int = 20,
        class_seed: int = 0,
        wnids: list[str] | None = None,
        val_fraction: float = 0.1,
        test_per_class: int = 50,
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, image_size, **kwargs)
        check_range("data", "[1, inf)", num_classes=num_classes, test_per_class=test_per_class)
        check_range("data", "[0, 1)", val_fraction=val_fraction)
        if wnids is not None and not 0 < len(wnids) == len(set(wnids)):
            raise ValueError(f"data.wnids={wnids} must name at least one class, and each class once")
        self.num_classes = num_classes
        self.class_seed = class_seed
        self.wnids = wnids
        self.val_fraction = val_fraction
        self.test_per_class = test_per_class
        self.split_seed = split_seed

    def _find(self, source: Source) -> ImageTree:
        members: dict[str, list[str]] = defaultdict(list)
        folders = set()
        for name in source.images():
            if match := _IN_CLASS.match(name):
                folders.add(match[1])
                members[match[2]].append(name)
        if not folders:
            other = "; --data ImageFolderDataModule takes other images" if source.images() else ""
            raise ValueError(f"no images of Tiny ImageNet in {self.root}: expected {self.expected}{other}")
        if len(folders) > 1:
            two = " and ".join(f"{folder}train" for folder in sorted(folders)[:2])
            raise ValueError(f"{self.root} holds more than one tree, as {two}: set data.root to one of them")
        (folder,) = folders
        listed = Counter(_read(source, f"{folder}wnids.txt").split())
        if twice := [wnid for wnid, count in listed.items() if count > 1]:
            rank_zero_warn(f"{self.root}: wnids.txt names {', '.join(twice)} more than once, which counts once")
        chosen = self._choose(members, sorted(listed or members))
        words = dict(line.split("\t", 1) for line in _read(source, f"{folder}words.txt").splitlines() if "\t" in line)
        first = {wnid: words.get(wnid, "").split(",")[0].strip() for wnid in chosen}
        class_names = [f"{word} ({wnid})" if word else wnid for wnid, word in first.items()]
        self._sizes(class_names, [len(members[wnid]) for wnid in chosen])  # before anything is decoded
        how = "named by data.wnids" if self.wnids else f"drawn by data.class_seed={self.class_seed}"
        rank_zero_info(f"{self.root.name}: classes {how}: {', '.join(class_names)}")
        labelled = [(name, label) for label, wnid in enumerate(chosen) for name in members[wnid]]
        names, labels = map(list, zip(*labelled, strict=True))
        return ImageTree(names, labels, [None] * len(names), class_names)

    def _choose(self, members: Mapping[str, list[str]], pool: list[str]) -> list[str]:
        """The sorted ids of the classes to take, each of which has images."""
        if self.wnids is None and self.num_classes > len(pool):
            raise ValueError(f"data.num_classes={self.num_classes}, but {self.root} has only {len(pool)} classes")
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(self.class_seed))
        chosen = sorted(self.wnids or [pool[index] for index in order[: self.num_classes].tolist()])
        for wnid in sorted(set(chosen).difference(members, pool)):
            near = ", ".join(difflib.get_close_matches(wnid, sorted(members), cutoff=0))
            raise ValueError(f"data.wnids: there is no class {wnid} in {self.root}; the nearest are {near}")
        if missing := [wnid for wnid in chosen if wnid not in members]:
            raise FileNotFoundError(
                f"{self.root}: {len(missing)} of the {len(chosen)} chosen classes are in wnids.txt but have no images"
                f" in train/, as {missing[0]}: restore them, take their ids out of wnids.txt, or set data.wnids"
            )
        return chosen

    def _sizes(self, class_names: list[str], counts: list[int]) -> tuple[int, int]:
        """Images of each class for validation and in all, as many as the smallest of the classes allows."""
        total = min(counts)
        rest = total - self.test_per_class
        val = round(self.val_fraction * rest)
        if rest - val < 1 or (self.val_fraction and val < 1):
            raise ValueError(
                f"{self.root}: class {class_names[counts.index(total)]} has {total} images, too few for"
                f" data.test_per_class={self.test_per_class}, one to train on, and"
                f" data.val_fraction={self.val_fraction} of the rest for validation"
            )
        return val, total

    def _split(self, tree: ImageTree, good: Tensor) -> dict[str, Tensor]:
        """Draws by a hash of the file name, so that no image changes its split because of other images."""

        def draw(index: int) -> bytes:
            return hashlib.sha256(f"{self.split_seed} {PurePosixPath(tree.names[index]).name}".encode()).digest()

        members: list[list[int]] = [[] for _ in tree.class_names]
        for index in sorted(good.nonzero()[:, 0].tolist(), key=draw):
            members[tree.labels[index]].append(index)
        counts = [len(indices) for indices in members]
        val, total = self._sizes(tree.class_names, counts)
        if total < max(counts):
            short = tree.class_names[counts.index(total)]
            rank_zero_info(f"{self.root.name}: {total} images of each class are used, since {short} has no more")

        def part(start: int, stop: int) -> Tensor:
            return torch.tensor(sorted(i for indices in members for i in indices[start:stop]), dtype=torch.long)

        test = self.test_per_class
        return {"train": part(test + val, total), "val": part(test, test + val), "test": part(0, test)}


def _read(source: Source, name: str) -> str:
    return source.read(name).decode("utf-8-sig", errors="replace") if name in source.sizes else ""
