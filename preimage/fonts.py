"""Fonts for names in any script: installed ones, for the characters that those of our libraries lack."""

import unicodedata
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from PIL import ImageFont

_OWN = "DejaVu Sans"  # which matplotlib brings along


def drawable(names: Sequence[str], what: str = "class") -> list[str]:
    """Names that can be drawn: one with characters that no font has becomes its number, as `class 3`, with a warning.

    Args:
        names: The names.
        what: What they are names of.
    """
    lacking = _lacking("".join(names))
    undrawn = lacking.difference(*_others(lacking).values())
    shown = [f"{what} {index}" if undrawn & set(name) else name for index, name in enumerate(names)]
    if undrawn:
        name, number = next((name, number) for name, number in zip(names, shown, strict=True) if name != number)
        _warn(f"no font here has {''.join(sorted(undrawn)[:20])}: pictures have {number} for {name}, and so on")
    return shown


def choose_fonts(figure: Figure) -> None:
    """Adds to the fonts of a figure's texts those for characters that they lack."""
    texts: Any = figure.findobj(Text)
    if families := _others(_lacking("".join(text.get_text() for text in texts))):
        for text in texts:
            text.set_fontfamily([*text.get_fontfamily(), *families])


def font_for(text: str, size: float) -> Any:
    """The font of PIL for a text: its own for ASCII, else the one that has the most of it.

    Args:
        text: The text.
        size: Size in pixels.
    """
    if text.isascii():
        return ImageFont.load_default(size)
    families = [_OWN, *_others(_lacking(text))]
    best = max(families, key=lambda family: len(_characters(family).intersection(text)))
    return ImageFont.truetype(_files()[best], size)


def _lacking(text: str) -> frozenset[str]:
    """Letters, digits and signs that our own font lacks."""
    if text.isascii():
        return frozenset()
    return frozenset(sign for sign in text if unicodedata.category(sign)[0] in "LNPS") - _characters(_OWN)


@cache
def _others(lacking: frozenset[str]) -> dict[str, frozenset[str]]:
    """Families that have of these characters what those before them have not; the first has the most."""
    families, left = {}, lacking
    known = {family: lacking & _characters(family) for family in _files()} if lacking else {}
    for family in sorted(known, key=lambda family: (-len(known[family]), family)):
        if known[family] & left:
            families[family] = known[family] & left
            left -= known[family]
    return families


@cache
def _files() -> dict[str, str]:
    """The file of each installed family, upright and of the usual weight where there is one."""
    usual = sorted(fontManager.ttflist, key=lambda font: (font.style == "normal", font.weight in (400, "normal")))
    return {font.name: font.fname for font in usual if not font.name.startswith((".", "Last Resort"))}


def _characters(family: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, FT2Font(_files()[family]).get_charmap()))
    except (OSError, RuntimeError):  # coloured signs, whose font matplotlib cannot read
        return frozenset()


@cache
def _warn(text: str) -> None:
    warnings.warn(f"{text}; install a font that has them, such as Noto Sans CJK", stacklevel=3)
