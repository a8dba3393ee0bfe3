"""Names in any script are drawn in a font that has them, or as numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from callbacks.pictures import _render
from callbacks.pictures.confusion_matrix import confusion_figure
from callbacks.pictures.grids import caption_row
from preimage import fonts
from preimage.fonts import drawable, font_for

NAMES = ["dress", "蝴蝶", "café"]


def fresh() -> None:
    for cached in (fonts._files, fonts._others, fonts._warn):
        cached.cache_clear()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The fonts of the machine: those that matplotlib brings along."""
    ours = [font for font in fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(fontManager, "ttflist", ours)
    fresh()
    yield ours
    fresh()


@pytest.fixture
def chinese(installed: list[Any], tmp_path: Path) -> str:
    """The name of a font with two signs, which are filled squares."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap(dict.fromkeys(map(ord, NAMES[1]), "square"))
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "squares.ttf")
    fontManager.addfont(tmp_path / "squares.ttf")
    return "Squares"


def test_what_no_font_has_becomes_a_number_and_that_is_said_once(
    installed: list[Any], recwarn: pytest.WarningsRecorder
) -> None:
    for _ in range(2):
        assert drawable(NAMES) == ["dress", "class 1", "café"]
    assert [str(warning.message) for warning in recwarn] == [
        "no font here has 蝴蝶: pictures have class 1 for 蝴蝶, and so on; install a font that has them, such as Noto"
        " Sans CJK"
    ]


@pytest.mark.filterwarnings("error:.*missing from font")
def test_what_a_font_has_is_drawn_with_it(chinese: str) -> None:
    assert drawable(NAMES) == NAMES
    assert font_for("蝴", 10).getname()[0] == chinese
    assert font_for("café", 10).getname()[0] == "DejaVu Sans"
    squares = caption_row(NAMES, 300, 3)[:, 102:196]
    assert (squares == 0).all(axis=2).sum() > 100
    counts = np.eye(3, dtype=np.int64)
    figure = confusion_figure(counts, NAMES)
    assert not np.array_equal(_render(figure), _render(confusion_figure(counts, drawable(["dress", "", "café"]))))
    assert {text.get_fontfamily()[-1] for text in figure.axes[0].get_xticklabels()} == {chinese}
