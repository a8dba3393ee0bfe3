"""The files of a folder or zip file, and which of them are images."""

import hashlib
import json
import os
import re
import stat
import unicodedata
import zipfile
import zlib
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from preimage.files import write_text

from .splits import SplitName

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".gif", ".webp", ".avif", ".tif", ".tiff"),
    *(".bmp", ".dib", ".tga", ".pbm", ".pgm", ".ppm"),
)
LARGEST = 2**28  # bytes of a member of a zip file; a larger one is no image
KEPT = 20_000  # files of a folder, from which on its listing is kept
_SAMPLE = 1000  # files that are looked at before a kept listing is believed
EXPECTED = (
    "class folders (CLASS/*.jpg), split folders (train|val|test/CLASS/*.jpg), a CSV of file names and labels beside"
    " them, or images alone"
)


#: Size and time of the last change, in nanoseconds, of files by their names.
_Files = dict[str, tuple[int, int]]
_HIDDEN = re.compile(r"(^|/)(\.|__MACOSX)")


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
        kept_in: Folder in which the listing of a large folder is kept. A later start takes it as long as no folder and
            no file of a sample has changed, so that a single file written over in place is not noticed there.

    Raises:
        FileNotFoundError: There is neither.
        ValueError: The zip file is damaged, or a member leaves it, is a link or a decompression bomb.
    """

    def __init__(self, root: Path, expected: str = EXPECTED, kept_in: Path | None = None) -> None:
        self.root = root
        self.sizes: dict[str, int] = {}
        #: When each file of a folder was last changed, in nanoseconds; for a zip file its own time will do.
        self.changed: dict[str, int] = {}
        #: Paths of folders, of a zip file those that it lists.
        self.folders: set[str] = set()
        #: What was left out while listing, for the user to know.
        self.notes: list[str] = []
        self._read: dict[str, int] = {}  # when each folder that was read was last changed
        self._open: tuple[int, zipfile.ZipFile] | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        if root.is_dir():
            self._list(kept_in)
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

    def origin(self) -> list[Any]:
        """Where the files are, and what tells of a change that their sizes and times do not."""
        stat = self.root.stat()
        return [str(self.root.absolute()), *((stat.st_size, stat.st_mtime_ns) if self.root.is_file() else ())]

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

    def _walk(self) -> _Files:
        """The files of a folder by their paths, and where links lead to their folder too, by those of the links."""
        # By their real paths: where each folder was read, above the root nowhere, and the files in it.
        places: dict[str, str | None] = dict.fromkeys(map(str, self.root.resolve().parents))
        files: dict[str, _Files] = {}
        broken, renamed = list[str](), list[str]()
        links = [(str(self.root), "")]
        while links:
            waiting = [(folder, os.path.realpath(folder), prefix) for folder, prefix in sorted(links, reverse=True)]
            links = []
            while waiting:
                folder, real, prefix = waiting.pop()
                try:
                    changed = os.stat(folder).st_mtime_ns  # before it is read, so that no later change is missed
                    with os.scandir(folder) as entries:
                        inside = list(entries)
                except OSError as error:
                    self.notes.append(f"{folder} cannot be read and is left out ({error.strerror})")
                    continue
                if real in places:
                    if (before := places[real]) is None or prefix.startswith(before):
                        self.notes.append(f"{prefix} is left out: it links to a folder above it")
                    else:
                        renamed.append(f"{before} as {prefix}")
                        below = {other: place for other, place in places.items() if (place or "").startswith(before)}
                        places |= {other: f"{prefix}{str(place)[len(before) :]}" for other, place in below.items()}
                    continue
                places[real], files[real], self._read[folder] = prefix, {}, changed
                for entry in inside:
                    if _is_folder(entry):
                        if entry.is_symlink():
                            links.append((entry.path, f"{prefix}{entry.name}/"))
                        else:
                            waiting.append((entry.path, f"{real}/{entry.name}", f"{prefix}{entry.name}/"))
                        continue
                    try:
                        info = entry.stat()
                    except OSError:
                        broken.append(f"{prefix}{entry.name}")
                    else:
                        if stat.S_ISREG(info.st_mode):
                            files[real][entry.name] = info.st_size, info.st_mtime_ns
        self.folders = {place.rstrip("/") for place in places.values() if place}
        if renamed:
            self.notes.append(f"{len(renamed)} folders are read by the links to them, {renamed[0]}")
        if broken:
            self.notes.append(f"{len(broken)} links lead nowhere and are left out, as {broken[0]}")
        return {f"{places[real]}{name}": info for real, own in files.items() for name, info in own.items()}

    def _listed(self, path: Path) -> bool:
        """Takes the listing that is kept in a file, where no folder and none of a sample of files has changed."""
        try:
            kept = json.loads(path.read_text())
            names, sizes, changed = kept["names"], kept["sizes"], kept["changed"]
            right = all(os.stat(folder).st_mtime_ns == time for folder, time in kept["read"].items())
            for index in range(0, len(names), max(1, len(names) // _SAMPLE)) if right else ():
                info = os.stat(self.root / names[index])
                right &= (info.st_size, info.st_mtime_ns) == (sizes[index], changed[index])
        except (OSError, ValueError, KeyError, TypeError):  # there is none, it is damaged, or a folder is gone
            return False
        if right:
            self.sizes, self.changed = dict(zip(names, sizes, strict=True)), dict(zip(names, changed, strict=True))
            self.folders = set(kept["folders"])
        return right

    def _list(self, kept_in: Path | None) -> None:
        """Lists a folder, or takes the listing that an earlier start kept."""
        key = hashlib.sha256(str(self.root.absolute()).encode()).hexdigest()[:32]
        path = kept_in / f"{key}.listing.json" if kept_in else None
        if path and self._listed(path):
            return
        files = dict(sorted(self._walk().items(), key=lambda item: item[0].split("/")))
        self.sizes = {name: size for name, (size, _) in files.items()}
        self.changed = {name: changed for name, (_, changed) in files.items()}
        if path and len(files) >= KEPT and not self.notes:  # what is amiss may be mended, and no time tell of it
            columns = {"names": list(files), "sizes": list(self.sizes.values()), "changed": list(self.changed.values())}
            beside = {"read": self._read, "folders": sorted(self.folders)}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(columns | beside))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def folded(text: str) -> str:
    """What is the same for names that people take for the same: of any case, with blanks, composed or decomposed."""
    return unicodedata.normalize("NFC", text).strip().casefold()


def is_image(name: str) -> bool:
    """Whether a path is that of an image, and not of a hidden file."""
    # Strings and not paths here: a set has a hundred thousand names, and each start goes through them.
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether a path is that of a hidden file, or of what macOS adds to archives."""
    return _HIDDEN.search(name) is not None


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
