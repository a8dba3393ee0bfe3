"""The results of groups of runs as rows and columns, in Markdown and CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .runs import Group, Table, mean_and_deviation
from .tables import COST, SECTIONS, Column, in_order, markdown_table

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


def shown(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a CSV file, without empty columns; of an atlas, what matters."""
    keys = [key for key in table.rows[0] if any(row.get(key) for row in table.rows)]
    if table.path.name == "atlas.csv":
        keys = [key for key in _ATLAS if key in keys]
    titles = [_ATLAS.get(key, key.replace("_", " ")) for key in keys]
    return titles, [[row.get(key, "") for key in keys] for row in table.rows]


def cell(group: Group, column: Column) -> str:
    """Mean ± standard deviation, with the number of seeds where some lack the value; empty where all do."""
    values = group.samples(column.key)
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    text = column.metric.text(mean)
    if deviation is not None and not (deviation == 0 and column.key in COST):
        text += f" ± {column.metric.text(deviation)}"
    return text if len(values) == len(group.runs) else f"{text} ({len(values)} of {len(group.runs)})"


def best_cells(groups: Sequence[Group], columns: Sequence[Column]) -> set[tuple[str, str]]:
    """Label and key of the best mean of each data set, where less or more is better and several have the value."""
    best = set()
    for column in columns:
        for data in {group.data for group in groups} if column.metric.better else ():
            means = {
                group.label: mean_and_deviation(values)[0] * column.metric.better
                for group in groups
                if group.data == data and (values := group.samples(column.key))
            }
            if len(means) > 1:
                best.add((max(means, key=lambda label: means[label]), column.key))
    return best


def write_csv(path: Path, groups: Sequence[Group]) -> None:
    """Writes a row per group: mean, standard deviation and count of every figure, in full precision."""
    keys = in_order(key for group in groups for run in group.runs for key in run.values)
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


def markdown_results(groups: Sequence[Group], columns: Sequence[Column]) -> str:
    """Writes a table per section, with the groups that have a value in it."""
    several = len({group.data for group in groups}) > 1
    parts = []
    for section in SECTIONS:
        chosen = [column for column in columns if column.section == section]
        rows = [
            [group.short_label, *([group.data] if several else []), str(len(group.runs)), *cells]
            for group in groups
            if any(cells := [cell(group, column) for column in chosen])
        ]
        if rows:
            header = ["model", *(["data"] if several else []), "seeds", *(column.metric.heading for column in chosen)]
            parts.append(f"### {section}\n\n{markdown_table(header, rows)}")
    return "\n".join(parts)
