"""Line charts as SVG, drawn from numbers alone."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from .runs import Group, Run, Table, mean_and_deviation
from .tables import as_number

WIDTH, HEIGHT = 370, 255
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 12, 44
METRICS = {"mse": "MSE", "psnr": "PSNR, dB", "ssim": "SSIM", "accuracy": "accuracy, %"}
COLOURS = 10
MOST_POINTS = 200


@dataclass
class Line:
    """A line of a chart."""

    label: str
    colour: int
    points: list[tuple[float, float]]
    dashed: bool = False
    deviations: list[float] | None = None  # half the width of a band around it
    dots: bool = False


@dataclass
class Chart:
    """A chart of lines."""

    title: str
    x_label: str
    y_label: str
    lines: list[Line]
    x_log: bool = False

    def svg(self, style: str = "") -> str:
        """Draws it.

        Args:
            style: Style sheet to put inside, where the drawing is to stand alone.
        """
        x_ticks, x_range = self._x_axis()
        bottom, top = self._y_range()
        y_ticks = _ticks(bottom, top)

        def x(value: float) -> float:
            start, end = x_range
            if self.x_log:
                start, end, value = math.log(start), math.log(end), math.log(value)
            return LEFT + (value - start) / (end - start) * (WIDTH - LEFT - RIGHT)

        def y(value: float) -> float:
            return HEIGHT - BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

        names = ", ".join(dict.fromkeys(line.label for line in self.lines))
        name = escape(f"{self.title}: {self.y_label} against {self.x_label}, for {names}")
        box = f'viewBox="0 0 {WIDTH} {HEIGHT}" class="chart" role="img" aria-label="{name}"'
        parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {box}>' if style else f"<svg {box}>"]
        if style:
            parts.append(f"<style>{style}</style>")
        for value in y_ticks:
            parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.6g}</text>')
        for value in x_ticks:
            parts.append(f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{value:,g}</text>')
        parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
        middle = (HEIGHT - BOTTOM + TOP) / 2
        parts.append(
            f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(self.x_label)}</text>'
            f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">{escape(self.y_label)}</text>'
        )
        parts.append(
            f'<svg x="{LEFT}" y="{TOP - 4}" width="{WIDTH - LEFT - RIGHT + 6}" height="{HEIGHT - TOP - BOTTOM + 8}"'
        )
        parts.append(f' viewBox="{LEFT} {TOP - 4} {WIDTH - LEFT - RIGHT + 6} {HEIGHT - TOP - BOTTOM + 8}">')
        for line in self.lines:
            places = [(x(key), y(value)) for key, value in line.points]
            if line.deviations:
                ends = list(zip(line.points, line.deviations, strict=True))
                edge = [(x(key), y(value + half)) for (key, value), half in ends]
                edge += [(x(key), y(value - half)) for (key, value), half in reversed(ends)]
                parts.append(f'<path class="band c{line.colour}" d="{_path(edge)}Z"/>')
            hint = f"<title>{escape(line.label)}</title>"
            if line.dots or len(places) == 1:
                parts += [
                    f'<circle class="c{line.colour}" cx="{a:.1f}" cy="{b:.1f}" r="3.5">{hint}</circle>'
                    for a, b in places
                ]
            if len(places) > 1:
                dashes = " dashed" if line.dashed else ""
                parts.append(f'<path class="line c{line.colour}{dashes}" d="{_path(places)}">{hint}</path>')
        return "".join([*parts, "</svg></svg>"])

    def _x_axis(self) -> tuple[list[float], tuple[float, float]]:
        values = sorted({key for line in self.lines for key, _ in line.points})
        if self.x_log:
            kept = [values[0]]
            for value in values[1:]:
                if value / kept[-1] > 1.9:
                    kept.append(value)
            return kept, (values[0] / 1.15, values[-1] * 1.15)
        end = values[-1] if values[-1] > values[0] else values[0] + 1
        ticks = [tick for tick in _ticks(values[0], end) if tick == int(tick)]
        return ticks, (values[0], end)

    def _y_range(self) -> tuple[float, float]:
        """The range of the values, but for the first tenth of long lines, which would flatten the rest."""
        values = []
        for line in self.lines:
            start = math.ceil(len(line.points) / 10) if len(line.points) > 4 and not self.x_log else 0
            halves = line.deviations or [0.0] * len(line.points)
            for (_, value), half in list(zip(line.points, halves, strict=True))[start:]:
                values += [value - half, value + half]
        low, high = min(values), max(values)
        margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
        return low - margin, high + margin


def curve_charts(groups: Sequence[Group], colours: dict[str, int]) -> list[Chart]:
    """Draws training and validation of every seed against the epoch: a chart per loss, and one per main metric.

    Args:
        groups: Groups of one data set.
        colours: Colour of each group by its name.
    """
    charts: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for group in groups:
        for run in group.runs:
            for split in ("train", "val"):
                for metric in ("loss", *METRICS):
                    points = _curve(run, f"{split}/{metric}")
                    if points:
                        line = Line(group.short_label, colours[group.name], points, dashed=split == "train")
                        charts[metric, group.model if metric == "loss" else ""].append(line)
    order = sorted(charts, key=lambda key: (["loss", *METRICS].index(key[0]), key[1]))
    return [
        Chart(
            f"Loss of {model}" if metric == "loss" else METRICS[metric].split(",")[0].replace("acc", "Acc"),
            "epoch",
            METRICS.get(metric, metric),
            charts[metric, model],
        )
        for metric, model in order
    ]


def few_label_chart(groups: Sequence[Group], colours: dict[str, int]) -> Chart | None:
    """Draws accuracy against the number of labels from the evaluations of one data set's groups."""
    lines = []
    for group in groups:
        keys = {key for run in group.runs for key in run.values if key.startswith("reading/few_labels/")}
        counts = {key.split("/")[2] for key in keys if key.endswith("/accuracy")}
        known = [count for count in counts if count.isdigit() and int(count) > 0]
        samples = {float(count): group.samples(f"reading/few_labels/{count}/accuracy") for count in known}
        if samples:
            lines.append(_banded(group.short_label, colours[group.name], samples))
    return Chart(f"Few labels on {groups[0].data}", "labels", "accuracy, %", lines, x_log=True) if lines else None


def label_efficiency_charts(table: Table) -> list[Chart]:
    """Draws accuracy against the number of labels, a chart per data set and a line per method.

    Args:
        table: Rows with `labels`, `method`, `accuracy`, perhaps `data` and `seed`; published points have no seed.
    """
    samples: dict[str, dict[str, dict[float, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    published = set()
    for row in table.rows:
        labels, accuracy = as_number(row.get("labels", "")), as_number(row.get("accuracy", ""))
        if labels is not None and labels > 0 and accuracy is not None:
            samples[row.get("data", "")][row.get("method", "")][labels].append(accuracy)
            if not row.get("seed"):
                published.add(row.get("method", ""))
    charts = []
    for dataset, methods in samples.items():
        lines = [_banded(method, place % COLOURS, points) for place, (method, points) in enumerate(methods.items())]
        for line in lines:
            line.dots = line.dashed = line.label in published
        charts.append(
            Chart(
                f"Label efficiency on {dataset}" if dataset else "Label efficiency",
                "labels",
                "accuracy, %",
                lines,
                x_log=True,
            )
        )
    return charts


def _banded(label: str, colour: int, samples: Mapping[float, list[float]]) -> Line:
    ends = [(count, *mean_and_deviation(samples[count])) for count in sorted(samples)]
    points = [(float(count), 100 * mean) for count, mean, _ in ends]
    return Line(label, colour, points, deviations=[100 * (deviation or 0.0) for *_, deviation in ends])


def _curve(run: Run, key: str) -> list[tuple[float, float]]:
    scale = 100 if key.endswith("accuracy") else 1
    rows = [row for row in run.metrics if "epoch" in row and math.isfinite(row.get(key, math.nan))]
    points = {row["epoch"] + 1: row[key] * scale for row in rows}
    every = math.ceil(len(points) / MOST_POINTS) or 1
    return sorted(points.items())[::every]


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within a range, four or so."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= 5)
    return [round(place * step, 12) for place in range(math.ceil(low / step), math.floor(high / step) + 1)]
