"""The results of groups of runs as rows and columns, in Markdown and CSV."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .plane import numbers
from .runs import Group
from .tables import COST, METRICS, Column, columns_of, in_order, markdown_table, metric_of

_ATLAS = ["layer", "shape", "parameters", "minutes", "psnr_64", "ssim_64", "normalized_error_64", "feature_error"]
_ATLAS += ["psnr_64_few", "psnr_64_search"]
_FIXED = ["label", "model", "data", "runs", "seeds"]


def results(groups: Sequence[Group]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All figures as texts, a row per group and columns by section and heading; and which are the best of their data.

    Best is a mean where less or more is better, and several groups have one.
    """
    columns = columns_of(key for group in groups for key in group.figures.index)
    several = len({group.data for group in groups}) > 1
    texts, means = [], []
    for group in groups:
        row = {("", "model"): group.short_label, ("", "data"): group.data, ("", "seeds"): str(len(group.measured))}
        texts.append(row | {(column.section, column.metric.heading): _cell(group, column) for column in columns})
        mean = dict(group.figures["mean"])
        means.append(
            {
                (column.section, column.metric.heading): mean[column.key] * column.metric.better
                for column in columns
                if column.metric.better and column.key in mean
            }
        )
    table, worth = pd.DataFrame(texts), pd.DataFrame(means)
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    by_data = worth.groupby([group.data for group in groups])
    best = worth.eq(by_data.transform("max")) & (by_data.transform("count") > 1)
    best = best.reindex(columns=table.columns, fill_value=False)
    return tuple(part if several else part.drop(columns=[("", "data")]) for part in (table, best))


def _cell(group: Group, column: Column) -> str:
    """Mean ± standard deviation, with the number of seeds where some lack the value; empty where all do."""
    if column.key not in group.figures.index:
        return ""
    mean, deviation, count = group.figures.loc[column.key]
    text = column.metric.text(mean, math.nan if deviation == 0 and column.key in COST else deviation)
    seeds = len(group.measured)
    return text if count == seeds else f"{text} ({count:.0f} of {seeds})"


def write_csv(path: Path, groups: Sequence[Group]) -> None:
    """Writes a row per group: mean, standard deviation and count of every figure, in full precision."""
    keys = in_order(key for group in groups for key in group.figures.index)
    rows = []
    for group in groups:
        seeds = " ".join(str(run.seed) for run in group.measured)
        row = dict(zip(_FIXED, (group.label, group.model, group.data, len(group.measured), seeds), strict=True))
        for key, mean, deviation, count in group.figures.reindex(keys).itertuples():
            row |= {key: mean, f"{key}/sd": deviation, f"{key}/count": 0 if pd.isna(count) else int(count)}
        rows.append(row)
    pd.DataFrame(rows, columns=None if rows else _FIXED).to_csv(path, index=False)


def markdown_results(table: pd.DataFrame) -> str:
    """Writes a table per section, with the groups that have a value in it."""
    parts = []
    for section in table.columns.unique(0)[1:]:
        rows = table[["", section]].droplevel(0, axis="columns")[(table[section] != "").any(axis="columns")]
        parts.append(f"### {section}\n\n{markdown(rows)}")
    return "\n".join(parts)


def markdown(rows: pd.DataFrame) -> str:
    """Writes a table of texts."""
    return markdown_table(list(rows), rows.to_numpy().tolist())


def shown(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """A CSV file as a table for people: without empty columns, and of an atlas, what matters.

    An atlas that has no networks is of a version of this project that knew one at a time.
    """
    rows = rows.loc[:, (rows != "").any()]
    if name == "atlas.csv" and {"network", "layer"} <= set(rows):
        return _atlas(rows)
    if name == "atlas.csv":
        rows = rows[[key for key in _ATLAS if key in rows]]
    return rows.rename(columns=_title).map(_shortened)


def _atlas(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of an atlas: each figure as mean ± standard deviation, under its title."""
    columns = {"layer": rows["network"] + " " + rows["layer"]}
    measured = numbers(rows)
    for key in measured.select_dtypes("number"):
        if not key.endswith("_sd"):
            metric, sd = metric_of(key), measured.get(f"{key}_sd", pd.Series(math.nan, rows.index))
            texts = [metric.text(*pair) if pair[0] == pair[0] else "" for pair in zip(measured[key], sd, strict=True)]
            columns[metric.heading] = pd.Series(texts, rows.index)
    return pd.DataFrame(columns)


def _title(key: str) -> str:
    metric = METRICS.get(key.removesuffix("_64")) if key.endswith("_64") else None
    return metric.heading if metric else key.replace("_", " ")


def _shortened(text: str) -> str:
    """Writes a number with four digits, and leaves any other text as it is."""
    value = float(pd.to_numeric(text, errors="coerce"))
    if not math.isfinite(value):
        return text
    return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
