"""Finds images, labels and splits in a folder or zip file, by the layouts in which data sets are passed around."""

import csv
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Literal

Layout = Literal["auto", "folders", "splits", "csv"]

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".gif", ".webp", ".avif", ".tif", ".tiff"),
    *(".bmp", ".dib", ".tga", ".pbm", ".pgm", ".ppm"),
)
LARGEST = 2**28  # bytes of a member of a zip file; a larger one is no image
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= {"val": "val", "valid": "val", "validation": "val"}
EXPECTED = (
    "class folders (CLASS/*.jpg), split folders (train|val|test/CLASS/*.jpg), or a CSV filename,label beside train/"
)


class Source:
    """The files of a folder or of a zip file, by their path in it; nothing is ever unpacked to disk."""

    def __init__(self, root: Path, expected: str = EXPECTED) -> None:
        """Lists the files.

        Args:
            root: A folder or a `.zip` file.
            expected: How the files should be laid out, for the error where there are none.

        Raises:
            FileNotFoundError: There is neither.
            ValueError: The zip file is damaged, or a member leaves it, is a link or a decompression bomb.
        """
        self.root = root
        #: When each file of a folder was last changed, in nanoseconds; for a zip file its own time will do.
        self.changed: dict[str, int] = {}
        self._open: tuple[int, zipfile.ZipFile] | None = None
        if root.is_dir():
            files = {
                path.relative_to(root).as_posix(): path.stat() for path in sorted(root.rglob("*")) if path.is_file()
            }
            self.sizes = {name: info.st_size for name, info in files.items()}
            self.changed = {name: info.st_mtime_ns for name, info in files.items()}
        elif root.is_file():
            try:
                members = self._zip().infolist()
            except zipfile.BadZipFile as error:
                raise ValueError(f"{root} is no folder and no whole zip file ({error})") from error
            for member in members:
                if reason := _refusal(member):
                    raise ValueError(f"{root} is refused: its member {member.filename} {reason}")
            self.sizes = dict(sorted((member.filename, member.file_size) for member in members if not member.is_dir()))
        else:
            raise FileNotFoundError(f"no images at {root}: expected a folder or zip file with {expected}")

    def read(self, name: str) -> bytes:
        """Reads a file.

        Raises:
            ValueError: The member of a zip file is damaged or encrypted.
        """
        if self.root.is_dir():
            return (self.root / name).read_bytes()
        try:
            return self._zip().read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(f"{self.root}: its member {name} cannot be read ({error}): fetch it again") from error

    def _zip(self) -> zipfile.ZipFile:
        if self._open is None or self._open[0] != os.getpid():  # forked processes would share one file position
            self._open = os.getpid(), zipfile.ZipFile(self.root)
        return self._open[1]


def _refusal(member: zipfile.ZipInfo) -> str | None:
    """What is wrong with a member of a zip file that nobody vouches for."""
    path = PureWindowsPath(member.filename)  # which takes both kinds of slashes for separators
    if path.anchor or ".." in path.parts:
        return "leaves the archive"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a link"
    if member.file_size > LARGEST:
        return f"is of {member.file_size} bytes, more than the limit of {LARGEST}"
    return None


@dataclass(frozen=True)
class ImageTree:
    """Images of a source with their labels, in the order of their paths.

    Attributes:
        names: Paths in the source.
        labels: Class indices, one per image.
        splits: `train`, `val` or `test` where the tree says so, else None; one per image.
        class_names: Names of the classes, by label.
    """

    names: list[str]
    labels: list[int]
    splits: list[str | None]
    class_names: list[str]


def find_images(source: Source, layout: Layout = "auto") -> ImageTree:
    """Looks through a source for labelled images.

    Args:
        source: The files.
        layout: How they are laid out; `auto` looks.

    Returns:
        The images.

    Raises:
        ValueError: There are no images in that layout, or not at least two classes.
    """
    names = [name for name in source.sizes if is_image(name)]
    tables = [name for name in source.sizes if name.lower().endswith(".csv")] if layout in ("auto", "csv") else []
    for table in sorted(tables, key=lambda name: name.count("/")):
        found = _from_table(source, table)
        if found:
            return _tree(source, found)
    inner = _strip_common_folders(names)
    if layout in ("auto", "splits") and names and all(path[0].lower() in SPLITS and len(path) > 2 for path in inner):
        pairs = zip(names, inner, strict=True)
        return _tree(source, ((name, path[1], SPLITS[path[0].lower()]) for name, path in pairs))
    if layout in ("auto", "folders") and names and all(len(path) > 1 for path in inner):
        return _tree(source, ((name, path[0], None) for name, path in zip(names, inner, strict=True)))
    raise ValueError(f"{source.root} holds {len(names)} images, but not as {EXPECTED}")


def is_image(name: str) -> bool:
    """Whether a path is that of an image, and not of a hidden file."""
    # Strings and not paths here and below: a set has a hundred thousand names, and each start goes through them.
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return name.lower().endswith(SUFFIXES) and not hidden


def _strip_common_folders(names: list[str]) -> list[list[str]]:
    paths = [name.split("/") for name in names]
    while paths and all(len(path) > 2 and path[0] == paths[0][0] for path in paths):
        paths = [path[1:] for path in paths]
    return paths


def _from_table(source: Source, table: str) -> list[tuple[str, str, str | None]]:
    rows = csv.DictReader(io.StringIO(source.read(table).decode("utf-8-sig", errors="replace"), newline=""))
    if not {"filename", "label"} <= set(rows.fieldnames or []):
        return []
    folder = table.rpartition("/")[0]
    found: dict[str, str] = {}
    for row in rows:
        places = ("/".join(filter(None, (folder, place, row["filename"]))) for place in ("train", "images", ""))
        name = next((place for place in places if place in source.sizes), None)
        if name is None:
            raise ValueError(f"{source.root}: {table} names {row['filename']}, which is not in {folder}/train")
        if not row["label"]:
            raise ValueError(f"{source.root}: {table} gives no label to {row['filename']}: add it, or remove the row")
        if found.setdefault(name, row["label"]) != row["label"]:
            labels = f"both {found[name]} and {row['label']}"
            raise ValueError(f"{source.root}: {table} labels {row['filename']} {labels}: keep one of the rows")
    return [(name, label, None) for name, label in found.items()]


def _tree(source: Source, images: Iterable[tuple[str, str, str | None]]) -> ImageTree:
    ordered = list(images)
    class_names = sorted({label for _, label, _ in ordered})
    if len(class_names) < 2:
        raise ValueError(f"{source.root} holds images of {len(class_names)} class {class_names}, expected two or more")
    index = {name: number for number, name in enumerate(class_names)}
    names, labels, splits = zip(*ordered, strict=True)
    return ImageTree(list(names), [index[label] for label in labels], list(splits), class_names)
