"""Decoding of image files into one uint8 array on disk, which later starts map into memory."""

import hashlib
import io
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from preimage.files import reserve, whole_folder
from preimage.progress import Progress

from .source import Source

VERSION = 2  # of the decoding: another number makes every cache anew
CHUNK = 64
#: What is opened, whatever a file is called: PIL also knows formats that start other programs, as EPS does Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "JPEG2000", "PPM", "TGA")

OnBadImage = Literal["error", "skip"]


def decode(data: bytes, size: int) -> NDArray[np.uint8]:
    """Decodes an image file to a square RGB image, see `opened` and `square`.

    Args:
        data: The file's bytes.
        size: Height and width of the result, in pixels.

    Returns:
        The image `(3, size, size)`.

    Raises:
        ValueError: The file cannot be read.
    """
    with opened(data) as file:
        return square(file, size)


def square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Turns a picture as its EXIF data says, makes transparent parts white, and crops and resizes its middle square.

    Args:
        image: The picture.
        size: Height and width of the result, in pixels.

    Returns:
        The image `(3, size, size)`.
    """
    turned = ImageOps.exif_transpose(image)
    fitted = ImageOps.fit(_to_rgb(turned), (size, size), Image.Resampling.BICUBIC)
    return np.asarray(fitted).transpose(2, 0, 1)


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """Opens an image file; what goes wrong while its picture is looked at is put down to the file.

    Args:
        data: The file's bytes, of one of the raster `FORMATS`, told by its content.

    Raises:
        ValueError: The file is damaged, truncated, of no such format, or of more pixels than PIL's limit (a
            decompression bomb).
    """
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as file:
            pixels, limit = file.size[0] * file.size[1], Image.MAX_IMAGE_PIXELS
            if limit is not None and pixels > limit:
                raise ValueError(f"{pixels} pixels are more than the limit of {limit}")
            yield file
    except UnidentifiedImageError as error:
        raise ValueError("its content is no image" if data else "the file is empty") from error
    except Exception as error:  # a decoder may raise anything on a damaged file
        raise ValueError(str(error) or type(error).__name__) from error


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # a build of PIL may lack one


def in_8_bits(image: Image.Image) -> Image.Image:
    """Scales a picture of 16 bits per pixel, which PIL's `convert` would clip; any other stays as it is."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image, dtype=np.float64) / 257).clip(0, 255).round().astype(np.uint8))


def _to_rgb(image: Image.Image) -> Image.Image:
    image = in_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


class ImageCache:
    """The decoded images of a source: a memory-mapped array `(N, 3, size, size)` and the files that could not be read.

    Attributes:
        images: uint8 images, one for each name, zeros for a bad one.
        bad: Reason by name, for the files that could not be read.
    """

    def __init__(self, folder: Path, count: int, size: int) -> None:
        """Opens a finished cache.

        Args:
            folder: The cache's folder.
            count: Number of images.
            size: Height and width, in pixels.
        """
        self.images = np.memmap(folder / "images.u8", dtype=np.uint8, mode="r", shape=(count, 3, size, size))
        self.bad: dict[str, str] = json.loads((folder / "done.json").read_text())["bad"]


def cache_images(
    source: Source,
    names: list[str],
    size: int,
    cache_dir: Path,
    on_bad_image: OnBadImage = "error",
    processes: int | None = None,
) -> ImageCache:
    """Decodes images once; a second call with the same files and size only opens what the first one wrote.

    It is built in a folder of its own, which is renamed when it is whole, so that a killed build is never believed.

    Args:
        source: Where the files are.
        names: Files to decode, in the order of the result.
        size: Height and width of the result, in pixels.
        cache_dir: Folder of all caches.
        on_bad_image: Stop at a file that cannot be read, or leave it out.
        processes: Processes that decode, by default one per core.

    Returns:
        The decoded images.

    Raises:
        ValueError: A file cannot be read, and `on_bad_image` is `error`.
        OSError: The disk has no room for the images.
        ChildProcessError: A process that decodes was killed.
    """
    folder = cache_dir / _key(source, names, size)
    if not _is_whole(folder, len(names), size):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # of several processes, also of other runs and nodes, one decodes
            if not _is_whole(folder, len(names), size):
                _build(folder, source, names, size, on_bad_image, processes or os.cpu_count() or 1)
    cache = ImageCache(folder, len(names), size)
    if cache.bad and on_bad_image == "error":
        raise ValueError(_bad_image(source, *next(iter(cache.bad.items()))))
    return cache


def _key(source: Source, names: list[str], size: int) -> str:
    """Hash of all that the pixels depend on: where the files are, their listing, and the way of decoding."""
    stat = source.root.stat()
    origin = [str(source.root.absolute()), *((stat.st_size, stat.st_mtime_ns) if source.root.is_file() else ())]
    listing = [[name, source.sizes[name], source.changed.get(name)] for name in names]
    return hashlib.sha256(json.dumps([VERSION, size, origin, listing]).encode()).hexdigest()[:32]


def _is_whole(folder: Path, count: int, size: int) -> bool:
    images = folder / "images.u8"
    return (folder / "done.json").is_file() and images.is_file() and images.stat().st_size == count * 3 * size * size


def _build(folder: Path, source: Source, names: list[str], size: int, on_bad_image: OnBadImage, processes: int) -> None:
    with whole_folder(folder) as building:
        work = Work(building / "images.u8", source, names, size)
        reserve(work.path, len(names) * 3 * size * size, "make room, or set data.cache_dir to a folder on another disk")
        bad: dict[str, str] = {}
        with Progress(total=len(names), desc=f"decoding {source.root.name}", unit="images") as bar:
            for found in _decode_all(work, processes):
                if found and on_bad_image == "error":
                    raise ValueError(_bad_image(source, *next(iter(found.items()))))
                bad |= found
                bar.update(min(CHUNK, len(names) - bar.n))
        (building / "done.json").write_text(json.dumps({"bad": bad}))


class Work(NamedTuple):
    """What a decoding process needs to know."""

    path: Path
    source: Source
    names: list[str]
    size: int

    def open(self) -> NDArray[np.uint8]:
        """Maps the array to be filled."""
        return np.memmap(self.path, dtype=np.uint8, mode="r+", shape=(len(self.names), 3, self.size, self.size))


def _decode_all(work: Work, processes: int) -> Iterator[dict[str, str]]:
    starts = range(0, len(work.names), CHUNK)
    if processes == 1 or len(starts) == 1:
        yield from (_decode_chunk(work, start) for start in starts)
        return
    # Forked where that is possible: a worker needs no more than PIL, and a fresh process would import torch first.
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None)
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(min(processes, len(starts)), context, _start_worker, (work,)) as pool:
        try:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until each process ignores it
            try:
                chunks = pool.map(_decode_chunk_of_worker, starts)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield from chunks
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"a process that decodes the images of {work.source.root} was killed, perhaps for want of memory: free"
                " some and start again"
            ) from error
        except BaseException:  # Ctrl-C does not wait for what is begun
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            raise


_work: ContextVar[Work] = ContextVar("work")  # of a worker process, handed over once and not with every chunk


def _start_worker(work: Work) -> None:
    _work.set(work)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when the other is no more, also where that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _decode_chunk_of_worker(start: int) -> dict[str, str]:
    return _decode_chunk(_work.get(), start)


def _decode_chunk(work: Work, start: int) -> dict[str, str]:
    """Decodes some files into the array, and returns the reason by name for those that could not be read."""
    images, bad = work.open(), {}
    for index, name in enumerate(work.names[start : start + CHUNK], start):
        try:
            images[index] = decode(work.source.read(name), work.size)
        except (ValueError, OSError) as error:
            bad[name] = str(error)
    return bad


def _bad_image(source: Source, name: str, reason: str) -> str:
    mend = "mend or remove it, or set --data.on_bad_image skip"
    return f"{source.root}: the image {name} cannot be read ({reason}); {mend}"
