"""Line charts of runs, drawn by matplotlib."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import TABLEAU_COLORS
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from .runs import Group, Run, mean_and_deviation
from .tables import METRICS

_CURVES = ("mse", "psnr", "ssim", "accuracy")
PALETTE = [str(colour) for colour in TABLEAU_COLORS.values()]
MOST_POINTS = 200
WIDTH, HEIGHT = 4.6, 3.2  # inches
STYLE: Any = {
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


@rc_context(STYLE)
def curve_figures(groups: Sequence[Group], colours: Mapping[str, str]) -> list[Figure]:
    """Plots training and validation of every seed against the epoch: a figure per loss, and one per main metric.

    Args:
        groups: Groups of one data set.
        colours: Colour of each group by its name.
    """
    figures = []
    panels: dict[str, Axes] = {}
    for metric in ("loss", *_CURVES):
        for group in groups:
            title = f"Loss of {group.model}" if metric == "loss" else _headed(metric)
            curves = [(run, split) for run in group.runs for split in ("train", "val")]
            for run, split in curves:
                epochs, values = _curve(run, f"{split}/{metric}")
                if not epochs:
                    continue
                if title not in panels:
                    figures.append(Figure(figsize=(WIDTH, HEIGHT)))
                    panels[title] = figures[-1].subplots()
                    panels[title].set(title=title, xlabel="epoch")
                style = ("." if len(epochs) == 1 else "") + ("--" if split == "train" else "-")
                panels[title].plot(epochs, values, style, color=colours[group.name], label=group.short_label)
    for axes in panels.values():
        axes.set_ylim(_y_range(axes))
        axes.locator_params("x", integer=True, nbins=5)
        axes.locator_params("y", nbins=5)
        axes.yaxis.set_major_formatter("{x:,.6g}")
    return figures


@rc_context(STYLE)
def error_figure(
    panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]], colours: Mapping[str, str]
) -> Figure:
    """Plots test error against the number of labels, both logarithmic.

    Args:
        panels: Test errors in percent over the seeds, by data set, name of the line and number of labels.
        colours: Colours of the lines; what has none is published, and drawn as black markers.

    Returns:
        The figure: lines are means over seeds, bands one standard deviation either way.
    """
    most = max(map(len, panels.values()))
    figure = Figure(figsize=(WIDTH * len(panels), HEIGHT + 0.3 + 0.2 * most))
    handles = {}
    for axes, (data, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        markers = iter("^sDv")
        for name, errors in lines.items():
            counts = sorted(errors)
            ends = [mean_and_deviation(errors[count]) for count in counts]
            mean, deviation = np.array([(middle, half or 0.0) for middle, half in ends]).T
            if name in colours:
                (handles[name],) = axes.plot(counts, mean, color=colours[name], marker=".", label=name)
                low = np.maximum(mean - deviation, mean / 10)  # the axis is logarithmic
                edge = 2 if len(counts) == 1 else 0  # a band of one point has no area
                axes.fill_between(counts, low, mean + deviation, color=colours[name], alpha=0.2, linewidth=edge)
            else:
                (handles[name],) = axes.plot(counts, mean, next(markers), color="black", fillstyle="none", label=name)
        axes.set(title=f"{data}: test error, %", xlabel="number of labels", xscale="log")
        axes.set_yscale("log", nonpositive="mask")
        ticks = sorted({count for errors in lines.values() for count in errors})
        axes.set_xticks(ticks, [f"{count:,}" for count in ticks], rotation=45)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(panels))
    return figure


def few_label_figure(groups: Sequence[Group], colours: Mapping[str, str]) -> Figure | None:
    """Plots the readers on few labels from the evaluations of one data set's groups.

    Args:
        groups: Groups of one data set.
        colours: Colour of each group by its name.
    """
    lines: dict[str, dict[int, list[float]]] = {}
    for group in groups:
        keys = {tuple(key.split("/")) for run in group.runs for key in run.values}
        counts = [key[2] for key in keys if key[:2] == ("reading", "few_labels") and key[3:] == ("accuracy",)]
        errors = {
            int(count): [100 * (1 - value) for value in group.samples(f"reading/few_labels/{count}/accuracy")]
            for count in counts
            if count.isdigit() and int(count) > 0
        }
        if errors:
            lines[group.short_label] = errors
    if not lines:
        return None
    return error_figure(
        {f"{groups[0].data}, linear readers": lines}, {group.short_label: colours[group.name] for group in groups}
    )


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
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    short = re.sub(r"([ML] \d+\.\d)\d*( \d+\.\d)\d*", r"\1\2", file.getvalue())
    return " ".join(short.split())


def _headed(metric: str) -> str:
    heading = METRICS[metric].heading
    return heading[0].upper() + heading[1:]


def _curve(run: Run, key: str) -> tuple[list[float], list[float]]:
    """Epochs and values of a metric, at most so many."""
    metric = METRICS.get(key.partition("/")[2])
    scale = metric.scale if metric else 1
    # What is no number, or so large that no axis can hold it, is left out.
    rows = [row for row in run.metrics if all(abs(row.get(name, math.nan)) < 1e30 for name in ("epoch", key))]
    points = sorted({row["epoch"] + 1: row[key] * scale for row in rows}.items())
    points = points[:: math.ceil(len(points) / MOST_POINTS) or 1]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _y_range(axes: Axes) -> tuple[float, float]:
    """The range of the values, but for the first tenth of long lines, which would flatten the rest."""
    parts = [np.asarray(line.get_ydata()) for line in axes.lines]
    values = np.concatenate([part[math.ceil(len(part) / 10) if len(part) > 4 else 0 :] for part in parts])
    low, high = float(values.min()), float(values.max())
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - margin, high + margin
