"""The curves of an atlas: every figure of the layers of networks, from the image inwards."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from preimage.fonts import choose_fonts

from .charts import STYLE
from .plane import GRAY, MEAN, PIXELS, styles
from .tables import metric_of

_COLUMNS = 3
_WIDTH, _HEIGHT = 3.6, 2.5  # inches of a panel
#: Columns that have a panel, in order.
_PANELS = (
    *("psnr_64", "psnr_64_few", "ssim_64", "lpips_64", "normalized_error_64", "feature_error", "feature_error_few"),
    *("rfid", "linear", "knn", "mlp", r"few_\d+", "effective_rank", "intrinsic_dimension", r"invariance_\w+"),
)
#: Columns that stand in the panel of another.
_GUESTS = {
    "psnr_64": ("psnr_64_twice", "psnr_64_downscaled"),
    "psnr_64_few": ("psnr_64_search",),
    "feature_error_few": ("feature_error_search",),
}
#: By the end of a column's name: what it shows, its line, and how its markers are filled.
_KINDS: dict[str, Any] = {
    "twice": ("decoder of twice the budget", "", "none"),
    "search": ("search without training", ":", "none"),
    "downscaled": ("image downscaled to as many numbers", "-.", "bottom"),
}
_PLAIN: Any = ("decoder, or the code itself", "-", "full")
_OTHER = "as far as another image"
_LEVELS = {MEAN: ":", PIXELS: "--", _OTHER: (0, (1, 4))}  # what has no depth, as a line across


@rc_context(STYLE)
def depth_figure(rows: pd.DataFrame) -> Figure | None:
    """Plots each figure that is measured against the depth of the layer: a panel each, and in it a line per network.

    Args:
        rows: The rows of an atlas, as `plane.numbers` gives them.

    Returns:
        The figure, with bands of one standard deviation either way; None where nothing is measured.
    """
    layers = rows[rows["network"].isin(styles(rows["network"]))].dropna(axis="columns", how="all")
    panels = [key for pattern in _PANELS for key in layers if re.fullmatch(pattern, key)]
    if not panels:
        return None
    lines, columns = -(-len(panels) // _COLUMNS), min(len(panels), _COLUMNS)
    figure = Figure(figsize=(_WIDTH * max(columns, 2), _HEIGHT * lines + 1))
    figure.suptitle("Layers from the image inwards; images are compared at 64 x 64", fontsize="large")
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    kinds = {}
    for axes, panel in zip(grid, panels, strict=False):
        for key in (panel, *(guest for guest in _GUESTS.get(panel, ()) if guest in layers)):
            kind = _KINDS.get(key.rpartition("_")[2], _PLAIN)
            kinds[kind] = Line2D([], [], color=GRAY, linestyle=kind[1], marker="o", fillstyle=kind[2], label=kind[0])
            _draw_lines(axes, layers, key, kind)
        levels = {name: rows.loc[rows["network"] == name, panel][:1] for name in (MEAN, PIXELS)}  # the whole image
        levels[_OTHER] = pd.Series([1.0] * panel.startswith("invariance_"))
        for name, level in levels.items():
            for value in level.dropna() * metric_of(panel).scale:
                axes.axhline(value, color=GRAY, linestyle=_LEVELS[name], label=name)
        axes.set_title(metric_of(panel).heading)
        axes.locator_params("y", nbins=5)
        axes.yaxis.set_major_formatter("{x:,.6g}")
    for axes in grid[len(panels) :]:
        axes.remove()
    invariances = [axes for axes, panel in zip(grid, panels, strict=False) if panel.startswith("invariance_")]
    for axes in invariances:
        axes.set_ylim(0, max(1.08, *(axes.get_ylim()[1] for axes in invariances)))
    _name_layers(grid[: len(panels)], layers)
    _add_legend(figure, layers, kinds.values())
    choose_fonts(figure)
    return figure


def _draw_lines(axes: Axes, layers: pd.DataFrame, key: str, kind: Any) -> None:
    """Draws a column: a line with its band per network."""
    _, line, fill = kind
    scale = metric_of(key).scale
    for name, (colour, marker) in styles(layers["network"]).items():
        points = layers[layers["network"] == name]
        depths, values = range(1, len(points) + 1), points[key] * scale
        axes.plot(depths, values, linestyle=line, color=colour, label=name)
        if f"{key}_sd" in points:
            half = points[f"{key}_sd"].fillna(0) * scale
            axes.fill_between(depths, values - half, values + half, color=colour, alpha=0.2, linewidth=0)
        look: Any = {"color": colour, "fillstyle": fill, "markerfacecoloralt": "white", "markersize": 5}
        for depth, (index, value) in zip(depths, values.items(), strict=True):
            if value == value:
                axes.plot(depth, value, marker, gid=f"{key}-row-{index}", **look)


def _name_layers(grid: Sequence[Axes], layers: pd.DataFrame) -> None:
    """Names the layers beneath the lowest panel of each column, and numbers those of several networks."""
    most = layers["network"].value_counts().max()
    alone = layers["network"].nunique() == 1
    for i, axes in enumerate(grid):
        axes.set_xlim(0.7, most + 0.3)
        lowest = i + _COLUMNS >= len(grid)
        names = list(layers["layer"]) if alone else [str(depth + 1) for depth in range(most)]
        axes.set_xticks(range(1, most + 1), names if lowest else [""] * most)
        if lowest and alone:
            axes.tick_params("x", rotation=45, labelsize="small")
            for text in axes.get_xticklabels():
                text.set(ha="right", rotation_mode="anchor")
        elif lowest:
            axes.set_xlabel("layer")


def _add_legend(figure: Figure, layers: pd.DataFrame, kinds: Iterable[Line2D]) -> None:
    """Says beneath the panels whose the lines are, with first and last layer, and what they show."""
    handles = []
    for name, (colour, marker) in styles(layers["network"]).items():
        first, *_, last = [*layers.loc[layers["network"] == name, "layer"]] * 2
        label = f"{name}: {first}" if first == last else f"{name}: {first} … {last}"
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=5, label=label))
    handles += kinds
    levels = {str(line.get_label()): line for axes in figure.axes for line in axes.lines if line.get_label() in _LEVELS}
    handles += [levels[name] for name in _LEVELS if name in levels]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
