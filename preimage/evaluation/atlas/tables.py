"""The tables of an atlas, and the images that its figures show."""

import math
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.cache import Rows
from lightning_modules.inversion import at_common_size
from preimage.files import write_atomically, write_rows, write_text
from preimage.reporting.tables import markdown_table

from ..geometry import cka_matrix
from ..measures import BATCH, spread, to_float
from ..runs import find_run, load_model
from .measures import OF_CODES, errors, gram_of, pixels_again
from .plan import Plan
from .points import Point

#: Which columns of `atlas.csv` stand under which heading of `atlas.md`.
_SECTIONS = {
    "Keeps: decoders, at 64 x 64": r"(psnr|ssim|mse|normalized_error|lpips)_64|feature_error|rfid|seeds",
    "Beside them": r"psnr_64_.+|feature_error_.+",
    "Reads: accuracy of probes": "linear|knn|mlp|few_.+",
    "Shape of the code": "shape|values|bits|effective_rank|intrinsic_dimension",
    "Moves, relative to the distance of two images": "invariance_.+",
    "Cost": "decoder_parameters|epochs|minutes|encoder_parameters|images_per_second|memory_gb",
}
#: Figures that order the layers.
_ORDERS = ["normalized_error_64", "linear", "effective_rank", "intrinsic_dimension", "values"]


def write_tables(plan: Plan) -> None:
    """Writes `atlas.csv`, `atlas.md`, `cka.csv` and `strips.npz` from all that is done of an atlas."""
    rows = [_mean_image(plan)] if plan.keeps else []
    rows += [_of_code(plan, point) | (_pixels_kept(plan, point) if plan.keeps else {}) for point in plan.pixels]
    rows += [_of_code(plan, point) | _kept(plan, point) for point in plan.points]
    columns = list(dict.fromkeys(key for row in reversed(rows) for key in row))
    write_rows(plan.options.out / "atlas.csv", rows, columns)
    text = [*_sections(rows), *rank_correlations(rows[-len(plan.points) :]), *_protocols(plan)]
    write_text(plan.options.out / "atlas.md", "\n".join(text))
    if points := [point for point in plan.points if plan.figures(point.folder / "shape.json")]:
        names = [point.name for point in points]
        matrix = cka_matrix([gram_of(point.folder) for point in points]).tolist()
        lines = [
            {"layer": name, **dict(zip(names, line, strict=True))} for name, line in zip(names, matrix, strict=True)
        ]
        write_rows(plan.options.out / "cka.csv", lines)
    if plan.keeps:
        _write_strips(plan)


def _sections(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The same in Markdown, a table for each kind of measure, with means ± deviations."""
    known = list(dict.fromkeys(key for row in reversed(rows) for key in row))
    for title, pattern in _SECTIONS.items():
        keys = [key for key in known if re.fullmatch(pattern, key) and not key.endswith("_sd")]
        lines = [[row["network"], row["layer"], *(_cell(row, key) for key in keys)] for row in rows]
        if lines := [line for line in lines if any(line[2:])]:
            names = [key.removesuffix("_64").removeprefix("invariance_").replace("_", " ") for key in keys]
            yield f"### {title}\n\n{markdown_table(['network', 'layer', *names], lines)}"


def rank_correlations(rows: list[dict[str, Any]]) -> list[str]:
    """A table of how alike two figures order the layers that have all (Spearman's rho); none for fewer than three.

    Args:
        rows: The rows of the layers.
    """
    figures = pd.DataFrame(rows).reindex(columns=_ORDERS).dropna(axis="columns", how="all").dropna().astype(float)
    if len(figures) < 3 or figures.shape[1] < 2:
        return []
    names = [key.removesuffix("_64").replace("_", " ") for key in figures]
    cells = figures.corr("spearman").map("{:.2f}".format).to_numpy().tolist()
    table = markdown_table(["", *names], [[name, *line] for name, line in zip(names, cells, strict=True)])
    return [f"### Rank correlations over {len(figures)} layers\n\n{table}"]


def _protocols(plan: Plan) -> list[str]:
    """What the figures that need it were measured with."""
    files = [point.folder / f"perceived_{seed}.json" for point in plan.points for seed in plan.options.seeds]
    figures = [plan.figures(path) for path in files]
    networks = dict.fromkeys(figure["lpips_network"] for figure in figures if "lpips_network" in figure)
    protocols = dict.fromkeys(
        f"rFID: {figure['rfid_protocol']} {figure['rfid_floor'] or math.nan:.4g}."
        for figure in figures
        if "rfid" in figure
    )
    return [f"LPIPS: {name}.\n" for name in networks] + [f"{protocol}\n" for protocol in protocols]


def _of_code(plan: Plan, point: Point) -> dict[str, Any]:
    """What is known of the code of a point."""
    row: dict[str, Any] = {"network": point.network, "layer": point.layer, "shape": " x ".join(map(str, point.shape))}
    row |= {"values": point.values, "bits": 32 * point.values}
    for kind in OF_CODES:
        row |= plan.figures(point.folder / f"{kind}.json")
    return row


def _kept(plan: Plan, point: Point) -> dict[str, Any]:
    """What the decoders of a point say: means and deviations over their seeds, and the baselines beside them."""
    there = {seed: plan.figures(point.folder / f"seed_{seed}.json") for seed in plan.options.seeds}
    seeds = [
        figures | plan.figures(point.folder / f"perceived_{seed}.json") for seed, figures in there.items() if figures
    ]
    row: dict[str, Any] = {"seeds": len(seeds)} if seeds else {}
    for key in dict.fromkeys(key for seed in seeds for key in seed):
        values = [seed[key] for seed in seeds if isinstance(seed.get(key), int | float)]
        row |= {key: statistics.fmean(values)} if values else {}
        row |= {f"{key}_sd": statistics.stdev(values)} if len(set(values)) > 1 else {}
    twice, search = (plan.figures(point.folder / f"{name}.json") for name in ("twice", "search"))
    row |= {"psnr_64_twice": twice["psnr_64"]} if twice else {}
    row |= {key: value for key, value in search.items() if key != "chosen"}
    channels, size = plan.data.test_set.images.shape[1:3]
    side = max(1, math.isqrt(point.values // channels))
    if seeds and side < size:
        row |= {"psnr_64_downscaled": _pixel_error(plan, side)["psnr_64"]}
    return row


def _mean_image(plan: Plan) -> dict[str, Any]:
    mean = mean_image(plan.data.train_set.images).to(plan.device)
    error = errors(lambda batch: mean.expand_as(batch), plan.data.test_set.images, plan.device)
    return {"network": "mean image", "layer": "", "values": 0, "bits": 0} | error


def mean_image(images: Tensor | Rows) -> Tensor:
    """The mean `(C, H, W)` in [0, 1] of uint8 images `(N, C, H, W)`, which are never all turned into floats."""
    total: Any = sum(part.sum(dim=0) for part in images.split(BATCH))
    return torch.as_tensor(total / (255 * len(images)))


def _pixels_kept(plan: Plan, point: Point) -> dict[str, Any]:
    """What the image itself keeps, scaled down."""
    perceived = plan.figures(point.folder / "perceived.json")
    return _pixel_error(plan, point.shape[1]) | {
        key: perceived[key] for key in ("lpips_64", "rfid") if key in perceived
    }


def _pixel_error(plan: Plan, side: int) -> dict[str, float]:
    return errors(pixels_again(side), plan.data.test_set.images, plan.device)


@torch.no_grad()
def _write_strips(plan: Plan) -> None:
    """Writes a few test images and what a decoder of each point rebuilds of them."""
    test, names = plan.data.test_set, plan.data.class_names
    shown = spread(test.images, plan.options.images)
    images = to_float(test.images[shown], plan.device)
    files = {point: point.folder / f"seed_{plan.options.seeds[0]}.json" for point in plan.points}
    decoders = {
        point.name: load_model(find_run(file.with_suffix(""))) for point, file in files.items() if plan.figures(file)
    }
    arrays: dict[str, Any] = {
        "images": _pixels(images),
        "names": np.array([names[label] if label >= 0 else "" for label in test.labels[shown].tolist()], dtype=str),
        "layers": np.array(list(decoders), dtype=str),
        "reconstructions": np.array([_pixels(model.to(plan.device)(images)) for model in decoders.values()]),
    }

    def save(path: Path) -> None:
        with path.open("wb") as file:  # numpy would lengthen the name
            np.savez_compressed(file, **arrays)

    write_atomically(plan.options.out / "strips.npz", save)


def _pixels(images: Tensor) -> NDArray[Any]:
    """Images `(B, C, H, W)` in [0, 1] as uint8 `(B, 64, 64, C)`."""
    pixels = (at_common_size(images).clamp(0, 1) * 255).round().byte()
    array: NDArray[Any] = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return array


def _cell(row: dict[str, Any], key: str) -> str:
    value, deviation = row.get(key), row.get(f"{key}_sd")
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return text if deviation is None else f"{text} ± {deviation:.2g}"
