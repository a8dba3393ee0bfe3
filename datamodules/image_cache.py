"""Decoding of image files into one uint8 array on disk, which later starts map into memory."""

import hashlib
import io
import json
import math
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from preimage.progress import Progress

from .cache import cached_array, mapped
from .source import Source

try:
    import simplejpeg
except ModuleNotFoundError:
    simplejpeg = None  # the extra `jpeg`

_VERSION = 3  # of the decoding: another number makes every cache anew
CHUNK = 64
_DRAFT = 2  # times the wanted size, to which a larger JPEG is decoded
#: What is opened, whatever a file is called: PIL also knows formats that start other programs, as EPS does Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "JPEG2000", "PPM", "TGA")

OnBadImage = Literal["error", "skip"]


def decode(data: bytes, size: int) -> NDArray[np.uint8]:
    """Decodes the bytes of an image file to an image `(3, size, size)`, see `opened` and `square`."""
    pixels = _plain_jpeg(data, size)
    if pixels is None:
        with opened(data) as file:
            return square(file, size)
    return pixels.transpose(2, 0, 1) if pixels.shape[:2] == (size, size) else square(Image.fromarray(pixels), size)


def _plain_jpeg(data: bytes, size: int) -> NDArray[np.uint8] | None:
    """The pixels `(H, W, 3)` of a JPEG that is to be decoded whole and not turned: those of PIL, in half the time."""
    if simplejpeg is None or not data.startswith(b"\xff\xd8"):
        return None
    head = data[: data.find(b"\xff\xda")]
    if b"Exif" in head or b"tiff:Orientation" in head:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        small = min(height, width) < 2 * _DRAFT * size and height * width <= (Image.MAX_IMAGE_PIXELS or math.inf)
        return simplejpeg.decode_jpeg(data) if small and colours in ("YCbCr", "Gray") else None
    except ValueError:
        return None  # PIL may read it all the same, and else says what is wrong


def square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Turns a picture as its EXIF data says, makes transparent parts white, and crops and resizes its middle square.

    Args:
        image: The picture; a JPEG that was opened but not read is read at half, a fourth or an eighth of its size,
            where that is at least twice the result's.
        size: Height and width of the result, in pixels.

    Returns:
        The image `(3, size, size)`.
    """
    image.draft(None, (_DRAFT * size, _DRAFT * size))
    fitted = ImageOps.fit(to_rgb(image), (size, size), Image.Resampling.BICUBIC)
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


def to_rgb(image: Image.Image) -> Image.Image:
    """Turns a picture as its EXIF data says, to colours of 8 bits, with white for what is transparent."""
    image = in_8_bits(ImageOps.exif_transpose(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


class ImageCache(NamedTuple):
    """The decoded images of a source.

    Attributes:
        images: uint8 images `(N, 3, size, size)`, mapped into memory, zeros for one that could not be read.
        bad: Reason by name, for the files that could not be read.
        key: Hash of all that the pixels depend on.
    """

    images: Tensor
    bad: dict[str, str]
    key: str


def cache_images(
    source: Source,
    names: list[str],
    size: int,
    cache_dir: Path,
    on_bad_image: OnBadImage = "error",
    processes: int | None = None,
) -> ImageCache:
    """Decodes images once; a second call with the same files and size only opens what the first one wrote.

    Args:
        source: Where the files are.
        names: Files to decode, in the order of the result.
        size: Height and width of the result, in pixels.
        cache_dir: Folder of all caches.
        on_bad_image: Stop at a file that cannot be read, or leave it out.
        processes: Processes that decode, by default one per core.

    Raises:
        ValueError: A file cannot be read, and `on_bad_image` is `error`.
        OSError: The disk has no room for the images.
        ChildProcessError: A process that decodes was killed.
    """
    shape = (len(names), 3, size, size)

    def fill(path: Path) -> dict[str, Any]:
        chunks = _Chunks(source, names, size, mapped(path, shape, torch.uint8, shared=True).numpy())
        bad: dict[str, str] = {}
        with Progress(total=len(names), desc=f"decoding {source.root.name}", unit="images") as bar:
            for bad_of_chunk in _decoded(chunks, processes or cores()):
                refuse_bad(source.root, bad_of_chunk, on_bad_image)
                bad |= bad_of_chunk
                bar.update(min(CHUNK, len(names) - bar.n))
        return {"bad": bad}

    key = _key(source, names, size)
    path = cache_dir / key / "images.u8"
    mend = "make room, or set data.cache_dir to a folder on another disk"
    images, beside = cached_array(path, shape, torch.uint8, fill, mend)
    refuse_bad(source.root, beside["bad"], on_bad_image)
    return ImageCache(images, beside["bad"], key)


def _key(source: Source, names: list[str], size: int) -> str:
    """Hash of all that the pixels depend on: where the files are, their listing, and the way of decoding."""
    listing = [[name, source.sizes.get(name), source.changed.get(name)] for name in names]
    return hashlib.sha256(json.dumps([_VERSION, size, source.origin(), listing]).encode()).hexdigest()[:32]


class _Chunks(Dataset[dict[str, str]]):
    """Files to decode, some at a time, into a map of the cache that all processes share."""

    def __init__(self, source: Source, names: list[str], size: int, images: NDArray[np.uint8]) -> None:
        self.source, self.names, self.size, self.images = source, names, size, images

    def __len__(self) -> int:
        return math.ceil(len(self.names) / CHUNK)

    def __getitem__(self, chunk: int) -> dict[str, str]:
        """Decodes some files, and returns the reason by name for those that could not be read."""
        bad = {}
        for index in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(self.names))):
            try:
                self.images[index] = decode(self.source.read(self.names[index]), self.size)
            except (ValueError, OSError) as error:
                bad[self.names[index]] = str(error)
        return bad


def _decoded(chunks: _Chunks, processes: int) -> Iterator[dict[str, str]]:
    """Decodes all chunks, in order, in processes that end with this one."""
    workers = min(processes, len(chunks)) if processes > 1 and len(chunks) > 1 else 0
    loader = DataLoader(
        dataset=chunks,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # which share the map
        generator=torch.Generator(),  # seeds are not to be drawn from the global one
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # amid their start it would leave some hanging
    try:
        batches = iter(loader)  # whose processes never see it: Ctrl-C reaches this one too, which ends them
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield from batches
    except RuntimeError as error:  # what is wrong with a file is none
        raise ChildProcessError(
            f"a process that decodes the images of {chunks.source.root} was killed, perhaps for want of memory: free"
            " some and start again"
        ) from error


def refuse_bad(root: Path, bad: Mapping[str, str], on_bad_image: OnBadImage) -> None:
    """Raises a ValueError for the first of the images that could not be read, unless these are left out."""
    for name, reason in bad.items() if on_bad_image == "error" else ():
        mend = "mend or remove it, or set --data.on_bad_image skip"
        raise ValueError(f"{root}: the image {name} cannot be read ({reason}); {mend}")


def tell_left_out(root: Path, bad: Mapping[str, str], total: int) -> None:
    """Says how many images could not be read; a ValueError where that are all."""
    names = list(bad)
    if len(names) == total:
        raise ValueError(f"{root}: no image can be read, as {names[0]} ({bad[names[0]]})")
    if names:
        some = ", ".join(names) if len(names) < 4 else f"as {names[0]}"
        rank_zero_info(f"{len(names)} images cannot be read and are left out: {some}")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
