"""One self-contained HTML page of all results."""

import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import cycle
from pathlib import Path
from string import Template
from urllib.parse import quote

from matplotlib.figure import Figure
from PIL import Image

from .charts import PALETTE, curve_figures, describe, error_figure, few_label_figure, svg
from .label_errors import COLOURS, errors_of
from .pictures import Comparison, data_uri, kinds_of, load
from .runs import Findings, Group, Run, Table, mean_and_deviation
from .tables import Column, as_number, best_cells, cell, number, shortened, shown

HERE = Path(__file__).parent
_TITLES = {
    "code_plane": "Plane of the code",
    "confusion": "Confusion matrices",
    "labelled": "Reconstructions with labels",
}
_TITLES |= {"samples": "Samples from the prior", "interpolation": "Interpolations", "traversal": "Traversals"}
_WIDTHS = {"latents": 520, "confusion": 520}


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
    groups, colours = findings.groups, colours_of(findings.groups)
    parts = {
        "Results": _results(groups, columns, colours),
        "Few labels": _few_labels(findings),
        "Reconstructions": "".join(map(_comparison, shared)),
        "Training curves": _curves(groups, colours),
        "Maps of the codes": _gallery(groups, "latents", colours),
        **{
            _TITLES.get(kind, kind.replace("_", " ").capitalize()): _gallery(groups, kind, colours)
            for kind in kinds_of(groups)
            if kind not in ("latents", "reconstructions")
        },
        "Inversion atlas": "".join(map(_atlas, findings.atlases)),
        "Sweeps": "".join(f"<h3>{escape(str(table.path))}</h3>{_csv_table(table)}" for table in findings.sweeps),
        "Runs": _runs(findings.runs) if findings.runs else "",
    }
    kept = {heading: text for heading, text in parts.items() if text}
    ids = {heading: f"section-{place}" for place, heading in enumerate(kept)}
    page = Template((HERE / "page.html").read_text()).substitute(
        title=escape(title),
        summary=escape(summary(findings)),
        links="".join(f'<a href="#{ids[heading]}">{escape(heading)}</a>' for heading in kept),
        sections="\n".join(
            f'<section aria-labelledby="{ids[heading]}"><h2 id="{ids[heading]}">{escape(heading)}</h2>{text}</section>'
            for heading, text in kept.items()
        ),
    )
    path.write_text(page)


def summary(findings: Findings) -> str:
    """Says in one line what there is."""
    data = len({group.data for group in findings.groups})
    counts = [(len(findings.groups), "model"), (len(findings.runs), "run"), (data, "data set")]
    counts += [(len(findings.atlases), "inversion atlas"), (len(findings.label_efficiency), "label-efficiency table")]
    return ", ".join(f"{count} {word}{'s' * (count > 1)}" for count, word in counts if count) + "."


def _results(groups: Sequence[Group], columns: Sequence[Column], colours: dict[str, str]) -> str:
    if not groups:
        return ""
    several = len({group.data for group in groups}) > 1
    fixed = [("model", "text"), *([("data", "text")] if several else []), ("seeds", "")]
    starts = {
        column.key for place, column in enumerate(columns) if not place or columns[place - 1].section != column.section
    }
    widths = Counter(column.section for column in columns)
    sections = "".join(
        f'<th colspan="{width}" scope="colgroup" class="section-start">{escape(section)}</th>'
        for section, width in widths.items()
    )
    head = [_header(name, place, style) for place, (name, style) in enumerate(fixed)]
    for place, column in enumerate(columns, start=len(fixed)):
        head.append(_header(column.title, place, "section-start" if column.key in starts else ""))
    best = best_cells(groups, columns)
    body = []
    for group in groups:
        text = escape(group.short_label).replace("_", "_<wbr>")
        name = f'<span class="named">{_key(colours[group.name])}<span>{text}</span></span>'
        cells = [f'<th scope="row" data-value="{escape(group.label)}">{name}</th>']
        if several:
            cells.append(f'<td class="text" data-value="{escape(group.data)}">{escape(group.data)}</td>')
        cells.append(f'<td data-value="{len(group.runs)}">{len(group.runs)}</td>')
        for column in columns:
            styles = "section-start " * (column.key in starts) + "best" * ((group.label, column.key) in best)
            cells.append(_figure_cell(group, column, styles.strip()))
        body.append(f"<tr>{''.join(cells)}</tr>")
    top = f'<tr class="sections"><td></td><td colspan="{len(fixed) - 1}"></td>{sections}</tr>' if columns else ""
    note = "Mean ± standard deviation over seeds, on the test split. "
    note += "Shaded: the best mean on its data set. Click a heading to sort."
    return f'<p class="note">{note}</p>' + _table("Results of all models", f"{top}<tr>{''.join(head)}</tr>", body)


def _figure_cell(group: Group, column: Column, styles: str) -> str:
    values = group.samples(column.key)
    mean = mean_and_deviation(values)[0] if values else math.nan
    value = repr(mean) if math.isfinite(mean) else ""
    text, _, deviation = cell(group, column).partition(" ± ")
    rest = f' <span class="sd">± {escape(deviation)}</span>' if deviation else ""
    return f'<td class="{styles}" data-value="{value}">{escape(text)}{rest}</td>'


def _header(title: str, place: int, styles: str) -> str:
    button = f'<button type="button">{escape(title)}</button>'
    return f'<th scope="col" aria-sort="none" data-column="{place}" class="{styles}">{button}</th>'


def _table(name: str, head: str, body: Sequence[str]) -> str:
    table = f'<table class="sortable"><thead>{head}</thead><tbody>{"".join(body)}</tbody></table>'
    return f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">{table}</div>'


def _csv_table(table: Table) -> str:
    titles, rows = shown(table)
    numeric = [all(not text or as_number(text) is not None for text in column) for column in zip(*rows, strict=True)]
    styles = ["" if place and is_number else "text" for place, is_number in enumerate(numeric)]
    head = [_header(title, place, styles[place]) for place, title in enumerate(titles)]
    body = []
    for row in rows:
        cells = [
            f'<td class="{style}" data-value="{escape(text)}">{escape(shortened(text))}</td>'
            for style, text in zip(styles, row, strict=True)
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    return _table(str(table.path), f"<tr>{''.join(head)}</tr>", body)


def _key(colour: str) -> str:
    return f'<span class="key" style="background: {colour}"></span>'


def _chart(figure: Figure) -> str:
    uri = f"data:image/svg+xml,{quote(svg(figure), safe=' ,;=/')}"  # as an image, its ids are its own
    return f'<figure><img class="chart" alt="{escape(describe(figure))}" src="{uri}"></figure>'


def _few_labels(findings: Findings) -> str:
    charts = "".join(map(_chart, error_figures(findings)))
    if not charts:
        return ""
    note = "Means over seeds; bands are one standard deviation. "
    note += "Linear readers are those of each model's frozen code."
    return f'<p class="note">{note}</p><div class="grid-2">{charts}</div>'


def _comparison(comparison: Comparison) -> str:
    rows = [("test image", "", comparison.originals, "Images of the test split")]
    for group, strip in comparison.rows:
        values = group.samples("reconstruction/psnr")
        psnr = f"{number('psnr', mean_and_deviation(values)[0])} dB" if values else ""
        rows.append((group.short_label, psnr, strip, f"The same images rebuilt by {group.short_label}"))
    text = ""
    for place, (name, small, strip, alt) in enumerate(rows):
        detail = f"<small>{escape(small)}</small>" if small else ""
        text += f'<div class="name{" of" * (not place)}">{escape(name)}{detail}</div>'
        text += _image(strip, strip.width, alt)
    return f'<h3>{escape(comparison.data)}</h3><figure class="strips">{text}</figure>'


def _curves(groups: Sequence[Group], colours: dict[str, str]) -> str:
    parts = []
    for data, same in by_data(groups).items():
        if charts := "".join(map(_chart, curve_figures(same, colours))):
            labels = {group.short_label: colours[group.name] for group in same}
            legend = "".join(f"<li>{_key(colour)}{escape(label)}</li>" for label, colour in labels.items())
            parts.append(f'<h3>{escape(data)}</h3><ul class="legend">{legend}</ul><div class="grid-2">{charts}</div>')
    note = "Solid: validation; dashed: training. A line per seed. The first epochs may lie beyond the axis."
    return f'<p class="note">{note}</p>' + "".join(parts) if parts else ""


def _image(image: Image.Image, width: int, alt: str) -> str:
    width = min(width, image.width)
    height = round(image.height * width / image.width)
    return f'<img alt="{escape(alt)}" src="{data_uri(image, width)}" width="{width}" height="{height}">'


def _gallery(groups: Sequence[Group], kind: str, colours: dict[str, str]) -> str:
    several = len({group.data for group in groups}) > 1
    figures = []
    for group in groups:
        image = load(group.picture(kind))
        if image is None:
            continue
        caption = f"{group.short_label}, {group.data}" if several else group.label
        alt = f"{_TITLES.get(kind, kind)} of {caption}"
        figures.append(
            f"<figure>{_image(image, _WIDTHS.get(kind, 800), alt)}"
            f"<figcaption>{_key(colours[group.name])}{escape(caption)}</figcaption></figure>"
        )
    return f'<div class="grid-{3 if kind in _WIDTHS else 2}">{"".join(figures)}</div>' if figures else ""


def _atlas(table: Table) -> str:
    folder = table.path.parent
    image = load(folder / "atlas.png" if (folder / "atlas.png").is_file() else None)
    text = f"<h3>{escape(folder.name)}</h3>{_csv_table(table)}"
    if image is None:
        return text
    alt = f"Error against depth in {folder.name}, with images rebuilt from each of its layers"
    return f'{text}<figure class="below">{_image(image, 1000, alt)}</figure>'


def _runs(runs: Sequence[Run]) -> str:
    head = [
        _header(name, place, "text" * (name != "epochs"))
        for place, name in enumerate(("run", "seed", "epochs", "missing"))
    ]
    body = []
    for run in runs:
        missing = ", ".join(run.missing)
        cells = [f'<th scope="row" data-value="{escape(str(run.path))}">{escape(str(run.path))}</th>']
        cells.append(f'<td class="text" data-value="{escape(str(run.seed))}">{escape(str(run.seed))}</td>')
        cells.append(f'<td data-value="{run.epochs}">{run.epochs}</td>')
        cells.append(f'<td class="text" data-value="{escape(missing)}">{escape(missing)}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    return _table("Runs", f"<tr>{''.join(head)}</tr>", body)
