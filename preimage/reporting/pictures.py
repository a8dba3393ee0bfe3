"""Pictures of runs: small enough for a page, and reconstructions of the same images side by side."""

import base64
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from preimage.fonts import drawable, font_for
from preimage.runs import Run

from .runs import Group

_TILE = 72  # pixels of an image in a comparison, at most
_TILES = 10
_GAP = 2

_Pairs = dict[bytes, tuple[Image.Image, Image.Image]]  # images and their reconstructions, by the pixels of the image


class Comparison(NamedTuple):
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


def load(path: Path) -> Image.Image | None:
    """Reads a picture; None where there is none or it is damaged."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None


def kinds_of(groups: Sequence[Group]) -> list[str]:
    """The folders below `images/` that hold pictures, but for those that are shown side by side."""
    paths = (path for group in groups for run in group.runs for path in run.folder.glob("images/*/*.png"))
    return sorted({path.parent.name for path in paths} - {"reconstructions"})


def newest(group: Group, kind: str) -> Image.Image | None:
    """The picture of the first run that has one: that of the test, else of the last epoch."""
    for run in group.runs:
        folder = run.folder / "images" / kind
        paths = [path for path in (folder / "test.png", *sorted(folder.glob("*.png"), reverse=True)) if path.is_file()]
        if paths:
            return load(paths[0])
    return None


def compare(groups: Sequence[Group]) -> list[Comparison]:
    """Puts reconstructions of the same images side by side, wherever two models show at least four in common.

    The images are told by their pixels, so it does not matter which data module, batch size or grid drew them.
    """
    clusters: list[list[tuple[Group, _Pairs]]] = []
    for group in groups:
        if pairs := next(filter(None, map(_pairs, group.runs)), None):
            alike = (members for members in clusters if len(_common([*members, (group, pairs)])) >= 4)
            if members := next(alike, None):
                members.append((group, pairs))
            else:
                clusters.append([(group, pairs)])
    comparisons = []
    for members in clusters:
        common = _common(members)
        count = min(_TILES, len(common))
        chosen = [common[i * len(common) // count] for i in range(count)]
        first, pairs = members[0]
        rows = [(group, _strip([pairs[key][1] for key in chosen])) for group, pairs in members]
        comparisons.append(Comparison(first.data, _strip([pairs[key][0] for key in chosen]), rows))
    return comparisons


def drawn(comparison: Comparison) -> Image.Image:
    """Draws a comparison as one picture with the models' names at the left, for where there is no page around it."""
    names = drawable(["test image", *(group.short_label for group, _ in comparison.rows)], "model")
    font = font_for("".join(names), 16)
    strips = [comparison.originals, *(strip for _, strip in comparison.rows)]
    left = 20 + int(max(font.getlength(name) for name in names))
    height = comparison.originals.height + 4
    image = Image.new("RGB", (left + comparison.originals.width, height * len(strips)), "white")
    for i, (name, strip) in enumerate(zip(names, strips, strict=True)):
        ImageDraw.Draw(image).text((8, i * height + height // 2), name, fill="black", font=font, anchor="lm")
        image.paste(strip, (left, i * height))
    return image


def _strip(tiles: Sequence[Image.Image]) -> Image.Image:
    width, height = tiles[0].size
    strip = Image.new("RGB", (len(tiles) * (width + _GAP) - _GAP, height), "white")
    for i, tile in enumerate(tiles):
        strip.paste(tile, (i * (width + _GAP), 0))
    return strip


def _common(members: Sequence[tuple[Group, _Pairs]]) -> list[bytes]:
    (_, first), *others = members
    return [key for key in first if all(key in pairs for _, pairs in others)]


def _pairs(run: Run) -> _Pairs:
    """What a run's `ReconstructionGrid` has written; nothing where it has none, or a damaged one."""
    try:
        with np.load(run.folder / "images/reconstructions/pairs.npz") as arrays:
            pairs = zip(arrays["target"], arrays["reconstruction"], strict=True)
            return {target.tobytes(): (_tile(target), _tile(rebuilt)) for target, rebuilt in pairs}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return {}


def _tile(pixels: NDArray[np.uint8]) -> Image.Image:
    """An image `(C, H, W)` with one or three channels as a square tile, a small one enlarged by a whole factor."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).convert("RGB")
    if image.width > _TILE:
        return image.resize((_TILE, _TILE), Image.Resampling.LANCZOS)
    size = _TILE // image.width * image.width
    return image.resize((size, size), Image.Resampling.NEAREST)
