"""Test error against the number of labels: of methods, of models, and as published."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .charts import colours
from .runs import Group, over_seeds
from .tables import METRICS, markdown_table

_NAMES = {"linear": "linear", "knn": "kNN", "mlp": "MLP", "scratch": "from scratch", "finetune": "fine-tuned"}
_NAMES["semi"] = "fine-tuned, semi-supervised"
COLOURS = colours(_NAMES.values())
#: By data set, test error by number of labels: Kingma et al. 2014 (arXiv 1406.5298), table 1.
PUBLISHED = {
    "mnist": {
        "M1+TSVM, Kingma et al.": {100: 0.1182, 600: 0.0572, 1000: 0.0424, 3000: 0.0349},
        "M1+M2, Kingma et al.": {100: 0.0333, 600: 0.0259, 1000: 0.0240, 3000: 0.0218},
    }
}
_BY = ["data", "line", "labels"]


def errors_of(rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Test errors over the seeds, with the published ones.

    Args:
        rows: Rows with `data`, `labels`, `method` and `accuracy`; those that lack one are left out.

    Returns:
        `mean`, `sd` and `count` by data set, name of the line and number of labels.
    """
    errors = pd.DataFrame(rows).reindex(columns=["data", "labels", "method", "accuracy"])
    errors["labels"] = pd.to_numeric(errors["labels"], errors="coerce")
    errors["value"] = 1 - pd.to_numeric(errors["accuracy"], errors="coerce")
    errors["line"] = errors["method"].map(_NAMES)
    errors = errors.replace([np.inf, -np.inf, ""], np.nan).dropna()
    errors = errors[errors["labels"] > 0].astype({"labels": int})
    order = list(_NAMES.values())
    errors = errors.sort_values("line", key=lambda names: names.map(order.index), kind="stable")
    published = [
        (data, line, count, error)
        for data in errors["data"].unique()
        for line, points in PUBLISHED.get(data, {}).items()
        for count, error in points.items()
    ]
    known = pd.DataFrame(published, columns=[*_BY, "value"]).astype({"labels": int, "value": float})
    errors = pd.concat([errors, known])
    return over_seeds(errors.sort_values("data", ascending=False, kind="stable"), _BY)


def errors_of_groups(groups: Sequence[Group]) -> pd.DataFrame:
    """The same of linear probes of each model's code, as evaluations have it."""
    errors = [
        (f"{group.data}, linear probes", group.short_label, int(key.split("/")[2]), 1 - value)
        for group in groups
        for values in group.values
        for key, value in values.items()
        if re.fullmatch("reading/few_labels/[1-9][0-9]{0,8}/accuracy", key)
    ]
    return over_seeds(pd.DataFrame(errors, columns=[*_BY, "value"]), _BY)


def error_table(errors: pd.DataFrame) -> str:
    """Lays out Markdown tables, mean and standard deviation over the seeds."""
    tables = []
    for data, lines in errors.groupby("data", sort=False):
        texts = lines.apply(lambda point: METRICS["error"].text(point["mean"], point["sd"]), axis=1)
        table = texts.droplevel("data").unstack("labels", fill_value="", sort=False).sort_index(axis=1)
        rows = [[str(line), *cells] for line, *cells in table.itertuples()]
        tables.append(markdown_table([f"error, %, on {data}", *map(str, table.columns)], rows))
    return "\n".join(tables)
