"""Pictures of runs: small enough for a page, and reconstructions of the same images side by side."""

import base64
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .runs import Group, Run

TILE = 72  # pixels of an image in a comparison, at most
TILES = 10
GAP = 2


@dataclass
class Comparison:
    """The same images of a split, and what the models make of them."""

    data: str
    originals: Image.Image
    rows: list[tuple[Group, Image.Image]]


def data_uri(image: Image.Image, width: int) -> str:
    """Encodes a picture into a page, at most so many pixels wide."""
    image = image.convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "webp", quality=75)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def load(path: Path | None) -> Image.Image | None:
    """Reads a picture; None where there is none or it is damaged."""
    if path is None:
        return None
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None


def kinds_of(groups: Sequence[Group]) -> list[str]:
    """The folders below `images/` that hold pictures."""
    kinds = {path.parent.name for group in groups for run in group.runs for path in run.path.glob("images/*/*.png")}
    return sorted(kinds)


def compare(groups: Sequence[Group]) -> list[Comparison]:
    """Puts reconstructions of the same images side by side, wherever two models show at least four in common.

    The images are told by their pixels, so it does not matter which data module, batch size or grid drew them.
    """
    pairs = [(group, found) for group in groups if (found := _first_pairs(group))]
    clusters: list[tuple[list[bytes], list[tuple[Group, dict[bytes, tuple[Image.Image, Image.Image]]]]]] = []
    for group, found in pairs:
        for place, (common, members) in enumerate(clusters):
            shared = [key for key in common if key in found]
            if len(shared) >= 4:
                clusters[place] = (shared, [*members, (group, found)])
                break
        else:
            clusters.append((list(found), [(group, found)]))
    comparisons = []
    for common, members in clusters:
        chosen = [common[place * len(common) // min(TILES, len(common))] for place in range(min(TILES, len(common)))]
        rows = [(group, _strip([found[key][1] for key in chosen])) for group, found in members]
        first = members[0]
        comparisons.append(Comparison(first[0].data, _strip([first[1][key][0] for key in chosen]), rows))
    return comparisons


def drawn(comparison: Comparison) -> Image.Image:
    """Draws a comparison as one picture with the models' names at the left, for where there is no page around it."""
    font = ImageFont.load_default(size=16)
    names = ["test image", *(group.short_label for group, _ in comparison.rows)]
    strips = [comparison.originals, *(strip for _, strip in comparison.rows)]
    left = 20 + int(max(font.getlength(name) for name in names))
    height = comparison.originals.height + 4
    image = Image.new("RGB", (left + comparison.originals.width, height * len(strips)), "white")
    for place, (name, strip) in enumerate(zip(names, strips, strict=True)):
        ImageDraw.Draw(image).text((8, place * height + height // 2), name, fill="black", font=font, anchor="lm")
        image.paste(strip, (left, place * height))
    return image


def _strip(tiles: Sequence[Image.Image]) -> Image.Image:
    size = min(TILE, tiles[0].width)
    strip = Image.new("RGB", (len(tiles) * (size + GAP) - GAP, size), "white")
    for place, tile in enumerate(tiles):
        strip.paste(tile.resize((size, size), Image.Resampling.LANCZOS), (place * (size + GAP), 0))
    return strip


def _first_pairs(group: Group) -> dict[bytes, tuple[Image.Image, Image.Image]]:
    for run in group.runs:
        if pairs := _pairs(run):
            return pairs
    return {}


def _pairs(run: Run) -> dict[bytes, tuple[Image.Image, Image.Image]]:
    """The images of a run's reconstruction grid with their reconstructions, by the pixels of the image."""
    try:
        with np.load(run.path / "images/reconstructions/pairs.npz") as arrays:
            targets, reconstructions = (arrays[key] for key in ("target", "reconstruction"))
            pairs = zip(targets, reconstructions, strict=True)
            return {target.tobytes(): (_image(target), _image(rebuilt)) for target, rebuilt in pairs}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return {}  # of a run without a grid, or damaged


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    """An image `(C, H, W)` with one or three channels, a small one enlarged by a whole factor."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).convert("RGB")
    factor = max(1, TILE // image.width)
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)
