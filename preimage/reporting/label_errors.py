"""Test error against the number of labels: the table and the figure of a `label_efficiency.csv`."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from .charts import PALETTE
from .runs import mean_and_deviation
from .tables import METRICS, as_number, markdown_table

#: Test errors in percent over the seeds, by data set, method and number of labels.
Errors = dict[str, dict[str, dict[int, list[float]]]]

NAMES = {"linear": "linear", "knn": "kNN", "mlp": "MLP", "scratch": "from scratch", "finetune": "fine-tuned"}
NAMES["semi"] = "fine-tuned, semi-supervised"
COLOURS = dict(zip(NAMES.values(), PALETTE, strict=False))
#: By data set, test error in percent by number of labels: Kingma et al. 2014 (arXiv 1406.5298), table 1.
PUBLISHED = {
    "mnist": {
        "M1+TSVM, Kingma et al.": {100: 11.82, 600: 5.72, 1000: 4.24, 3000: 3.49},
        "M1+M2, Kingma et al.": {100: 3.33, 600: 2.59, 1000: 2.40, 3000: 2.18},
    }
}


def errors_of(rows: Iterable[Mapping[str, Any]]) -> Errors:
    """Collects the test errors over the seeds, and adds the published ones.

    Args:
        rows: Rows with `data`, `labels`, `method` and `accuracy`; those that lack one are left out.
    """
    found: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        labels, accuracy = (as_number(str(row.get(key, ""))) for key in ("labels", "accuracy"))
        if labels and labels > 0 and accuracy is not None and row.get("data"):
            found[row["data"], row.get("method", "")][int(labels)].append(100 * (1 - accuracy))
    errors: Errors = {}
    for data in sorted({data for data, method in found if method in NAMES}, reverse=True):
        errors[data] = {NAMES[method]: found[data, method] for method in NAMES if (data, method) in found}
        for name, points in PUBLISHED.get(data, {}).items():
            errors[data][name] = {count: [error] for count, error in points.items()}
    return errors


def error_table(errors: Errors) -> str:
    """Lays out Markdown tables, mean and standard deviation over the seeds."""
    tables = []
    for data, lines in errors.items():
        counts = sorted({count for points in lines.values() for count in points})
        rows = [[name, *(_cell(points.get(count, [])) for count in counts)] for name, points in lines.items()]
        tables.append(markdown_table([f"error, %, on {data}", *map(str, counts)], rows))
    return "\n".join(tables)


def _cell(errors: list[float]) -> str:
    if not errors:
        return ""
    mean, deviation = mean_and_deviation(errors)
    write = METRICS["accuracy"].text
    return f"{write(mean / 100)}" + (f" ± {write(deviation / 100)}" if deviation is not None else "")
