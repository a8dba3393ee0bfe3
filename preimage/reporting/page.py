"""One self-contained HTML page of all results: what is on it; `page.html` says how it looks."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from .charts import PALETTE, curve_figures, describe, error_figure, few_label_figure, svg
from .label_errors import COLOURS, errors_of
from .pictures import Comparison, data_uri, kinds_of, load
from .results import best_cells, cell, shown
from .runs import Findings, Group, Run, Table, mean_and_deviation
from .tables import METRICS, PROBES_NOTE, Column, as_number, shortened

_TITLES = {
    "code_plane": "Plane of the code",
    "confusion": "Confusion matrices",
    "labelled": "Reconstructions with labels",
}
_TITLES |= {"samples": "Samples from the prior", "interpolation": "Interpolations", "traversal": "Traversals"}
_WIDTHS = {"latents": 520, "confusion": 520}

Block = tuple[str, Any]  # a macro of the template, and what it shows
Sections = dict[str, list[Block]]


class Cell(NamedTuple):
    """A cell of a table: what it shows, and the value that it is sorted by."""

    text: str
    value: str | float
    style: str = ""
    deviation: str = ""
    colour: str = ""


def colours_of(groups: Sequence[Group]) -> dict[str, str]:
    """A colour for each name, so that a model has the same one on every data set."""
    return dict(zip(dict.fromkeys(group.name for group in groups), cycle(PALETTE), strict=False))


def by_data(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups of each data set."""
    return {data: [group for group in groups if group.data == data] for data in dict.fromkeys(g.data for g in groups)}


def error_figures(findings: Findings) -> list[Figure]:
    """The figures of test error against the number of labels."""
    errors = [errors_of(table.rows) for table in findings.label_efficiency]
    figures = [error_figure({data: lines}, COLOURS) for table in errors for data, lines in table.items()]
    colours = colours_of(findings.groups)
    own = [few_label_figure(groups, colours) for groups in by_data(findings.groups).values()]
    return [*figures, *(figure for figure in own if figure)]


def write_page(
    path: Path, title: str, findings: Findings, columns: Sequence[Column], shared: Sequence[Comparison]
) -> None:
    """Writes the page.

    Args:
        path: The file.
        title: Its heading.
        findings: What was read.
        columns: Columns of the results.
        shared: Reconstructions side by side.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"data_uri": data_uri, "describe": describe, "svg_uri": _svg_uri}
    sections = {heading: blocks for heading, blocks in _sections(findings, columns, shared).items() if blocks}
    page = environment.get_template("page.html")
    path.write_text(page.render(title=title, summary=summary(findings), sections=sections))


def summary(findings: Findings) -> str:
    """Says in one line what there is."""
    data = len({group.data for group in findings.groups})
    counts = [(len(findings.groups), "model"), (len(findings.runs), "run"), (data, "data set")]
    counts += [(len(findings.atlases), "inversion atlas"), (len(findings.label_efficiency), "label-efficiency table")]
    return ", ".join(f"{count} {word}{'s' * (count > 1)}" for count, word in counts if count) + "."


def _svg_uri(figure: Figure) -> str:
    return f"data:image/svg+xml,{quote(svg(figure), safe=' ,;=/')}"  # as an image, its ids are its own


def _sections(findings: Findings, columns: Sequence[Column], shared: Sequence[Comparison]) -> Sections:
    groups, colours = findings.groups, colours_of(findings.groups)
    kinds = ["latents", *(kind for kind in kinds_of(groups) if kind not in ("latents", "reconstructions"))]
    return {
        "Results": list(_results(groups, columns, colours)),
        "Few labels": list(_few_labels(findings)),
        "Reconstructions": [block for comparison in shared for block in _comparison(comparison)],
        "Training curves": list(_curves(groups, colours)),
        **{_title(kind): list(_gallery(groups, kind, colours)) for kind in kinds},
        "Inversion atlas": [block for table in findings.atlases for block in _atlas(table)],
        "Sweeps": [
            block for table in findings.sweeps for block in (("heading", table.path), ("table", _csv_table(table)))
        ],
        "Runs": [("table", _runs(findings.runs))] if findings.runs else [],
    }


def _title(kind: str) -> str:
    if kind == "latents":
        return "Maps of the codes"
    return _TITLES.get(kind, kind.replace("_", " ").capitalize())


def _results(groups: Sequence[Group], columns: Sequence[Column], colours: dict[str, str]) -> Iterator[Block]:
    if not groups:
        return
    several = len({group.data for group in groups}) > 1
    fixed = [("model", "text"), *([("data", "text")] if several else []), ("seeds", "")]
    places = enumerate(columns)
    starts = {column.key for i, column in places if not i or columns[i - 1].section != column.section}
    best = best_cells(groups, columns)
    rows = []
    for group in groups:
        row = [Cell(group.short_label, group.label, colour=colours[group.name])]
        row += [Cell(group.data, group.data, "text")] if several else []
        row.append(Cell(str(len(group.runs)), len(group.runs)))
        for column in columns:
            values = group.samples(column.key)
            mean = mean_and_deviation(values)[0] if values else math.nan
            text, _, deviation = cell(group, column).partition(" ± ")
            style = "section-start " * (column.key in starts) + "best" * ((group.label, column.key) in best)
            row.append(Cell(text, mean if math.isfinite(mean) else "", style.strip(), deviation))
        rows.append(row)
    note = "Mean ± standard deviation over seeds, on the test split. "
    yield "note", f"{note}{PROBES_NOTE} Shaded: the best mean on its data set. Click a heading to sort."
    yield (
        "table",
        {
            "name": "Results of all models",
            "fixed": len(fixed),
            "sections": Counter(column.section for column in columns),
            "head": [
                *fixed,
                *((column.metric.heading, "section-start" * (column.key in starts)) for column in columns),
            ],
            "rows": rows,
        },
    )


def _csv_table(table: Table) -> dict[str, Any]:
    titles, rows = shown(table)
    numeric = [all(not text or as_number(text) is not None for text in column) for column in zip(*rows, strict=True)]
    styles = ["" if place and is_number else "text" for place, is_number in enumerate(numeric)]
    cells = [[Cell(shortened(text), text, style) for text, style in zip(row, styles, strict=True)] for row in rows]
    return {"name": table.path, "head": list(zip(titles, styles, strict=True)), "rows": cells}


def _runs(runs: Sequence[Run]) -> dict[str, Any]:
    rows = []
    for run in runs:
        seed, missing = str(run.seed), ", ".join(run.missing)
        cells = [Cell(str(run.path), str(run.path)), Cell(seed, seed, "text")]
        rows.append([*cells, Cell(str(run.epochs), run.epochs), Cell(missing, missing, "text")])
    return {
        "name": "Runs",
        "head": [(name, "text" * (name != "epochs")) for name in ("run", "seed", "epochs", "missing")],
        "rows": rows,
    }


def _few_labels(findings: Findings) -> Iterator[Block]:
    if figures := error_figures(findings):
        note = "Means over seeds; bands are one standard deviation. "
        yield "note", note + "Linear readers are those of each model's frozen code."
        yield "charts", figures


def _comparison(comparison: Comparison) -> Iterator[Block]:
    rows = [("test image", "", comparison.originals, "Images of the test split")]
    for group, strip in comparison.rows:
        values = group.samples("reconstruction/psnr")
        psnr = f"{METRICS['psnr'].text(mean_and_deviation(values)[0])} dB" if values else ""
        rows.append((group.short_label, psnr, strip, f"The same images rebuilt by {group.short_label}"))
    yield "heading", comparison.data
    yield "strips", rows


def _curves(groups: Sequence[Group], colours: dict[str, str]) -> Iterator[Block]:
    drawn = {data: (same, curve_figures(same, colours)) for data, same in by_data(groups).items()}
    if any(figures for _, figures in drawn.values()):
        yield "note", "Solid: validation; dashed: training. A line per seed. The first epochs may lie beyond the axis."
    for data, (same, figures) in drawn.items():
        if figures:
            yield "heading", data
            yield "legend", {group.short_label: colours[group.name] for group in same}
            yield "charts", figures


def _gallery(groups: Sequence[Group], kind: str, colours: dict[str, str]) -> Iterator[Block]:
    several = len({group.data for group in groups}) > 1
    pictures = []
    for group in groups:
        if image := load(group.picture(kind)):
            caption = f"{group.short_label}, {group.data}" if several else group.label
            pictures.append((image, f"{_TITLES.get(kind, kind)} of {caption}", colours[group.name], caption))
    if pictures:
        yield "gallery", (_WIDTHS.get(kind, 800), 3 if kind in _WIDTHS else 2, pictures)


def _atlas(table: Table) -> Iterator[Block]:
    folder = table.path.parent
    yield "heading", folder.name
    yield "table", _csv_table(table)
    if image := load(folder / "atlas.png"):
        yield "picture", (image, f"Error against depth in {folder.name}, with images rebuilt from each of its layers")
