"""The atlas of a network: a decoder for each of several layers, in one table and one figure."""

import argparse
import hashlib
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor, nn

from lightning_modules import FrozenFeatures, Inversion, OptimizationInversion
from lightning_modules.inversion import COMMON_SIZE, at_common_size
from preimage.configs import chain
from preimage.files import read_plain, write_atomically, write_json, write_rows, write_text
from preimage.fonts import choose_fonts, drawable
from preimage.reporting.tables import markdown_table
from preimage.runs import Run, claimed

from .measures import BATCH, Images, reconstruction_errors, spread, to_float
from .runs import default_device, figures_of, find_run, left_to_others, load_data, load_model, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIG = Path(__file__).parents[2] / "configs/tiny_imagenet/atlas.yaml"
_TESTED = ("psnr_64", "ssim_64", "mse_64", "normalized_error_64", "feature_error", "psnr", "ssim")


def draw_atlas(options: argparse.Namespace, rest: list[str]) -> None:
    """Trains what is missing, measures it, and writes `atlas.csv`, `atlas.md` and `atlas.png`.

    Several processes may share an atlas: a layer that one of them trains is left to it.

    Args:
        options: The arguments of the command.
        rest: Flags for the fit of each layer.
    """
    options.config = options.config or [str(CONFIG)]
    configs = [_config(options, layer, rest) for layer in options.layers]  # a wrong layer ends it before it begins
    layers = []
    for layer, (config, settings) in zip(options.layers, configs, strict=True):
        with left_to_others(layer), claimed(options.out / layer):
            _fit(options, layer, config, settings, rest)
            layers.append(layer)
    if not layers:
        return
    runs, device = [find_run(options.out / layer) for layer in layers], default_device()
    data = load_data(runs[0])
    test = data.test_set
    mean = _mean(data.train_set.images).to(device)
    errors = _errors(lambda batch: mean.expand_as(batch), test.images, device)
    rows: list[dict[str, Any]] = [{"layer": "mean image", "values": 0} | errors]
    shown = spread(test.images, options.images)
    strips = [at_common_size(to_float(test.images[shown], torch.device("cpu")))]
    for layer, run in zip(layers, runs, strict=True):
        model: Any = load_model(run).to(device)
        rows.append(_row(run, layer, model.encoder.feature_shape(options.feature_size), model.decoder))
        if options.optimize:
            few = test.images[spread(test.images, options.optimize)]
            rows[-1] |= _search(model, few, device, run.folder / f"optimization_{options.optimize}.json")
        with torch.no_grad():
            strips.append(at_common_size(model(to_float(test.images[shown], device))).cpu())
    _write_table(options.out, rows)
    known = drawable(data.class_names)
    names = [known[label] if label >= 0 else "" for label in test.labels[shown].tolist()]
    figure = _figure(options.network, rows, names, strips)
    choose_fonts(figure)
    write_atomically(options.out / "atlas.png", lambda path: figure.savefig(path, dpi=100))
    print((options.out / "atlas.md").read_text(), options.out / "atlas.png", sep="\n")


def decoder_for(shape: tuple[int, ...], image_size: int, width: float) -> dict[str, Any]:
    """The decoder of a layer, as a class path with arguments.

    Args:
        shape: Shape of the features of one image: a square map `(C, s, s)`, or any other, as `(D,)` or tokens `(T, D)`.
        image_size: Wanted size of the reconstruction; a decoder doubles, and gets as close as it can.
        width: Width of the decoder.
    """
    square = len(shape) == 3 and shape[1] == shape[2]
    start = shape[1] if square else 8
    size = min((start * 2**doublings for doublings in range(9)), key=lambda size: abs(size - image_size))
    features = {"in_channels": shape[0], "in_size": start} if square else {"in_features": math.prod(shape)}
    name = "ConvInverter" if square else "FullyConnectedInverter"
    return {"class_path": name, "init_args": features | {"image_size": size, "width": width}}


def _config(options: argparse.Namespace, layer: str, rest: list[str]) -> tuple[dict[str, Any], str]:
    """Encoder and decoder of a layer, as a config, and a hash of all that its figures depend on but the trainer.

    Raises:
        ValueError: The layer was done with other settings.
    """
    arguments = {"network": options.network, "layer": layer, "weights": options.weights}
    features = FrozenFeatures(**arguments, image_size=options.feature_size or "own")
    options.feature_size = options.feature_size or features.image_size
    if options.feature_size is None:
        raise ValueError(f"{options.network} takes images of any size: say by --feature_size at which it shall look")
    if features.kind(options.feature_size) in ("tokens", "map, channels last"):
        arguments["tokens"] = features.tokens = "grid"
    decoder = decoder_for(features.feature_shape(options.feature_size), options.image_size, options.width)
    encoder = {"class_path": "FrozenFeatures", "init_args": arguments | {"image_size": options.feature_size}}
    config = {"model": {"init_args": {"encoder": encoder, "decoder": decoder}}}
    files = [read_plain(path) for name in options.config for path in chain(Path(name))]
    own = [flag for flag in rest if not flag.startswith("--trainer.")]
    settings = hashlib.sha256(json.dumps([config, features.weights_hash, files, own]).encode()).hexdigest()
    done = options.out / layer / "done.json"
    if done.is_file() and _noted(done, "settings", str) != settings:
        raise ValueError(
            f"{done.parent} was trained with other weights, data or options: give another --out, or remove it"
        )
    return config, settings


def _noted(path: Path, key: str, kind: Any) -> Any:
    """What a file of a layer has noted."""
    noted = read_plain(path)
    if not isinstance(noted, dict) or not isinstance(noted.get(key), kind):
        raise ValueError(f"{path} is damaged: it has no {key}; remove it to have it made anew")
    return noted[key]


def _fit(options: argparse.Namespace, layer: str, config: dict[str, Any], settings: str, rest: list[str]) -> None:
    """Trains and tests a layer's decoder, goes on with one that was interrupted, or leaves a finished one alone."""
    run = Run(options.out / layer)
    done = run.folder / "done.json"
    if done.is_file():
        print(f"{layer}: done, {run.folder}")
        return
    path: Path = options.out / f"{layer}.yaml"
    write_text(path, yaml.safe_dump(config))
    resumed, start = run.checkpoint("last").is_file(), time.monotonic()
    train(run.folder, *(f"--config={name}" for name in (*options.config, path)), *rest)
    minutes = None if resumed else (time.monotonic() - start) / 60  # what passed before nobody knows
    write_json(done, {"minutes": minutes, "settings": settings})


def _mean(images: Tensor) -> Tensor:
    """The mean `(C, H, W)` in [0, 1] of uint8 images `(N, C, H, W)`, which are never all turned into floats."""
    total: Any = sum(part.sum(dim=0) for part in images.split(BATCH))
    return torch.as_tensor(total / (255 * len(images)))


def _errors(rebuild: Images, images: Tensor, device: torch.device) -> dict[str, float]:
    """Errors at the common size of the reconstructions of uint8 images `(N, C, H, W)`."""
    errors = reconstruction_errors(rebuild, images, device, at_common_size)
    return {f"{name}_{COMMON_SIZE}": value for name, value in errors.items()}


def _row(run: Run, layer: str, shape: tuple[int, ...], decoder: nn.Module) -> dict[str, Any]:
    tested = figures_of(run.folder)
    if missing := [key for key in _TESTED if f"test/{key}" not in tested]:
        raise ValueError(
            f"{run.folder / 'metrics.csv'} has no test/{missing[0]}: remove {run.folder} to train the layer anew"
        )
    return {
        "layer": layer,
        "shape": " x ".join(map(str, shape)),
        "values": math.prod(shape),
        "parameters": sum(parameter.numel() for parameter in decoder.parameters()),
        "minutes": _noted(run.folder / "done.json", "minutes", int | float | None),
    } | {key: tested[f"test/{key}"] for key in _TESTED}


def _search(model: Inversion, images: Tensor, device: torch.device, path: Path) -> dict[str, float]:
    """PSNR of the search by gradient descent and of the decoder on the same few images, computed once."""
    if not path.is_file():
        search = OptimizationInversion(model.encoder, image_size=COMMON_SIZE).eval()
        psnr = {
            "psnr_64_few": _errors(model, images, device)["psnr_64"],
            "psnr_64_search": _errors(search, images, device)["psnr_64"],
        }
        write_json(path, psnr)
    return {key: float(_noted(path, key, int | float)) for key in ("psnr_64_few", "psnr_64_search")}


def _write_table(out: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in reversed(rows) for key in row))

    def cell(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)

    write_rows(out / "atlas.csv", rows, columns)
    write_text(out / "atlas.md", markdown_table(columns, [[cell(row.get(key)) for key in columns] for row in rows]))


def _figure(title: str, rows: list[dict[str, Any]], names: list[str], strips: list[Tensor]) -> "Figure":
    """Plots error against depth, with the reconstructions of each layer beneath it.

    Args:
        title: Name of the network.
        rows: The table: the mean image, then one row per layer.
        names: Class of each image.
        strips: The images `(N, C, 64, 64)` in [0, 1], then their reconstructions from each layer.
    """
    from matplotlib.figure import Figure

    layers, columns = rows[1:], len(strips)
    figure = Figure(figsize=(1.5 * columns, 2.6 + 1.5 * len(names)), layout="constrained")
    grid = figure.add_gridspec(1 + len(names), columns, height_ratios=[1.8, *[1] * len(names)])
    axes = figure.add_subplot(grid[0, 1:])
    for name, label in (("psnr_64", "decoder"), ("psnr_64_search", "optimisation")):
        if all(name in row for row in layers):
            axes.plot([row[name] for row in layers], marker="o", label=label)
    axes.axhline(rows[0]["psnr_64"], color="gray", linestyle="--", label="mean image")
    axes.set(title=f"{title}: PSNR at 64 x 64 in dB", xlim=(-0.5, columns - 1.5), xticks=[])
    axes.legend(fontsize="small")
    for column, (heading, strip) in enumerate(zip(["image", *(row["layer"] for row in layers)], strips, strict=True)):
        for line, (name, image) in enumerate(zip(names, strip, strict=True)):
            cell = figure.add_subplot(grid[1 + line, column])
            cell.imshow(image.clamp(0, 1).permute(1, 2, 0).squeeze(2), cmap="gray")
            cell.set(xticks=[], yticks=[])
            if line == 0:
                cell.set_title(heading, fontsize="small")
            if column == 0:
                cell.set_ylabel(name.replace(" (", "\n("), fontsize="x-small")
    return figure
