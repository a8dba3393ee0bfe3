"""Images per second of one core, from the bytes of JPEGs into a cache, and how far the pixels are from exact ones.

Run as `python benchmarks/decoding.py [FOLDER_OR_ZIP]`, by default on a photograph that comes with scikit-image.
"""

import io
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from skimage.data import astronaut

from datamodules.image_cache import decode, to_rgb
from datamodules.source import Source


def exact(data: bytes, size: int) -> NDArray[np.uint8]:
    """An image `(3, size, size)` from all pixels of a file, by PIL alone."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        fitted = ImageOps.fit(to_rgb(image), (size, size), Image.Resampling.BICUBIC)
    return np.asarray(fitted).transpose(2, 0, 1)


def jpeg(height: int, width: int) -> bytes:
    """A JPEG with photographs of 512 pixels side by side, or one made smaller."""
    photo = Image.fromarray(astronaut())
    if height < 512:
        photo = photo.resize((width, height), Image.Resampling.BICUBIC)
    image = Image.new("RGB", (width, height))
    for top in range(0, height, photo.height):
        for left in range(0, width, photo.width):
            image.paste(photo, (left, top))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def row(name: str, files: list[bytes], size: int) -> None:
    """Prints the figures of some files at one size."""
    images = np.zeros((len(files), 3, size, size), np.uint8)
    rates = []
    for way in (exact, decode):
        spent = []
        for _ in range(3):
            start = time.process_time()
            for index, data in enumerate(files):
                images[index] = way(data, size)
            spent.append(time.process_time() - start)
        rates.append(len(files) / min(spent))
    apart = np.stack([np.abs(decode(data, size).astype(int) - exact(data, size)) for data in files])
    print(
        f"{name:24} to {size:3} px: exact {rates[0]:8,.1f}/s, ours {rates[1]:8,.1f}/s ({rates[1] / rates[0]:.2f} x),"
        f" apart {apart.mean():.3f} levels on the mean, {apart.max()} at most",
        flush=True,
    )


def main() -> None:
    """Prints a table."""
    if sys.argv[1:]:
        source = Source(Path(sys.argv[1]))
        names = [name for name in source.images() if name.lower().endswith((".jpg", ".jpeg"))]
        files = [source.read(name) for name in names[:: max(1, len(names) // 300)]]
        for size in (32, 64, 128):
            row(source.root.name, files, size)
        return
    for side, count in ((128, 200), (224, 100)):
        row(f"{side} px", [jpeg(side, side)] * count, 128)
    for size in (128, 256):
        row("12 megapixels", [jpeg(3072, 4096)] * 2, size)


if __name__ == "__main__":
    main()
