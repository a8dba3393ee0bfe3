"""The files of a folder or zip file, and which of them are images."""

import os
import stat
import unicodedata
import zipfile
import zlib
from itertools import chain
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from .splits import SplitName

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".gif", ".webp", ".avif", ".tif", ".tiff"),
    *(".bmp", ".dib", ".tga", ".pbm", ".pgm", ".ppm"),
)
LARGEST = 2**28  # bytes of a member of a zip file; a larger one is no image
EXPECTED = (
    "class folders (CLASS/*.jpg), split folders (train|val|test/CLASS/*.jpg), a CSV of file names and labels beside"
    " them, or images alone"
)


class Entry(NamedTuple):
    """An image of a source, and what its surroundings say of it."""

    name: str
    label: str | None
    split: SplitName | None


class Source:
    """The files of a folder or of a zip file, by their path in it; nothing is ever unpacked to disk.

    Args:
        root: A folder or a `.zip` file.
        expected: How the files should be laid out, for the error where there are none.

    Raises:
        FileNotFoundError: There is neither.
        ValueError: The zip file is damaged, or a member leaves it, is a link or a decompression bomb.
    """

    def __init__(self, root: Path, expected: str = EXPECTED) -> None:
        self.root = root
        #: When each file of a folder was last changed, in nanoseconds; for a zip file its own time will do.
        self.changed: dict[str, int] = {}
        #: Paths of folders, of a zip file those that it lists.
        self.folders: set[str] = set()
        #: What was left out while listing, for the user to know.
        self.notes: list[str] = []
        self._open: tuple[int, zipfile.ZipFile] | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        if root.is_dir():
            files = dict(sorted(self._walk().items(), key=lambda item: item[0].split("/")))
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
                path = member.filename.replace("\\", "/")  # some programs for Windows write its own slashes
                if path.endswith("/"):
                    self.folders.add(path.rstrip("/"))
                else:
                    self._members[path] = member
            self.sizes = {name: self._members[name].file_size for name in sorted(self._members)}
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
            return self._zip().read(self._members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"{self.root}: its member {name} cannot be read ({error}): fetch it again") from error

    def images(self) -> list[str]:
        """Paths of the images, in order."""
        return [name for name in self.sizes if is_image(name)]

    def without_images(self, names: list[str]) -> list[str]:
        """Outermost folders in which none of the named images lies at any depth, in order."""
        filled = {""}
        for folder in {name.rpartition("/")[0] for name in names}:
            while folder not in filled:
                filled.add(folder)
                folder = folder.rpartition("/")[0]
        empty = {folder for folder in self.folders - filled if not is_hidden(folder)}
        return sorted(folder for folder in empty if folder.rpartition("/")[0] in filled)

    def seen(self) -> str:
        """What lies at the top, for the error where that is not what was expected."""
        top = sorted({name.split("/")[0] + ("/" if "/" in name else "") for name in self.sizes})
        return "nothing" if not top else ", ".join(top[:5]) + (f" and {len(top) - 5} more" if len(top) > 5 else "")

    def _zip(self) -> zipfile.ZipFile:
        if self._open is None or self._open[0] != os.getpid():  # forked processes would share one file position
            self._open = os.getpid(), zipfile.ZipFile(self.root)
        return self._open[1]

    def _walk(self) -> dict[str, os.stat_result]:
        """The files of a folder by their paths, and where links lead to their folder too, by those of the links."""
        # By their real paths: where each folder was read, above the root nowhere, and the files in it.
        places: dict[str, str | None] = dict.fromkeys(map(str, self.root.resolve().parents))
        files: dict[str, dict[str, os.stat_result]] = {}
        broken, renamed = list[str](), list[str]()
        waiting = [str(self.root)]
        while waiting:
            steps = [os.walk(top, onerror=self._unreadable) for top in sorted(waiting)]
            waiting = []
            for folder, folders, names in chain.from_iterable(steps):
                prefix = f"{os.path.relpath(folder, self.root)}/".removeprefix("./")
                if (real := os.path.realpath(folder)) in places:
                    folders.clear()
                    before = places[real]
                    if before is None or prefix.startswith(before):
                        self.notes.append(f"{prefix} is left out: it links to a folder above it")
                    else:
                        renamed.append(f"{before} as {prefix}")
                        inside = {other: place for other, place in places.items() if (place or "").startswith(before)}
                        places |= {other: f"{prefix}{str(place)[len(before) :]}" for other, place in inside.items()}
                    continue
                places[real], files[real] = prefix, {}
                waiting += [path for name in folders if os.path.islink(path := f"{folder}/{name}")]
                for name in names:
                    try:
                        info = os.stat(f"{folder}/{name}")
                    except OSError:
                        broken.append(f"{prefix}{name}")
                    else:
                        if stat.S_ISREG(info.st_mode):
                            files[real][name] = info
        self.folders = {place.rstrip("/") for place in places.values() if place}
        if renamed:
            self.notes.append(f"{len(renamed)} folders are read by the links to them, {renamed[0]}")
        if broken:
            self.notes.append(f"{len(broken)} links lead nowhere and are left out, as {broken[0]}")
        return {f"{places[real]}{name}": info for real, own in files.items() for name, info in own.items()}

    def _unreadable(self, error: OSError) -> None:
        self.notes.append(f"{error.filename} cannot be read and is left out ({error.strerror})")


def folded(text: str) -> str:
    """What is the same for names that people take for the same: of any case, with blanks, composed or decomposed."""
    return unicodedata.normalize("NFC", text).strip().casefold()


def is_image(name: str) -> bool:
    """Whether a path is that of an image, and not of a hidden file."""
    # Strings and not paths here: a set has a hundred thousand names, and each start goes through them.
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether a path is that of a hidden file, or of what macOS adds to archives."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


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
