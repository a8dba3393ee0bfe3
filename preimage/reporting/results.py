"""The results of groups of runs as rows and columns, in Markdown and CSV."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .runs import Group
from .tables import COST, METRICS, SECTIONS, Column, in_order, markdown_table

_ATLAS = ["layer", "shape", "parameters", "minutes", "psnr_64", "ssim_64", "normalized_error_64", "feature_error"]
_ATLAS += ["psnr_64_few", "psnr_64_search"]


def cell(group: Group, column: Column) -> str:
    """Mean ± standard deviation, with the number of seeds where some lack the value; empty where all do."""
    if column.key not in group.figures.index:
        return ""
    mean, deviation, count = group.figures.loc[column.key]
    is_same_cost = deviation == 0 and column.key in COST
    text = column.metric.text(mean) if is_same_cost else column.metric.text(mean, deviation)
    seeds = len(group.measured)
    return text if count == seeds else f"{text} ({count:.0f} of {seeds})"


def best_cells(groups: Sequence[Group], columns: Sequence[Column]) -> set[tuple[str, str]]:
    """Label and key of the best mean of each data set, where less or more is better and several have the value."""
    best = set()
    for data in {group.data for group in groups}:
        means = pd.DataFrame({group.label: group.figures["mean"] for group in groups if group.data == data})
        for column in (column for column in columns if column.metric.better and column.key in means.index):
            values = means.loc[column.key].dropna() * column.metric.better
            if len(values) > 1:
                best.add((str(values.idxmax()), column.key))
    return best


def write_csv(path: Path, groups: Sequence[Group]) -> None:
    """Writes a row per group: mean, standard deviation and count of every figure, in full precision."""
    keys = in_order(key for group in groups for key in group.figures.index)
    rows = []
    for group in groups:
        seeds = " ".join(str(run.seed) for run in group.measured)
        row = {"label": group.label, "model": group.model, "data": group.data, "runs": len(group.measured)}
        row |= {"seeds": seeds}
        for key, mean, deviation, count in group.figures.reindex(keys).itertuples():
            row |= {key: mean, f"{key}/sd": deviation, f"{key}/count": 0 if pd.isna(count) else int(count)}
        rows.append(row)
    pd.DataFrame(rows, columns=None if rows else ["label", "model", "data", "runs", "seeds"]).to_csv(path, index=False)


def markdown_results(groups: Sequence[Group], columns: Sequence[Column]) -> str:
    """Writes a table per section, with the groups that have a value in it."""
    several = len({group.data for group in groups}) > 1
    parts = []
    for section in SECTIONS:
        chosen = [column for column in columns if column.section == section]
        rows = [
            [group.short_label, *([group.data] if several else []), str(len(group.measured)), *cells]
            for group in groups
            if any(cells := [cell(group, column) for column in chosen])
        ]
        if rows:
            header = ["model", *(["data"] if several else []), "seeds", *(column.metric.heading for column in chosen)]
            parts.append(f"### {section}\n\n{markdown_table(header, rows)}")
    return "\n".join(parts)


def shown(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """A CSV file as a table for people: without empty columns, and of an atlas, what matters."""
    rows = rows.loc[:, (rows != "").any()]
    if name == "atlas.csv":
        rows = rows[[key for key in _ATLAS if key in rows]]
    return rows.rename(columns=_title).map(_shortened)


def _title(key: str) -> str:
    metric = METRICS.get(key.removesuffix("_64")) if key.endswith("_64") else None
    return metric.heading if metric else key.replace("_", " ")


def _shortened(text: str) -> str:
    """Writes a number with four digits, and leaves any other text as it is."""
    value = float(pd.to_numeric(text, errors="coerce"))
    if not math.isfinite(value):
        return text
    return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
