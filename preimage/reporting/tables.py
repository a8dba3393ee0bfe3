"""The results as rows and columns, in Markdown and CSV."""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .runs import Group, Table, mean_and_deviation

_TITLES = {
    "mse": "MSE",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "normalized_error": "normalised error",
    "fid": "FID",
    "kid": "KID",
    "elbo": "ELBO, nats",
    "log_likelihood": "log p(x), nats",
    "f1": "F1, %",
    "accuracy": "accuracy, %",
    "knn_accuracy": "kNN accuracy, %",
    "knn_f1": "kNN F1, %",
    "auroc": "ROC AUC",
    "average_precision": "average precision",
    "linear": "linear",
    "knn": "kNN",
    "mlp": "MLP",
    "active_units": "active units",
    "parameters": "parameters",
    "trainable_parameters": "trainable",
    "training_minutes": "training, min",
    "images_per_second": "images/s encoded",
    "peak_memory_gb": "peak memory, GB",
}
_SHARES = ("accuracy", "f1", "knn_accuracy", "knn_f1")  # of one, written as percentages
_DECIMALS = {"mse": 4, "psnr": 2, "ssim": 3, "normalized_error": 3, "fid": 2, "kid": 4, "elbo": 1}
_DECIMALS |= {
    "log_likelihood": 1,
    "active_units": 1,
    "parameters": 0,
    "trainable_parameters": 0,
}
_DECIMALS |= {"training_minutes": 1, "images_per_second": 0, "peak_memory_gb": 2} | dict.fromkeys(_SHARES, 2)
_LOWER_IS_BETTER = {"mse", "normalized_error", "fid", "kid"}
_HIGHER_IS_BETTER = {"psnr", "ssim", *_SHARES, "auroc", "average_precision", "log_likelihood"}
_OWN = (*_SHARES, "auroc", "average_precision", "elbo", "log_likelihood")
_COST = (
    "active_units",
    "parameters",
    "trainable_parameters",
    "training_minutes",
    "images_per_second",
    "peak_memory_gb",
)
_SECTIONS = ("Reconstruction", "Generation", "Accuracy of a reader of the code", "Own test", "Size and cost")
_ORDER = ("mse", "psnr", "ssim", "normalized_error", "linear", "knn", "mlp", "few_labels", *_OWN, *_COST)


_ATLAS = {
    "layer": "layer",
    "shape": "features",
    "parameters": "decoder's parameters",
    "minutes": "minutes",
    "psnr_64": "PSNR, dB",
    "ssim_64": "SSIM",
    "normalized_error_64": "normalised error",
    "feature_error": "feature error",
    "psnr_64_few": "PSNR on the images of the search",
    "psnr_64_search": "PSNR of the search",
}


@dataclass(frozen=True)
class Column:
    """A figure of the table."""

    key: str
    section: str
    title: str
    better: int  # -1 where less is better, 1 where more is, 0 where neither

    @property
    def metric(self) -> str:
        """The kind of figure, which decides how it is written."""
        parts = self.key.split("/")
        return parts[1] if parts[0] == "generation" else parts[-1]


def columns_of(groups: Sequence[Group]) -> list[Column]:
    """The columns in which some run has a value, in the order of the sections."""
    columns = [column for key in _keys(groups) if (column := _column(key))]
    return sorted(columns, key=lambda column: _SECTIONS.index(column.section))


def number(metric: str, value: float) -> str:
    """Writes a figure with the decimals of its kind; shares of one as percentages."""
    if not math.isfinite(value):
        return str(value)
    scaled = value * 100 if metric in _SHARES else value
    return f"{scaled:,.{_DECIMALS[metric]}f}" if metric in _DECIMALS else f"{scaled:.4g}"


def cell(group: Group, column: Column) -> str:
    """Mean ± standard deviation, with the number of seeds where some lack the value; empty where all do."""
    values = group.samples(column.key)
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    text = number(column.metric, mean)
    if deviation is not None and not (deviation == 0 and column.metric in _COST):
        text += f" ± {number(column.metric, deviation)}"
    return text if len(values) == len(group.runs) else f"{text} ({len(values)} of {len(group.runs)})"


def best_cells(groups: Sequence[Group], columns: Sequence[Column]) -> set[tuple[str, str]]:
    """Label and key of the best mean of each data set, where less or more is better and several have the value."""
    best = set()
    for column in columns:
        for data in {group.data for group in groups} if column.better else ():
            means = {
                group.label: mean_and_deviation(values)[0] * column.better
                for group in groups
                if group.data == data and (values := group.samples(column.key))
            }
            if len(means) > 1:
                best.add((max(means, key=lambda label: means[label]), column.key))
    return best


def write_csv(path: Path, groups: Sequence[Group]) -> None:
    """Writes a row per group: mean, standard deviation and count of every figure, in full precision."""
    keys = _keys(groups)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = [name for key in keys for name in (key, f"{key}/sd", f"{key}/count")]
        writer.writerow(["label", "model", "data", "runs", "seeds", *names])
        for group in groups:
            row: list[Any] = [group.label, group.model, group.data, len(group.runs)]
            row.append(" ".join(str(run.seed) for run in group.runs))
            for key in keys:
                values = group.samples(key)
                mean, deviation = mean_and_deviation(values) if values else ("", None)
                row += [mean, "" if deviation is None else deviation, len(values)]
            writer.writerow(row)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out a Markdown table; its cells are plain text, whatever they hold."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(plain(text) for text in line)} |\n" for line in lines)


def plain(text: str) -> str:
    """Keeps a text from being read as HTML or as the end of a cell."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|`*\[\]])", r"\\\1", text)


def markdown_results(groups: Sequence[Group], columns: Sequence[Column]) -> str:
    """Writes a table per section, with the groups that have a value in it."""
    several = len({group.data for group in groups}) > 1
    parts = []
    for section in _SECTIONS:
        chosen = [column for column in columns if column.section == section]
        rows = [
            [group.short_label, *([group.data] if several else []), str(len(group.runs)), *cells]
            for group in groups
            if any(cells := [cell(group, column) for column in chosen])
        ]
        if rows:
            header = ["model", *(["data"] if several else []), "seeds", *(column.title for column in chosen)]
            parts.append(f"### {section}\n\n{markdown_table(header, rows)}")
    return "\n".join(parts)


def shown(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a CSV file, without empty columns; of an atlas, what matters."""
    keys = [key for key in table.rows[0] if any(row.get(key) for row in table.rows)]
    if table.path.name == "atlas.csv":
        keys = [key for key in _ATLAS if key in keys]
    titles = [_ATLAS.get(key, key.replace("_", " ")) for key in keys]
    return titles, [[row.get(key, "") for key in keys] for row in table.rows]


def as_number(text: str) -> float | None:
    """The number that a text is, if it is one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def shortened(text: str) -> str:
    """Writes a number with four digits, and leaves any other text as it is."""
    value = as_number(text)
    if value is None:
        return text
    return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"


def _keys(groups: Sequence[Group]) -> list[str]:
    return sorted({key for group in groups for run in group.runs for key in run.values}, key=_place)


def _place(key: str) -> list[tuple[int, float, str]]:
    """Sorts figures as a reader wants them: known ones in their order, numbers by size, the rest by name."""
    places = []
    for part in key.split("/"):
        known = _ORDER.index(part) if part in _ORDER else len(_ORDER)
        places.append((known, float(part) if part.isdigit() else 0.0, part))
    return places


def _column(key: str) -> Column | None:
    first, *rest = key.split("/")
    last = rest[-1] if rest else first
    metric = rest[0] if first == "generation" else last
    better = (metric in _HIGHER_IS_BETTER) - (metric in _LOWER_IS_BETTER)
    title = _TITLES.get(metric, metric.replace("_", " "))
    if first == "reconstruction":
        return Column(key, "Reconstruction", title, better)
    if first == "generation" and metric in ("fid", "kid"):
        return Column(key, "Generation", f"{title} ({'/'.join(rest[1:])})", better)
    if first == "reading" and last == "accuracy" and len(rest) > 1:
        reader = f"{rest[1]} labels" if rest[0] == "few_labels" else _TITLES.get(rest[0], rest[0])
        return Column(key, "Accuracy of a reader of the code", f"{reader}, %", better)
    if first == "test" and last in _OWN:
        return Column(key, "Own test", title, better)
    return Column(key, "Size and cost", title, 0) if key in _COST else None
