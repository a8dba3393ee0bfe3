"""Line charts of runs, drawn by matplotlib."""

import colorsys
import io
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import TABLEAU_COLORS, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from .runs import Group
from .tables import METRICS

_CURVES = ("loss", "mse", "psnr", "ssim", "accuracy")
_MOST_POINTS = 200
_WIDTH, _HEIGHT = 4.6, 3.2  # inches
STYLE: Any = {  # of every figure, for `rc_context`
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.06,
    "font.sans-serif": ["DejaVu Sans"],  # an SVG repeats the whole list at every text
    "grid.alpha": 0.3,
    "svg.fonttype": "none",
    "svg.hashsalt": "preimage",  # the same ids every time
    "text.parse_math": False,  # names may hold a dollar
    "xtick.bottom": False,
    "ytick.left": False,
}


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, and no two alike: ten that are easily told apart, then as many as it takes."""
    palette = [str(colour) for colour in TABLEAU_COLORS.values()]
    names = list(dict.fromkeys(names))
    for i in range(len(palette), len(names)):  # by the golden angle, hues never come back
        palette.append(to_hex(colorsys.hls_to_rgb(i * 0.618 % 1, 0.3 + 0.15 * (i % 3), 0.7)))
    return dict(zip(names, palette, strict=False))


@rc_context(STYLE)
def curve_figures(groups: Sequence[Group], colours: Mapping[str, str]) -> list[Figure]:
    """Plots training and validation of every seed against the epoch: a figure per loss, and one per main metric.

    Args:
        groups: Groups of one data set.
        colours: Colour of each group by its short label.
    """
    figures: dict[str, Figure] = {}
    logged = [(group, pd.DataFrame(run.logged())) for group in groups for run in group.runs]
    for name in _CURVES:
        metric = METRICS.get(name)
        for group, rows in logged:
            title = metric.heading[0].upper() + metric.heading[1:] if metric else f"Loss of {group.model}"
            for split, style in (("train", "--"), ("val", "-")):
                points = _curve(rows, f"{split}/{name}") * (metric.scale if metric else 1)
                if points.empty:
                    continue
                if title not in figures:
                    figures[title] = Figure(figsize=(_WIDTH, _HEIGHT))
                    figures[title].subplots().set(title=title, xlabel="epoch")
                style = "." * (len(points) == 1) + style
                color = colours[group.short_label]
                figures[title].axes[0].plot(points.index + 1, points, style, color=color, label=group.short_label)
    for figure in figures.values():
        (axes,) = figure.axes
        axes.set_ylim(_y_range(axes))
        axes.locator_params("x", integer=True, nbins=5)
        axes.locator_params("y", nbins=5)
        axes.yaxis.set_major_formatter("{x:,.6g}")
    return list(figures.values())


@rc_context(STYLE)
def error_figure(errors: pd.DataFrame, colours: Mapping[str, str]) -> Figure:
    """Plots test error against the number of labels, both logarithmic.

    Args:
        errors: `mean` and `sd` over the seeds by data set, name of the line and number of labels.
        colours: Colours of the lines; what has none is published, and drawn as black markers.

    Returns:
        The figure: lines are means over seeds, bands one standard deviation either way. A line that lies on another
        is dashed, so that both are seen.
    """
    metric = METRICS["error"]
    panels = list(errors.groupby("data", sort=False))
    most = max(lines.index.unique("line").size for _, lines in panels)
    figure = Figure(figsize=(_WIDTH * len(panels), _HEIGHT + 0.3 + 0.2 * most))
    handles = {}
    for axes, (data, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        markers, drawn = iter("^sDv"), list[pd.Series]()
        for name, points in lines.groupby("line", sort=False):
            points = points.droplevel(["data", "line"]).sort_index()
            mean, deviation = points["mean"] * metric.scale, points["sd"].fillna(0) * metric.scale
            if name in colours:
                same = sum(mean.equals(other) for other in drawn)  # a code that several models read is one line
                style: Any = (0, (4, 4 * same)) if same else "-"
                drawn.append(mean)
                (handles[name],) = axes.plot(mean, color=colours[name], marker=".", linestyle=style, label=name)
                low = np.maximum(mean - deviation, mean / 10)  # the axis is logarithmic
                edge = 2 if len(points) == 1 else 0  # a band of one point has no area
                axes.fill_between(mean.index, low, mean + deviation, color=colours[name], alpha=0.2, linewidth=edge)
            else:
                (handles[name],) = axes.plot(mean, next(markers), color="black", fillstyle="none", label=name)
        axes.set(title=f"{data}: {metric.heading}", xlabel="number of labels", xscale="log")
        axes.set_yscale("log", nonpositive="mask")
        ticks = sorted(lines.index.unique("labels"))
        axes.set_xticks(ticks, [f"{count:,}" for count in ticks], rotation=45)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(panels))
    return figure


@rc_context(STYLE)
def rate_figures(groups: Sequence[Group]) -> list[Figure]:
    """Plots the squared error against the bits of a code, both logarithmic: a figure per data set.

    A system, by the name of its runs, is a point for each of its settings, and a line through those that no cheaper
    one beats. There is no figure where no system has several rates. The error of a VAE is that of drawn codes, which
    its rate pays for.

    Args:
        groups: Groups of runs, the settings.
    """
    points = pd.DataFrame(
        [
            (group.data, group.name, means["test/bits_per_image"], error)
            for group in groups
            for means in [group.figures["mean"]]
            for error in [means.get("test/mse_drawn", means.get("reconstruction/mse"))]
            if means.get("test/bits_per_image", 0) > 0 and error
        ],
        columns=["data", "system", "bits", "error"],
    )
    figures = []
    for data, rates in points.groupby("data", sort=False):
        if rates.groupby("system")["bits"].nunique().max() < 2:
            continue
        figure = Figure(figsize=(_WIDTH * 1.3, _HEIGHT * 1.3))
        axes = figure.subplots()
        for system, color in colours(rates["system"]).items():
            own = rates[rates["system"] == system].sort_values(["bits", "error"])
            best = own[own["error"] < own["error"].cummin().shift(fill_value=math.inf)]
            axes.scatter(own["bits"], own["error"], s=16, color=color)
            axes.plot(best["bits"], best["error"], color=color, label=system)
        axes.set(title=f"{data}: {METRICS['mse'].heading}", xlabel=METRICS["bits_per_image"].heading)
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend()
        figures.append(figure)
    return figures


def describe(figure: Figure) -> str:
    """Says what a figure shows, for those who do not see it."""
    parts = []
    for axes in figure.axes:
        names = ", ".join(dict.fromkeys(str(line.get_label()) for line in axes.lines))
        parts.append(f"{axes.get_title()} against {axes.get_xlabel()}: {names}")
    return "; ".join(parts)


@rc_context(STYLE)
def svg(figure: Figure) -> str:
    """Writes a figure as SVG, the same every time, in tenths of a point."""
    file = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has fonts of its own
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    short = re.sub(r"([ML] \d+\.\d)\d*( \d+\.\d)\d*", r"\1\2", file.getvalue())
    return " ".join(short.split())


def _curve(rows: pd.DataFrame, key: str) -> pd.Series:
    """Values of a metric by epoch, at most so many."""
    if not {"epoch", key} <= set(rows):
        return pd.Series(dtype=float)
    points = rows[["epoch", key]]
    points = points[(points.abs() < 1e30).all(axis=1)]  # no gaps, and nothing so large that no axis can hold it
    values = points.groupby("epoch")[key].last()
    return values.iloc[:: math.ceil(len(values) / _MOST_POINTS) or 1]


def _y_range(axes: Axes) -> tuple[float, float]:
    """The range of the values, but for the first tenth of long lines, which would flatten the rest."""
    parts = [np.asarray(line.get_ydata()) for line in axes.lines]
    values = np.concatenate([part[math.ceil(len(part) / 10) if len(part) > 4 else 0 :] for part in parts])
    low, high = float(values.min()), float(values.max())
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - margin, high + margin
