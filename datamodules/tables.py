"""Labels of images by tables: CSV files in any of the forms in which they are passed around."""

import csv
import io
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from .source import SUFFIXES, Entry, Source, folded, is_hidden
from .splits import SplitName, split_named, split_of_path

TABLES = (".csv", ".tsv")
_DELIMITERS = ",;\t|"
_HEAD = 20  # rows by which a table is judged
#: Names of columns without blanks, separators and case; those that come first are taken first.
_FILENAMES = [
    *("filename", "file", "filenames", "filepath", "filepaths", "path", "imagepath", "imagefile", "imagefilename"),
    *("imagename", "image", "images", "img", "imgname", "imgpath", "imageid", "imgid", "id", "name"),
]
_LABELS = [
    {"label", "labels"},
    {"class", "classes", "classname", "category", "categoryname", "target", "labelname"},
    {"classid", "classindex", "labelid", "labelindex", "categoryid"},
]
_ANY_LABEL = set().union(*_LABELS)
_SPLITS = {"split", "subset", "set", "dataset", "partition", "phase", "fold"}
#: What programs write for a label that is not known; NA and None may be classes.
_NO_LABEL = {"", "nan", "null", "<na>", "#n/a", "n/a"}
_INDEX = re.compile(r"|index|unnamed\d*")  # what pandas writes before the columns


class Wanted(NamedTuple):
    """What the user says of the table: its path, and the columns of file names and of labels."""

    table: str | None = None
    filename_column: str | None = None
    label_column: str | None = None


class Unused(NamedTuple):
    """Why a table gives no labels, and whether somebody who wants its labels would have to say more."""

    reason: str
    unclear: bool = False


def from_tables(source: Source, names: list[str], wanted: Wanted) -> tuple[list[Entry], list[str], list[Unused]]:
    """Reads the labels of images from the tables beside them, each for the images of its own folder and split.

    Args:
        source: The files.
        names: Paths of the images.
        wanted: What the user says of the table.

    Returns:
        The images with a label in the order of the rows, what is to be said of them, and the tables without labels.

    Raises:
        ValueError: A table is damaged, or contradicts itself, another table or the images that there are.
    """
    images: _Images | None = None  # a hundred thousand names are not sorted where there is no table
    labelled: dict[str, tuple[Entry, str]] = {}
    notes: list[str] = []
    unused: list[Unused] = []
    for table in _tables(source, wanted):
        images = images or _Images(names, source.root)
        entries = table.entries(images, wanted)
        if isinstance(entries, Unused):
            unused.append(entries)
            continue
        for entry, row in entries:
            before, where = labelled.setdefault(entry.name, (entry, row))
            here = "" if where.startswith(table.where) else f", as {where} does: set --data.table to one"
            if before.label != entry.label:
                raise ValueError(f"{row} labels {entry.name} {entry.label}, and not {before.label}{here}")
            if before.split and entry.split and before.split != entry.split:
                raise ValueError(f"{row} takes {entry.name} for the {entry.split} split, and not {before.split}{here}")
            labelled[entry.name] = before._replace(split=before.split or entry.split), where
        notes += table.notes
    if not labelled and any(wanted):
        raise ValueError("; ".join(reason for reason, _ in unused) or f"{source.root} has no table of labels")
    return [entry for entry, _ in labelled.values()], notes, unused


def label_like(columns: list[str]) -> list[str]:
    """Those of the columns whose names say most clearly that they hold labels; none where none does."""
    tiers = ([column for column in columns if _plain(column) in tier] for tier in _LABELS)
    return next(filter(None, tiers), [])


def _tables(source: Source, wanted: Wanted) -> "Iterator[_Table]":
    if wanted.table is None:
        tables = [name for name in source.sizes if name.lower().endswith(TABLES) and not is_hidden(name)]
    else:
        asked = wanted.table.replace("\\", "/").removeprefix("./")
        tables = [name for name in source.sizes if f"/{name}".endswith(f"/{asked}")]
        if not tables and Path(wanted.table).is_file():
            yield _Table(wanted.table, "", _split_of_table(Path(wanted.table).name), Path(wanted.table).read_bytes())
            return
        if len(tables) != 1:
            which = f"is {' as well as '.join(tables[:2])}" if tables else f"is neither in {source.root} nor a file"
            raise ValueError(f"data.table={wanted.table} {which}: give the path of one table")
    for name in sorted(tables, key=lambda name: (name.count("/"), name)):
        yield _Table(f"{source.root}: {name}", name.rpartition("/")[0], _split_of_table(name), source.read(name))


def _split_of_table(name: str) -> SplitName | None:
    """The split that a folder of a table's path names, or else the only one in its own name, as `train_labels.csv`."""
    words = re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]+", name.rpartition("/")[2].rpartition(".")[0])
    splits = {split for word in words if (split := split_named(word))}
    return split_of_path(name) or (splits.pop() if len(splits) == 1 else None)


class _Table:
    """A table, of which no more than the first rows are read before it turns out to be about images."""

    def __init__(self, where: str, folder: str, split: SplitName | None, data: bytes) -> None:
        self.where, self.folder, self.split = where, folder, split
        self.notes: list[str] = []
        rows = self._rows(self._decode(data))
        self.columns = next(rows, (0, []))[1]
        self.plain = [_plain(column) for column in self.columns]
        self.head = list(islice(rows, _HEAD))
        self.rows = chain(self.head, rows)

    def _decode(self, data: bytes) -> str:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return data.decode("utf-16", errors="replace")
        if b"\0" in data[:2]:
            return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le", errors="replace")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            self.notes.append(f"{self.where} is no UTF-8, and read as Windows-1252")
            return data.decode("cp1252", errors="replace")

    def _rows(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """The rows that are not empty, with the numbers of their lines."""
        stream = io.StringIO(re.sub(r'" +(?=[,;\t|\r\n])', '"', text), newline="")
        said = re.fullmatch(r'"?sep=(.)"?\s*', stream.readline())  # Excel's own first line
        if not said:
            stream.seek(0)
        start, line = stream.tell(), 0
        try:
            delimiter = said[1] if said else _delimiter(list(islice(stream, _HEAD)))
            stream.seek(start)
            reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=True, strict=True)
            for cells in reader:
                cells = [cell.strip() for cell in cells]
                if any(cells):
                    yield reader.line_num + bool(said), cells
                line = reader.line_num
        except csv.Error as error:
            raise ValueError(f"{self.where}, after row {line}: quotation marks do not pair up ({error})") from error

    def entries(self, images: "_Images", wanted: Wanted) -> list[tuple[Entry, str]] | Unused:
        """The images that are given a label, each with where it is."""
        if not self.columns:
            return Unused(f"{self.where} is empty")
        if "submission" in self.where.rpartition("/")[2].lower() and not wanted.table:
            return Unused(f"{self.where} is a form to be filled in, and gives no labels")
        some = [column[:20] for column in self.columns[:8]] + ["..."] * (len(self.columns) > 8)
        has = f"{self.where} has the columns {', '.join(some)}"
        for name in (wanted.filename_column, wanted.label_column):
            if name and not self._called(name):
                return Unused(f"{has}, and no {name}", unclear=True)
        files = self._filename_columns(images, wanted.filename_column)
        if len(files) != 1:
            say = "several may name" if files else "none names"
            known = not _ANY_LABEL.union(_FILENAMES).isdisjoint(self.plain)
            return Unused(f"{has}: {say} the images (--data.filename_column)", unclear=known or bool(files))
        file, header = files[0], self.columns[files[0]]
        if re.search(r"\d|\.", header) and images.of(header, self.folder, self.split):
            raise ValueError(f"{self.where} has no header, its first row names {header}: add one, as filename,label")
        rest = [i for i, name in enumerate(self.plain) if i != file and not _INDEX.fullmatch(name)]
        splits = [i for i in rest if self.plain[i] in _SPLITS]
        labels = self._label_columns([i for i in rest if i not in splits], wanted.label_column)
        if len(labels) != 1:
            say = "several may hold" if labels else "none holds"
            return Unused(f"{has}: {say} labels (--data.label_column)", unclear=bool(labels))
        label, rows = labels[0], list(self.rows)
        if not any("".join(cells[label : label + 1]) for _, cells in rows):
            return Unused(f"{has}: {self.columns[label]} is empty")
        self.notes.append(f"{self.where} labels the images ({header}, {self.columns[label]})")
        split = next(filter(self._names_splits, splits), None)
        if split is None and splits:
            name = self.columns[splits[0]]
            self.notes.append(f"{self.where}: {name} does not hold train, val and test: it is not read")
        entries = [self._entry(images, line, cells, file, label, split) for line, cells in rows]
        guessed = not any(wanted) and self.plain[label] not in _ANY_LABEL
        return (self._doubt(images, self.columns[label], entries) if guessed else None) or entries

    def _doubt(self, images: "_Images", column: str, entries: list[tuple[Entry, str]]) -> Unused | None:
        """Looks whether the only other column, or class folders tell the classes: it may say who took the pictures."""
        pairs = {(_class_folder(entry.name), entry.label) for entry, _ in entries}
        folders, labels = {folder for folder, _ in pairs}, {label for _, label in pairs}
        if len(labels) == 1 and len(set(map(_class_folder, images.names))) > 1:
            return Unused(f"{self.where}: {column} is {labels.pop()} in all rows, and no label")
        if len(folders) > 1 and not len(pairs) == len(folders) == len(labels):
            raise ValueError(
                f"{self.where}: the labels may be {column}, or the folders, as {max(folders)}/: set"
                f" --data.label_column {column!r}, or --data.layout folders or splits to read no table"
            )
        return None

    def _called(self, name: str) -> list[int]:
        """The first column of a name, or else of one that differs by case and separators; none where there is none."""
        exact = [i for i, column in enumerate(self.columns) if column == name]
        return (exact or [i for i, plain in enumerate(self.plain) if plain == _plain(name)])[:1]

    def _filename_columns(self, images: "_Images", asked: str | None) -> list[int]:
        """The column whose cells name images, and where none does, that which says so; several of equal right."""
        if asked is not None:
            return self._called(asked)
        ranks = [_FILENAMES.index(name) if name in _FILENAMES else len(_FILENAMES) for name in self.plain]
        cells = [{row[i] for _, row in self.head if len(row) > i} for i in range(len(self.columns))]
        hits = [sum(bool(images.of(cell, self.folder, self.split)) for cell in column) for column in cells]
        columns = [i for i, name in enumerate(self.plain) if hits[i] and name not in _ANY_LABEL]
        columns = columns or [i for i, rank in enumerate(ranks) if rank < _FILENAMES.index("id")]
        best = min(((ranks[i], -hits[i]) for i in columns), default=None)
        return [i for i in columns if (ranks[i], -hits[i]) == best]

    def _label_columns(self, rest: list[int], asked: str | None) -> list[int]:
        if asked is not None:
            return self._called(asked)
        like = label_like([self.columns[i] for i in rest])
        return [i for i in rest if self.columns[i] in like] or rest

    def _names_splits(self, column: int) -> bool:
        return all(len(cells) > column and split_named(cells[column]) for _, cells in self.head)

    def _entry(
        self, images: "_Images", line: int, cells: list[str], file: int, label: int, split: int | None
    ) -> tuple[Entry, str]:
        row = f"{self.where}, row {line}"
        if any(cells[len(self.columns) :]):
            raise ValueError(f"{row} has {len(cells)} cells for {len(self.columns)} columns: quote what holds a comma")
        cells = cells + [""] * (len(self.columns) - len(cells))
        if cells[label].lower() in _NO_LABEL:
            what = f"no label to {cells[file]}" if not cells[label] else f"{cells[file]} the label {cells[label]}"
            raise ValueError(f"{row} gives {what}: add it, or remove the row")
        name, own = images.one(cells[file], self.folder, self.split, row), self.split
        if split is not None and (own := split_named(cells[split])) is None:
            raise ValueError(f"{row} has {cells[split]!r} for a split: train, val or test")
        return Entry(name, cells[label], own or split_of_path(name)), row


class _Images:
    """Finds the images that cells of tables name, by any part of their path, of any case, with or without a suffix."""

    def __init__(self, names: list[str], root: Path) -> None:
        self.names = set(names)
        self.top = f"/{folded(root.stem if root.is_file() else root.name)}/"
        self.called: dict[str, list[str]] = defaultdict(list)  # names by file, with its suffix and without
        for name in names:
            file = folded(name.rpartition("/")[2])
            self.called[file].append(name)
            self.called[_stem(file)].append(name)

    def of(self, cell: str, folder: str, split: SplitName | None) -> list[str]:
        """The images that a cell may mean, in a table that lies in a folder and is of a split."""
        path = _path(cell, folder)
        for usual in ("train", "images", ""):  # where most tables have them
            name = posixpath.join(folder, usual, path)
            if name in self.names and (split is None or split_of_path(name) in (None, split)):
                return [name]
        key, ranks = folded(path), {}
        for name in self.called.get(key.rpartition("/")[2], ()):
            whole, own = f"{self.top}{folded(name)}", split_of_path(name)
            with_suffix, without = (text.endswith(f"/{key}") for text in (whole, _stem(whole)))
            if (with_suffix or without) and (split is None or own in (None, split)):
                ranks[name] = (
                    with_suffix,
                    bool(split) or own in (None, "train"),
                    len(os.path.commonpath([f"/{folder}", f"/{name}"])),  # near to the table
                    f"/{name}".endswith(f"/{path}"),  # of the same case
                )
        best = max(ranks.values(), default=None)
        return [name for name, rank in ranks.items() if rank == best]

    def one(self, cell: str, folder: str, split: SplitName | None, row: str) -> str:
        """The image that the cell of a row means, or a ValueError where there is none, or more than one."""
        images = self.of(cell, folder, split)
        if len(images) == 1:
            return images[0]
        if images:
            raise ValueError(f"{row}: {cell} may be {images[0]} or {images[1]}: give the path, or one --data.table")
        if PureWindowsPath(cell).anchor or _path(cell, folder).startswith("../"):
            raise ValueError(f"{row}: {cell} leaves the folder: give paths inside it")
        near = self.called.get(_stem(folded(PureWindowsPath(cell).name)))
        there = f" (there is {near[0]})" if near else ""
        raise ValueError(f"{row} names {cell or 'no image'}, which is not there{there}: add it, or remove the row")


def _path(cell: str, folder: str) -> str:
    """The path that a cell holds; one that climbs out of the table's folder as a path from the root."""
    path = cell.replace("\\", "/").removeprefix("./")
    return posixpath.normpath(posixpath.join(folder, path)) if ".." in path.split("/") else path


def _class_folder(name: str) -> str:
    """The folders of an image but those that name splits."""
    return "/".join(part for part in name.split("/")[:-1] if not split_named(part))


def _stem(file: str) -> str:
    return file.rpartition(".")[0] if file.endswith(SUFFIXES) else file


def _plain(column: str) -> str:
    """A column's name without case, blanks and separators."""
    return re.sub(r"[\W_]", "", column).casefold()


def _delimiter(lines: list[str]) -> str:
    """The delimiter by which all rows have as many cells as the first, of several that by which they have most."""

    def merit(delimiter: str) -> tuple[bool, int]:
        try:
            counts = [len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if row]
        except csv.Error:  # said when the rows are read
            counts = []
        return len(set(counts)) == 1 and counts[0] > 1, counts[0] if counts else 0

    return max(_DELIMITERS, key=merit)
