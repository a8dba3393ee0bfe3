"""The plane of an atlas: what the layers of networks keep of an image, against what can be read out of them."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from preimage.fonts import choose_fonts

from .charts import STYLE, svg
from .tables import metric_of

MEAN, PIXELS = "mean image", "pixels"  # what stands among the networks and is none
GRAY = "#6b6b6b"
# Okabe and Ito's colours, told apart by the colour-blind too. There are fewer of them than of markers, so that the pair
# of both comes back late.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = "os^DvPXp<>h"
ERROR, READ = "normalized_error_64", "linear"
_NAMES = ("network", "layer", "shape")
#: Where the name of a point may stand beside it, in points, the nearest first.
_SIDES = [(x * far, y * far) for far in (7, 15, 25) for x in (1, -1, 0) for y in (1, -1)]


def numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of an `atlas.csv`, read as texts, with numbers for figures, and NaN where a cell is none."""
    figures = {key: pd.to_numeric(rows[key], errors="coerce") for key in rows if key not in _NAMES}
    return rows.assign(**{str(key): column.where(np.isfinite(column)) for key, column in figures.items()})


def styles(networks: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each network."""
    return {
        name: (_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)])
        for i, name in enumerate(network for network in dict.fromkeys(networks) if network not in (MEAN, PIXELS))
    }


def hoverable_svg(figure: Figure, rows: pd.DataFrame) -> str:
    """Writes a figure of an atlas as SVG whose points tell their network, layer and figures under the mouse.

    Args:
        figure: A figure whose points have the ids `KEYS-row-INDEX`, where KEYS names columns, or is `all`.
        rows: The rows of the atlas.
    """

    def titled(match: re.Match[str]) -> str:
        row = rows.loc[int(match[2])]
        return f"{match[0]}<title>{html.escape(_told(row, list(rows) if match[1] == 'all' else [match[1]]))}</title>"

    return re.sub(r'<g id="([^"]+?)-row-(\d+)">', titled, svg(figure))


def paths(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each network that have a place in the plane, and before them that of the whole image.

    Args:
        rows: The rows of an atlas, as `numbers` gives them; columns that the plane needs are added.
    """
    needed = dict.fromkeys([*rows, "values", ERROR, READ, f"{ERROR}_sd", f"{READ}_sd"])
    placed = rows.reindex(columns=list(needed)).dropna(subset=[ERROR, READ])
    image = placed[(placed["network"] == PIXELS) & (placed[ERROR] == 0)][:1]
    return {
        str(network): points if network == PIXELS else pd.concat([image, points])
        for network, points in placed[placed["network"] != MEAN].groupby("network", sort=False)
    }


@rc_context(STYLE)
def plane_figure(rows: pd.DataFrame) -> Figure | None:
    """Plots linear accuracy against the error of reconstruction: a path per network from the image to its last layer.

    Args:
        rows: The rows of an atlas, as `numbers` gives them.

    Returns:
        The figure; None where no layer has both measured.
    """
    lines = paths(rows)
    if not set(lines) - {PIXELS}:
        return None
    figure = Figure(figsize=(9.6, 6.4))
    axes = figure.subplots()
    axes.set(
        title="What layers keep, and what can be read out of them",
        xlabel=f"{metric_of(ERROR).heading} of the reconstruction (0: the image itself)",
        ylabel=f"test accuracy of a {metric_of(READ).heading}",
    )
    axes.grid(axis="x")
    names = _draw_paths(axes, lines)
    for error in rows.loc[rows["network"] == MEAN, ERROR].dropna():
        axes.axvline(error, color=GRAY, linestyle=":", label=MEAN)
    axes.margins(0.08)
    figure.legend(loc="outside right upper", frameon=False)
    if sizes := _sizes(pd.concat(lines.values())["values"]):
        figure.legend(handles=sizes, title="numbers of the code", loc="outside right lower", frameon=False, ncols=2)
    choose_fonts(figure)
    _put_beside(figure, axes, names)
    return figure


def _draw_paths(axes: Axes, lines: Mapping[str, pd.DataFrame]) -> list[Annotation]:
    """Draws the path of each network, and returns the names of its ends, which have no position yet."""
    names = []
    of = {PIXELS: (GRAY, "d")} | styles(lines)
    for network, path in lines.items():
        colour, marker = of[network]
        line: Any = {"color": colour, "linestyle": "--" if network == PIXELS else "-"}
        axes.plot(path[ERROR], path[READ] * 100, linewidth=1.2, alpha=0.8, **line)
        label = "pixels, downscaled" if network == PIXELS else network
        axes.plot([], [], marker=marker, label=label, **line)  # for the legend: points differ in size
        points = path[path["network"] == network]
        for index, row in points.iterrows():
            _draw_point(axes, row, f"all-row-{index}", colour, marker)
        for _, row in points[:: max(1, len(points) - 1)].iterrows():  # the first and the last
            name = row["layer"] if row[ERROR] else "image"
            at = (row[ERROR], row[READ] * 100)
            names.append(axes.annotate(name, at, (0, 0), textcoords="offset points", color=colour, fontsize="small"))
    if any(math.isfinite(_searched(row)) for path in lines.values() for _, row in path.iterrows()):
        axes.plot([], [], ":o", color=GRAY, fillstyle="none", label="search without training")
    return names


def _draw_point(axes: Axes, row: pd.Series, identity: str, colour: str, marker: str) -> None:
    """Draws a layer, one standard deviation either way, and the search without training where it is measured."""
    x, y, size = row[ERROR], row[READ] * 100, _diameter(row["values"])
    deviations = row[[f"{ERROR}_sd", f"{READ}_sd"]].fillna(0).to_numpy(float) * (1, 100)
    axes.errorbar(x, y, deviations[1], deviations[0], fmt="none", ecolor=colour, elinewidth=1)
    axes.plot(x, y, marker, color=colour, markeredgecolor="white", markersize=size, gid=identity)
    if math.isfinite(searched := _searched(row)):
        axes.plot([x, searched], [y, y], ":", color=colour, linewidth=1)
        axes.plot(searched, y, marker, color=colour, fillstyle="none", markersize=size)


def _searched(row: pd.Series) -> float:
    """Error of the search without training: that of the decoder, by the ratio of both on the same few images."""
    gain = row.get("psnr_64_few", math.nan) - row.get("psnr_64_search", math.nan)
    return float(row[ERROR] * 10 ** (gain / 20))


def _diameter(values: float) -> float:
    """Diameter of a marker in points, by the logarithm of the numbers of a code."""
    return 3 + 2 * math.log10(values) if values >= 1 else 5.0


def _sizes(values: pd.Series) -> list[Line2D]:
    """What a legend says of the diameters: powers of ten in the range of the codes."""
    powers = np.log10(values[values >= 1])
    ticks = range(math.floor(powers.min()), math.floor(powers.max()) + 1) if len(powers) else ()
    look: Any = {"linestyle": "", "marker": "o", "color": GRAY}
    return [Line2D([], [], **look, markersize=_diameter(10**power), label=f"{10**power:,}") for power in ticks]


def _put_beside(figure: Figure, axes: Axes, names: Sequence[Annotation]) -> None:
    """Puts each name beside its point, on the side where it covers the least of other names, points and lines."""
    for name in names:
        name.set_in_layout(False)
    figure.draw_without_rendering()  # which lays the figure out and so says where points are
    limits = axes.get_window_extent()
    taken = [box for line in axes.lines for box in _boxes(line)]

    def put(name: Annotation, side: tuple[float, float]) -> Bbox:
        name.set_position(side)
        name.set_horizontalalignment(("left", "center", "right")[int(1 - np.sign(side[0]))])
        name.set_verticalalignment("bottom" if side[1] > 0 else "top")
        return name.get_window_extent()

    def covered(box: Bbox) -> float:
        outside = _area(box) - _area(Bbox.intersection(box, limits))
        return 3 * outside + sum(_area(Bbox.intersection(box, other)) for other in taken)

    for name in names:
        best = min(_SIDES, key=lambda side: covered(put(name, side)))
        taken.append(put(name, best))


def _boxes(line: Line2D) -> list[Bbox]:
    """What a line covers, in pixels: its marker, or small squares along it."""
    points = line.get_transform().transform(line.get_xydata())
    if len(points) == 1:
        return [line.get_window_extent()]
    along = np.linspace(points[:-1], points[1:], 40).reshape(-1, 2)
    return [Bbox.from_bounds(x - 2, y - 2, 4, 4) for x, y in along]


def _area(box: Bbox | None) -> float:
    return float(box.width * box.height) if box else 0.0


def _told(row: pd.Series, keys: Sequence[str]) -> str:
    """Network and layer of a row, and figures, one a line."""
    lines = [f"{row['network']}, {row['layer']}"]
    for key in keys:
        if key not in _NAMES and not key.endswith("_sd") and math.isfinite(row[key]):
            metric = metric_of(key)
            lines.append(f"{metric.heading}: {metric.text(row[key], row.get(f'{key}_sd', math.nan))}")
    return "\n".join(lines)
