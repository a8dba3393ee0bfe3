"""Tables, charts and pictures of finished runs, from their directories alone."""

import re
from collections.abc import Sequence
from functools import partial
from os.path import relpath
from pathlib import Path
from urllib.parse import quote

from preimage.files import write_atomically, write_text
from preimage.reporting.charts import describe, svg
from preimage.reporting.label_errors import error_table, errors_of
from preimage.reporting.page import error_figures, write_page
from preimage.reporting.pictures import Comparison, compare, drawn
from preimage.reporting.results import markdown_results, shown, write_csv
from preimage.reporting.runs import Findings, Table, read_findings
from preimage.reporting.tables import PROBES_NOTE, Column, columns_of, markdown_table, plain, shortened

MARKERS = re.compile(r"^(<!-- report:begin -->\r?\n)(.*?)^(<!-- report:end -->)", re.DOTALL | re.MULTILINE)


def write_report(folders: Sequence[Path], out: Path, title: str, readme: Path | None = None) -> None:
    """Writes `report.md`, `results.csv`, `index.html`, and the pictures that the Markdown shows.

    Args:
        folders: Run directories, or folders above them.
        out: Folder of the report.
        title: Heading of the page.
        readme: A Markdown file with markers between which the results are put.
    """
    marked = _split(readme) if readme is not None else None  # a missing marker ends it before anything is written
    findings = read_findings(folders)
    columns = _columns(findings)
    comparisons = compare(findings.groups)
    pictures = _write_pictures(out / "images", findings, comparisons)
    write_atomically(out / "results.csv", lambda path: write_csv(path, findings.groups))
    write_atomically(out / "index.html", lambda path: write_page(path, title, findings, columns, comparisons))
    text = f"# {plain(title)}\n\n{_body(findings, pictures, out)}{_incomplete(findings)}"
    write_text(out / "report.md", text)
    if readme is not None and marked is not None:
        before, after = marked
        body = _body(findings, pictures, readme.parent)
        write_atomically(readme, lambda path: path.write_bytes(f"{before}\n{body}\n{after}".encode()))
    for run in findings.runs:
        if run.missing:
            print(f"{run.path}: {', '.join(run.missing)}")
    for path in findings.unread:
        print(f"{path}: cannot be read")
    print(*(out / name for name in ("report.md", "results.csv", "index.html")), sep="\n")


def _columns(findings: Findings) -> list[Column]:
    return columns_of(key for group in findings.groups for run in group.runs for key in run.values)


def _split(readme: Path) -> tuple[str, str]:
    """What comes before and after the place of the results, with the markers."""
    text = readme.read_bytes().decode()
    found = MARKERS.search(text)
    if found is None:
        lines = "<!-- report:begin --> and, below it, <!-- report:end -->"
        raise ValueError(f"{readme} has no markers: add the lines {lines} where the results belong")
    return text[: found.end(1)], text[found.start(3) :]


def _write_pictures(folder: Path, findings: Findings, comparisons: Sequence[Comparison]) -> dict[Path, str]:
    """Writes the pictures that Markdown shows, and returns what each shows."""
    pictures = {}
    for place, comparison in enumerate(comparisons):
        path = folder / f"reconstructions_{place}.png"
        write_atomically(path, partial(drawn(comparison).save, optimize=True))
        pictures[path] = f"Test images of {comparison.data}, and what each model rebuilds of them"
    for place, figure in enumerate(error_figures(findings)):
        path = folder / f"few_labels_{place}.svg"
        write_text(path, svg(figure))
        pictures[path] = describe(figure)
    return pictures


def _body(findings: Findings, pictures: dict[Path, str], base: Path) -> str:
    """The results in Markdown, for a file in the folder `base`."""
    note = f"Mean ± standard deviation over seeds, on the test split. {PROBES_NOTE}"
    parts = [note, markdown_results(findings.groups, _columns(findings))]
    tables = [error_table(errors_of(table.rows)) for table in findings.label_efficiency]
    parts += [f"### Label efficiency\n\n{text}" for text in tables]
    parts += [f"![{plain(text)}]({quote(relpath(path, base))})" for path, text in pictures.items()]
    parts += [_table(table) for table in (*findings.atlases, *findings.sweeps)]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _table(table: Table) -> str:
    titles, rows = shown(table)
    cells = [[shortened(text) for text in row] for row in rows]
    return f"### {plain(table.path.parent.name)}\n\n{markdown_table(titles, cells)}"


def _incomplete(findings: Findings) -> str:
    lines = [f"- {plain(str(run.path))}: {plain(', '.join(run.missing))}\n" for run in findings.runs if run.missing]
    lines += [f"- {plain(str(path))}: cannot be read\n" for path in findings.unread]
    return f"\n### Runs that lack something\n\n{''.join(lines)}" if lines else ""
