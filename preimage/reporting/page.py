"""One self-contained HTML page of all results: what is on it; `page.html` says how it looks."""

import re
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from preimage.runs import Run

from . import charts
from .atlas import SHOWN
from .label_errors import COLOURS, errors_of, errors_of_groups
from .pictures import Comparison, data_uri, kinds_of, load, newest
from .results import results, shown
from .runs import Findings, Group
from .tables import METRICS, notes_on

_TITLES = {
    "latents": "Maps of the codes",
    "code_plane": "Plane of the code",
    "confusion": "Confusion matrices",
    "labelled": "Reconstructions with labels",
    "samples": "Samples from the prior",
    "interpolation": "Interpolations",
    "traversal": "Traversals",
}
_LARGEST = 2400  # pixels across a picture, which is shown smaller until it is opened
#: SVGs of the figures of an atlas, by its table and the names of their files.
Drawings = dict[Path, dict[str, str]]


def error_figures(findings: Findings) -> list[Figure]:
    """The figures of test error against the number of labels."""
    tables = [(errors_of(rows), COLOURS) for rows in findings.tables_named("label_efficiency.csv").values()]
    tables.append((errors_of_groups(findings.groups), colours_of(findings.groups)))
    return [charts.error_figure(lines, of) for errors, of in tables for _, lines in errors.groupby("data", sort=False)]


def colours_of(groups: Sequence[Group]) -> dict[str, str]:
    """A colour for each model, which is the same on every data set."""
    return charts.colours(group.short_label for group in groups)


def write_page(
    path: Path, title: str, findings: Findings, comparisons: Sequence[Comparison], drawings: Drawings
) -> None:
    """Writes the page with a title, what was read, reconstructions side by side, and the figures of atlases."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"data_uri": data_uri, "svg_uri": _svg_uri, "describe": charts.describe, "psnr": _psnr}
    environment.filters |= {"head_of": _head_of, "by_section": _by_section}
    page = environment.get_template("page.html").render(
        title=title,
        summary=_summary(findings),
        sections=_sections(findings, comparisons, drawings),
        probes_note=notes_on(key for group in findings.measured for key in group.figures.index),
        colours=colours_of(findings.groups),
        largest=_LARGEST,
        several=len({group.data for group in findings.groups}) > 1,
    )
    path.write_text(page)


def _summary(findings: Findings) -> str:
    groups = findings.measured
    counts = {"model": len(groups), "run": sum(len(group.measured) for group in groups)}
    counts |= {"data set": len({group.data for group in groups})}
    counts |= {"inversion atlas": len(findings.tables_named("atlas.csv"))}
    counts |= {"label-efficiency table": len(findings.tables_named("label_efficiency.csv"))}
    told = ", ".join(
        f"{count} {word}{('es' if word.endswith('s') else 's') * (count > 1)}"
        for word, count in counts.items()
        if count
    )
    return f"{told or 'No results'}. {findings.without_results}".strip()


def _sections(findings: Findings, comparisons: Sequence[Comparison], drawings: Drawings) -> dict[str, tuple[str, Any]]:
    """The sections that show something: a macro of the template, and that."""
    groups, colours = findings.groups, colours_of(findings.groups)
    curves = []
    for data in dict.fromkeys(group.data for group in groups):
        same = [group for group in groups if group.data == data]
        if figures := charts.curve_figures(same, colours):
            curves.append((data, same, figures))
    galleries = {}
    for kind in dict.fromkeys(["latents", *kinds_of(groups)]):
        macro = "small_gallery" if kind in ("latents", "confusion") else "gallery"
        pictures = [(group, image) for group in groups if (image := newest(group, kind))]
        galleries[_TITLES.get(kind, kind.replace("_", " ").capitalize())] = (macro, pictures)
    atlases = [
        (path.parent.name, shown(path.name, rows), _inline(drawings.get(path, {}), i), _picture(path))
        for i, (path, rows) in enumerate(findings.tables_named("atlas.csv").items())
    ]
    sweeps: list[Any] = [
        (path, shown(path.name, rows), [], None) for path, rows in findings.tables_named("sweep.csv").items()
    ]
    runs = [
        (str(run.folder), str(run.seed), str(_epochs(run)), findings.lacking.get(run.folder, ""))
        for run in findings.runs
    ]
    sections: dict[str, tuple[str, Any]] = {
        "Results": ("results", results(findings.measured) if findings.measured else ()),
        "Few labels": ("few_labels", error_figures(findings)),
        "Error against bits": ("rates", charts.rate_figures(groups)),
        "Reconstructions": ("reconstructions", comparisons),
        "Training curves": ("curves", curves),
        **galleries,
        "Inversion atlas": ("tables", atlases),
        "Sweeps": ("tables", sweeps),
        "Runs": ("table", pd.DataFrame(runs, columns=["run", "seed", "epochs", "missing"])),
    }
    return {title: section for title, section in sections.items() if len(section[1])}


def _picture(path: Path) -> tuple[Image.Image, str] | None:
    """The strips of an atlas, or its one figure in versions that knew one network at a time; and what is on it."""
    old = f"Error against depth in {path.parent.name}, with images rebuilt from each of its layers"
    for name, text in (("strips.png", f"{SHOWN['strips']} in {path.parent.name}"), ("atlas.png", old)):
        if image := load(path.with_name(name)):
            return image, text
    return None


def _inline(drawn: dict[str, str], number: int) -> list[tuple[str, str]]:
    """What SVGs show, and they as elements of the page, on which every id is there once."""
    parts = []
    for name, text in drawn.items():
        text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text[text.index("<svg") :])
        text = re.sub(r'( id="|url\(#|href="#)', rf"\1{name}-{number}-", text)
        parts.append((SHOWN[name], text))
    return parts


def _epochs(run: Run) -> int:
    """How many epochs have a row of metrics."""
    return len({row["epoch"] for row in run.logged() if "epoch" in row and any("train/" in key for key in row)})


def _head_of(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Section and title of columns, and how they are set: to the right where all is numbers."""
    head: list[tuple[str, str, str]] = []
    for column, texts in rows.items():
        section, title = column if isinstance(column, tuple) else ("", column)
        numbers = pd.to_numeric(texts[texts != ""].str.split().str[0].str.replace(",", ""), errors="coerce")
        style = (
            "section-start"
            if section != (head[-1][0] if head else "")
            else "text"
            if numbers.isna().any() or not head
            else ""
        )
        head.append((section, title, style))
    return head


def _by_section(head: list[tuple[str, str, str]]) -> list[list[tuple[str, str, str]]]:
    return [list(same) for _, same in groupby(head, itemgetter(0))]


def _psnr(group: Group) -> str:
    """Mean PSNR of the reconstructions, if there is one."""
    means = group.figures["mean"]
    return METRICS["psnr"].text(means["reconstruction/psnr"]) if "reconstruction/psnr" in means else ""


def _svg_uri(figure: Figure) -> str:
    return f"data:image/svg+xml,{quote(charts.svg(figure), safe=' ,;=/')}"  # as an image, its ids are its own
