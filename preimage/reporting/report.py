"""Tables, charts and pictures of finished runs, from their directories alone."""

import re
from collections.abc import Sequence
from functools import partial
from os.path import relpath
from pathlib import Path
from urllib.parse import quote

from preimage.files import write_atomically, write_text

from .atlas import SHOWN, figures
from .charts import describe, rate_figures, svg
from .label_errors import error_table, errors_of
from .page import Drawings, error_figures, write_page
from .pictures import Comparison, compare, drawn
from .plane import hoverable_svg, numbers
from .results import markdown, markdown_results, results, shown, write_csv
from .runs import Findings, read_findings
from .tables import notes_on, plain

_MARKERS = re.compile(r"^(<!-- report:begin -->\r?\n)(.*?)^(<!-- report:end -->)", re.DOTALL | re.MULTILINE)


def write_report(folders: Sequence[Path], out: Path, title: str, readme: Path | None = None) -> None:
    """Writes `report.md`, `results.csv`, `index.html`, and the pictures that the Markdown shows.

    Args:
        folders: Run directories, or folders above them.
        out: Folder of the report.
        title: Heading of the page.
        readme: A Markdown file with markers between which the results are put.
    """
    around = _around_markers(readme) if readme else None  # a missing marker ends it before anything is written
    findings = read_findings(folders)
    comparisons = compare(findings.groups)
    drawings = _draw_atlases(findings)
    pictures = _write_pictures(out / "images", findings, comparisons, drawings)
    body = partial(_body, findings, pictures)
    write_atomically(out / "results.csv", lambda path: write_csv(path, findings.measured))
    write_atomically(out / "index.html", lambda path: write_page(path, title, findings, comparisons, drawings))
    write_text(out / "report.md", f"# {plain(title)}\n\n{body(out)}{_incomplete(findings)}")
    if readme and around:
        text = f"{around[0]}\n{body(readme.parent)}\n{around[1]}"
        write_atomically(readme, lambda path: path.write_bytes(text.encode()))
    for path, lacking in findings.lacking.items():
        print(f"{path}: {lacking}")
    if findings.unfinished:
        print(findings.without_results)
    print(*(out / name for name in ("report.md", "results.csv", "index.html")), sep="\n")


def draw_rates(folder: Path) -> None:
    """Writes error against bits of the runs below a folder, as `rate.svg` and `rate.png`, where there are several."""
    for figure in rate_figures(read_findings([folder]).groups)[:1]:  # a sweep has one data set
        write_text(folder / "rate.svg", svg(figure))
        write_atomically(folder / "rate.png", partial(figure.savefig, dpi=150))
        print(folder / "rate.png")


def _around_markers(readme: Path) -> tuple[str, str]:
    """What comes before and after the place of the results, with the markers."""
    text = readme.read_bytes().decode()
    found = _MARKERS.search(text)
    if found is None:
        lines = "<!-- report:begin --> and, below it, <!-- report:end -->"
        raise ValueError(f"{readme} has no markers: add the lines {lines} where the results belong")
    return text[: found.end(1)], text[found.start(3) :]


def _draw_atlases(findings: Findings) -> Drawings:
    drawings: Drawings = {}
    for path, rows in findings.tables_named("atlas.csv").items():
        if {"network", "layer"} <= set(rows):
            measured = numbers(rows)
            try:
                of = figures(path.parent, measured)
            except (OSError, ValueError) as error:
                findings.lacking[path.parent / "cka.csv"] = f"cannot be read: {error}"
            else:
                drawings[path] = {name: hoverable_svg(figure, measured) for name, figure in of.items()}
    return drawings


def _write_pictures(
    folder: Path, findings: Findings, comparisons: Sequence[Comparison], drawings: Drawings
) -> dict[Path, str]:
    """Writes the pictures that Markdown shows, and returns what each shows."""
    pictures = {}
    for i, comparison in enumerate(comparisons):
        path = folder / f"reconstructions_{i}.png"
        write_atomically(path, partial(drawn(comparison).save, optimize=True))
        pictures[path] = f"Test images of {comparison.data}, and what each model rebuilds of them"
    charts = {"few_labels": error_figures(findings), "rate": rate_figures(findings.groups)}
    for name, some in charts.items():
        for i, figure in enumerate(some):
            path = folder / f"{name}_{i}.svg"
            write_text(path, svg(figure))
            pictures[path] = describe(figure)
    for i, (atlas, svgs) in enumerate(drawings.items()):
        for name, text in svgs.items():
            path = folder / f"atlas_{i}_{name}.svg"
            write_text(path, text)
            pictures[path] = f"{SHOWN[name]} ({atlas.parent.name})"
    return pictures


def _body(findings: Findings, pictures: dict[Path, str], base: Path) -> str:
    """The results in Markdown, for a file in the folder `base`."""
    told = notes_on(key for group in findings.measured for key in group.figures.index)
    note = f"Mean ± standard deviation over seeds, on the test split. {told}".strip()
    parts = [note, markdown_results(results(findings.measured)[0]) if findings.measured else ""]
    errors = [error_table(errors_of(rows)) for rows in findings.tables_named("label_efficiency.csv").values()]
    parts += [f"### Label efficiency\n\n{text}" for text in errors]
    parts += [f"![{plain(text)}]({quote(relpath(path, base))})" for path, text in pictures.items()]
    parts += [
        f"### {plain(path.parent.name)}\n\n{markdown(shown(path.name, rows))}"
        for name in ("atlas.csv", "sweep.csv")
        for path, rows in findings.tables_named(name).items()
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _incomplete(findings: Findings) -> str:
    lines = [f"- {plain(f'{path}: {lacking}')}\n" for path, lacking in findings.lacking.items()]
    text = f"\n### Runs that lack something\n\n{''.join(lines)}" if lines else ""
    return text + (f"\n{plain(findings.without_results)}\n" if findings.unfinished else "")
