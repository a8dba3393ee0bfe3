"""Images in tables: a data set of the Hugging Face Hub, a Parquet or Arrow file, or a folder of these."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from lightning_modules.networks.sources.base import extra, first_line

from .decoded_images import DrawnSplitsDataModule
from .image_tree import ImageTree, in_order
from .source import Source
from .splits import split_named
from .tables import label_like

_KINDS = {".parquet": "parquet", ".arrow": "arrow"}
_SAVED = ("dataset_dict.json", "state.json")  # by one of which `save_to_disk` is known
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class HuggingFaceDataModule(DrawnSplitsDataModule):
    """Images and labels in a table of the library `datasets`, as RGB squares.

    Splits that it lacks are drawn by class and seed; those that are named neither train, validation nor test are left
    out. The images are decoded once, into a cache on disk, from which later starts read, as those of a folder are.

    Args:
        root: Name on the Hub, as `zalando-datasets/fashion_mnist`, a Parquet or Arrow file, a folder of these, or one
            that `save_to_disk` has written.
        image_size: Height and width, in pixels; the middle square of each image is resized to it.
        subset: Configuration of the data set, where it has several.
        revision: Commit or tag on the Hub, by default the newest that is there.
        image_column: Column of the images, by default the only one that may hold any.
        label_column: Column of the labels: class indices, numbers or texts, one for each image; by default the only one
            of class labels, or that which is called so. Without one, images have the label -1.
        kwargs: See `DrawnSplitsDataModule`.
    """

    expected = "a Parquet or Arrow file, a folder of these, or the name of a data set on the Hub"

    def __init__(
        self,
        root: str,
        image_size: int = 128,
        subset: str | None = None,
        revision: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, image_size, **kwargs)
        self.subset = subset
        self.revision = revision
        self.image_column = image_column
        self.label_column = label_column

    def _source(self) -> "_Table":
        library = extra("datasets", of="hf")
        try:
            loaded = self._load(library)
        except (FileNotFoundError, ModuleNotFoundError):
            raise
        except Exception as error:  # of many libraries, for a file that is damaged or a Hub that is away
            while error.__cause__ is not None and isinstance(error.__cause__, Exception):
                error = error.__cause__
            raise ValueError(f"{self.root} cannot be read as {self.expected} ({first_line(error)})") from error
        splits = dict(loaded) if isinstance(loaded, Mapping) else {"train": loaded}
        named = {name: split for name, split in splits.items() if split_named(name) or len(splits) == 1}
        if not any(map(len, named.values())):
            raise ValueError(f"{self.root} has no rows in train, validation or test, but in {', '.join(splits)}")
        column = self._images_in(library, next(iter(named.values())))
        encoded = {name: split.cast_column(column, library.Image(decode=False)) for name, split in named.items()}
        table = _Table(self.root, encoded, column)
        if left := [name for name in splits if name not in named]:
            table.notes.append(f"splits that are none of train, validation and test are left out: {', '.join(left)}")
        return table

    def _load(self, library: Any) -> Any:
        """The data set as it is, or its splits by their names."""
        root, own = self.root, {"cache_dir": str(self.cache_dir / "huggingface"), "keep_in_memory": False}
        if root.is_file():
            kind = _KINDS.get(root.suffix.lower())
            if kind is None:
                raise ValueError(f"it ends in none of {', '.join(_KINDS)}")
            return library.load_dataset(kind, data_files=str(root), split="train", **own)
        if root.is_dir():
            if any((root / name).is_file() for name in _SAVED):
                return library.load_from_disk(str(root), keep_in_memory=False)
            if not any(path.suffix.lower() in _KINDS for path in root.rglob("*.*")):
                raise ValueError("it holds none: --data ImageFolderDataModule takes folders of images")
            return library.load_dataset(str(root), self.subset, **own)
        if not _HUB.fullmatch(str(root)) or root.suffix.lower() in _KINDS:
            raise FileNotFoundError(f"no data at {root}: expected {self.expected}")
        return library.load_dataset(str(root), self.subset, revision=self.revision, keep_in_memory=False)

    def _images_in(self, library: Any, split: Any) -> str:
        """The column of images."""

        def may_hold(kind: Any) -> bool:
            encoded = isinstance(kind, Mapping) and "bytes" in kind
            return encoded or isinstance(kind, library.Image) or getattr(kind, "dtype", "").endswith("binary")

        columns = split.features
        asked = [self.image_column] if self.image_column else [name for name in columns if may_hold(columns[name])]
        if len(asked) == 1 and asked[0] in columns and may_hold(columns[asked[0]]):
            return str(asked[0])
        there = ", ".join(f"{name} ({getattr(kind, 'dtype', type(kind).__name__)})" for name, kind in columns.items())
        if self.image_column:
            why = "holds no encoded images" if self.image_column in columns else "is not there"
            raise ValueError(f"{self.root}: data.image_column={self.image_column} {why}; the columns are {there}")
        raise ValueError(
            f"{self.root}: {' as well as '.join(asked) or 'no column'} may hold encoded images; set data.image_column"
            f" to one of {there}"
        )

    def _find(self, source: Source) -> ImageTree:
        table = cast(_Table, source)
        labels, class_names, notes = self._labels(table)
        names = [(name, f"{name}/{row}") for name, split in table.splits.items() for row in range(len(split))]
        splits = [split_named(name) for name, _ in names]
        tree = ImageTree([row for _, row in names], labels, splits, class_names, [*table.notes, *notes])
        self._split(tree, torch.ones(len(names), dtype=torch.bool))  # before anything is decoded
        return tree

    def _labels(self, table: "_Table") -> tuple[list[int], list[str], list[str]]:
        """Labels, -1 where there is none, of all rows, names of the classes, and what is to be said of them."""
        features = next(iter(table.splits.values())).features
        others = [name for name in features if name != table.column]
        asked = (
            [self.label_column] if self.label_column else [name for name in others if hasattr(features[name], "names")]
        )
        asked = asked or label_like(others)
        if len(asked) > 1 or not {*asked} <= {*others}:
            which = f"{' as well as '.join(asked)} may be the label" if len(asked) > 1 else f"there is no {asked[0]}"
            raise ValueError(f"{self.root}: {which}; set data.label_column to one of {', '.join(others)}")
        if not asked:
            return (
                [-1] * sum(map(len, table.splits.values())),
                [],
                [f"no column of {', '.join(others) or 'others'} is taken for labels"],
            )
        (column,) = asked
        values = [value for split in table.splits.values() for value in split.select_columns(column)[:][column]]
        if wrong := next((value for value in values if not isinstance(value, str | int | float | None)), None):
            raise ValueError(
                f"{self.root}: {column} holds {str(wrong)[:40]}, and not one label: set data.label_column to another of"
                f" {', '.join(others)}"
            )
        if known := getattr(features[column], "names", None):
            labels, classes = [-1 if value is None else int(value) for value in values], list(known)
        else:
            classes = in_order(str(value) for value in values if value is not None)
            index = {name: number for number, name in enumerate(classes)}
            labels = [-1 if value is None else index[str(value)] for value in values]
        if len({*labels} - {-1}) < 2:
            return [-1] * len(labels), [], [f"{len(labels)} images are taken without labels, since {column} has no two"]
        return labels, classes, []


class _Table(Source):
    """The rows of a data set as files, which are called `train/17`.

    Args:
        root: Where it is.
        splits: Its splits by their names, with images as they are encoded.
        column: The column of images.
    """

    def __init__(self, root: Path, splits: Mapping[str, Any], column: str) -> None:
        self.root, self.splits, self.column = root, splits, column
        self.sizes, self.changed, self.notes = {}, {}, []

    def origin(self) -> list[Any]:
        """The files in which `datasets` keeps the rows, and when they were made."""
        files = [Path(file["filename"]) for split in self.splits.values() for file in split.cache_files]
        return [self.column, *([str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files)]

    def read(self, name: str) -> bytes:
        """Reads an encoded image, from the table or from the file that it names."""
        split, _, row = name.rpartition("/")
        image = self.splits[split][int(row)][self.column] or {"bytes": b""}
        return image["bytes"] if image["bytes"] is not None else Path(image["path"] or "").read_bytes()
