"""The pictures of an atlas, drawn from its files alone, for its folder, the report and W&B."""

import textwrap
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from preimage.files import write_atomically, write_text
from preimage.fonts import choose_fonts, drawable

from .charts import STYLE
from .depth import depth_figure
from .plane import ERROR, READ, hoverable_svg, numbers, paths, plane_figure

#: What the figures of an atlas show, by the name of their file.
SHOWN = {
    "plane": "Linear accuracy against error of the reconstruction, a path per network from the image inwards",
    "depth": "What is measured of the layers, against their depth",
    "cka": "Linear CKA between the codes of all layers",
    "strips": "Images rebuilt from the layers",
}
_TEXTS = 12  # layers of a matrix of which the numbers are written, at most
_GAP = 3  # pixels between images


def read_rows(folder: Path) -> pd.DataFrame:
    """The rows of an atlas, with numbers for its figures.

    Raises:
        ValueError: There is none, or it is damaged.
    """
    path = folder / "atlas.csv"
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}; `preimage atlas --out {folder}` writes it") from error
    if not {"network", "layer"} <= set(rows):
        raise ValueError(f"{path} has no column network or layer: measure the atlas anew, with another --out")
    return numbers(rows)


def figures(folder: Path, rows: pd.DataFrame) -> dict[str, Figure]:
    """Plane, curves and matrix by the name of their file: those that are measured.

    Args:
        folder: Folder of the atlas, for its `cka.csv`.
        rows: The rows of the atlas, as `read_rows` gives them.
    """
    drawn = {"plane": plane_figure(rows), "depth": depth_figure(rows)}
    if (folder / "cka.csv").is_file():
        cka = pd.read_csv(folder / "cka.csv", index_col=0).apply(pd.to_numeric, errors="coerce")
        drawn["cka"] = cka_figure(cka, rows) if len(cka) else None
    return {name: figure for name, figure in drawn.items() if figure}


def draw(folder: Path) -> list[Path]:
    """Draws an atlas into its folder: `plane`, `depth` and `cka`, each as PNG and SVG, and `strips.png`.

    Returns:
        The PNG files; what is not measured is left out.
    """
    rows = read_rows(folder)
    drawn = figures(folder, rows)
    for name, figure in drawn.items():
        write_text(folder / f"{name}.svg", hoverable_svg(figure, rows))
    if (folder / "strips.npz").is_file():
        with np.load(folder / "strips.npz") as strips:
            drawn["strips"] = strips_figure(dict(strips), rows)
    for name, figure in drawn.items():
        write_atomically(folder / f"{name}.png", partial(figure.savefig, dpi=120))
    return [folder / f"{name}.png" for name in drawn]


def log_atlas(folder: Path, project: str) -> None:
    """Logs an atlas to W&B: its table, its pictures, and the plane as a chart; without an account, on this machine.

    Args:
        folder: Folder of the atlas, in which `draw` has drawn; W&B's files go there, too.
        project: W&B's project.
    """
    from preimage.loggers import WandbRunLogger  # takes seconds

    rows = read_rows(folder)
    logger = WandbRunLogger(project=project, name=folder.name, job_type="atlas", save_dir=str(folder))
    networks = {str(name): list(layers) for name, layers in rows.groupby("network", sort=False)["layer"]}
    logger.log_config(yaml.safe_dump({"atlas": networks}, sort_keys=False))
    cells = rows.astype(object).where(rows.notna(), None)
    logger.log_table("atlas/table", list(rows), cells.to_numpy().tolist())
    lines = {name: list(zip(path[ERROR], path[READ], strict=True)) for name, path in paths(rows).items()}
    if lines:
        logger.log_lines("atlas/plane_chart", "Linear accuracy against error of the reconstruction", lines, ERROR)
    for path in (folder / f"{name}.png" for name in SHOWN):
        if path.is_file():
            with Image.open(path) as image:
                logger.log_picture(f"atlas/{path.stem}", np.asarray(image.convert("RGB")), 0)
    logger.close(0)


@rc_context(STYLE | {"axes.grid": False})
def cka_figure(cka: pd.DataFrame, rows: pd.DataFrame) -> Figure:
    """Shows how alike the codes of layers are, network by network.

    Args:
        cka: Linear CKA in [0, 1], by "network layer" in rows and columns.
        rows: The rows of the atlas, which say what of such a name is the network.
    """
    places = _places(rows)
    network, layer = zip(*(places.get(str(name), ("", str(name))) for name in cka.index), strict=True)
    cells, letters = 0.45 * len(cka), 0.08 * max(map(len, layer))  # inches
    width = cells + letters + 0.08 * max(map(len, network)) + 1.7
    figure = Figure(figsize=(width, cells + 0.7 * letters + 1), layout="compressed")
    axes = figure.subplots()
    image = axes.imshow(cka, vmin=0, vmax=1)
    axes.spines[:].set_visible(False)
    axes.set_title("Linear CKA of codes", loc="left")
    axes.set_xticks(range(len(cka)), layer, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(cka)), layer)
    starts = [i for i in range(len(cka)) if i == 0 or network[i] != network[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(cka)], strict=True):
        if start:
            axes.axhline(start - 0.5, color="white", linewidth=3)
            axes.axvline(start - 0.5, color="white", linewidth=3)
        axes.annotate(network[start], (1.01, (start + end - 1) / 2), xycoords=("axes fraction", "data"), va="center")
    if len(cka) <= _TEXTS:
        for (row, column), value in np.ndenumerate(cka.to_numpy()):
            colour = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize="small")
    figure.colorbar(image, shrink=0.5)
    choose_fonts(figure)
    return figure


@rc_context(STYLE | {"axes.grid": False})
def strips_figure(strips: Mapping[str, Any], rows: pd.DataFrame) -> Figure:
    """Shows what the layers keep of some images: a block per network, and in it a row per image.

    Args:
        strips: The arrays of `strips.npz`: `images`, `names`, `layers` and `reconstructions`.
        rows: The rows of the atlas, which say what of the name of a layer is the network.
    """
    places = _places(rows)
    blocks: dict[str, list[tuple[str, Any]]] = {}
    for name, rebuilt in zip(strips["layers"], strips["reconstructions"], strict=True):
        network, layer = places.get(str(name), ("", str(name)))
        blocks.setdefault(network, []).append((layer, rebuilt))
    count, size = strips["images"].shape[:2]
    most = 1 + max(map(len, blocks.values()))
    figure = Figure(figsize=(1.1 + 1.25 * most, (1.25 * count + 0.7) * len(blocks)), layout="compressed")
    for axes, (network, columns) in zip(figure.subplots(len(blocks), squeeze=False).flat, blocks.items(), strict=True):
        columns = [("image", strips["images"]), *columns]
        step = size + _GAP
        tiles = np.full((count * step - _GAP, most * step - _GAP, 3), 255, np.uint8)
        for x, (_, column) in enumerate(columns):
            for y, tile in enumerate(column):  # one channel or three
                tiles[y * step : y * step + size, x * step : x * step + size] = tile
        axes.imshow(tiles)
        axes.spines[:].set_visible(False)
        names = [textwrap.fill(name, 14) for name, _ in columns]
        axes.set_xticks([x * step + size / 2 for x in range(len(columns))], names, fontsize="small")
        axes.tick_params("x", top=False, labeltop=True, labelbottom=False)
        shown = [name.replace(" (", "\n(") for name in drawable([str(name) for name in strips["names"]])]
        axes.set_yticks([y * step + size / 2 for y in range(count)], shown, fontsize="small")
        axes.set_title(network, loc="left")
    choose_fonts(figure)
    return figure


def _places(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Network and layer by the name that joins them."""
    pairs = rows[["network", "layer"]].drop_duplicates().itertuples(index=False)
    return {f"{network} {layer}": (network, layer) for network, layer in pairs}
