"""The atlas of a network: a decoder for each of several layers, in one table and one figure."""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor

from datamodules import InMemoryDataModule
from lightning_modules import FrozenFeatures, Inversion, OptimizationInversion
from lightning_modules.inversion import COMMON_SIZE, at_common_size
from preimage.bases import chain
from preimage.cli import PreimageCLI
from preimage.evaluation.measures import BATCH, reconstruction_errors, to_float
from preimage.evaluation.runs import default_device, load_data
from preimage.files import read_metrics, read_plain, write_atomically, write_rows, write_text
from preimage.locks import Busy
from preimage.reporting.tables import markdown_table
from preimage.runs import Run, claimed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIG = Path(__file__).parents[2] / "configs/tiny_imagenet/atlas.yaml"
COLUMNS = ("psnr_64", "ssim_64", "mse_64", "normalized_error_64", "feature_error", "psnr", "ssim")


def draw_atlas(options: argparse.Namespace, rest: list[str]) -> None:
    """Trains what is missing, measures it, and writes `atlas.csv`, `atlas.md` and `atlas.png`.

    Several processes may share an atlas: a layer that one of them trains is left to it.

    Args:
        options: The arguments of the command.
        rest: Flags for the fit of each layer.
    """
    options.config = options.config or [str(CONFIG)]
    overlays = [_overlay(options, layer, rest) for layer in options.layers]  # a wrong layer ends it before it begins
    layers = []
    for layer, (overlay, settings) in zip(options.layers, overlays, strict=True):
        try:
            _fit(options, layer, overlay, settings, rest)
            layers.append(layer)
        except Busy as error:
            print(f"{layer}: {error}, left out here; the same command adds it when it is done")
    if not layers:
        return
    data, device = load_data(options.out / layers[0]), default_device()
    rows = [_mean_image(data, device)]
    pictures = []
    for layer in layers:
        checkpoint = Run(options.out / layer).kept
        model = Inversion.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).to(device).eval()
        rows.append(_row(options, layer, model, data, device))
        with torch.no_grad():
            pictures.append(at_common_size(model(to_float(_spread(data, options.images), device))).cpu())
    _write_table(options.out, rows)
    originals = at_common_size(to_float(_spread(data, options.images), torch.device("cpu")))
    labels = data.test_set.labels[_places(data, options.images)].tolist()
    names = [data.class_names[label] if label >= 0 else "" for label in labels]
    figure = atlas_figure(options.network, rows, names, [originals, *pictures])
    write_atomically(options.out / "atlas.png", lambda path: figure.savefig(path, dpi=100))
    print((options.out / "atlas.md").read_text(), options.out / "atlas.png", sep="\n")


def decoder_for(shape: tuple[int, ...], image_size: int, width: float) -> dict[str, Any]:
    """The decoder of a layer, as a class path with arguments.

    Args:
        shape: Shape of the features of one image: a square map `(C, s, s)`, or any other, as `(D,)` or tokens `(T, D)`.
        image_size: Wanted size of the reconstruction; a decoder doubles, and gets as close as it can.
        width: Width of the decoder.
    """
    if len(shape) == 3 and shape[1] == shape[2]:
        sizes = [shape[1] * 2**doublings for doublings in range(9)]
        size = min(sizes, key=lambda size: abs(size - image_size))
        init_args = {"in_channels": shape[0], "in_size": shape[1], "image_size": size, "width": width}
        return {"class_path": "ConvInverter", "init_args": init_args}
    size = min((4 * 2**doublings for doublings in range(1, 9)), key=lambda size: abs(size - image_size))
    init_args = {"in_features": math.prod(shape), "image_size": size, "width": width}
    return {"class_path": "FullyConnectedInverter", "init_args": init_args}


def _overlay(options: argparse.Namespace, layer: str, rest: list[str]) -> tuple[dict[str, Any], str]:
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
    overlay = {"model": {"init_args": {"encoder": encoder, "decoder": decoder}}}
    own = [flag for flag in rest if not flag.startswith("--trainer.")]
    given = [
        overlay,
        features.weights_hash,
        [read_plain(path) for name in options.config for path in chain(Path(name))],
        own,
    ]
    settings = hashlib.sha256(json.dumps(given).encode()).hexdigest()
    done = options.out / layer / "done.json"
    if done.is_file() and _noted(done, "settings", str) != settings:
        raise ValueError(
            f"{done.parent} was trained with other weights, data or options: give another --out, or remove it"
        )
    return overlay, settings


def _noted(path: Path, key: str, kind: Any) -> Any:
    """What a file of a layer has noted."""
    noted = read_plain(path)
    if not isinstance(noted, dict) or not isinstance(noted.get(key), kind):
        raise ValueError(f"{path} is damaged: it has no {key}; remove it to have it made anew")
    return noted[key]


def _fit(options: argparse.Namespace, layer: str, overlay: dict[str, Any], settings: str, rest: list[str]) -> None:
    """Trains and tests a layer's decoder, goes on with one that was interrupted, or leaves a finished one alone.

    Raises:
        Busy: Another process is at it.
    """
    run = Run(options.out / layer)
    done = run.folder / "done.json"
    path: Path = options.out / f"{layer}.yaml"
    with claimed(run.folder):
        if done.is_file():
            print(f"{layer}: done, {run.folder}")
            return
        resumed = run.checkpoint("last").is_file()
        write_text(path, yaml.safe_dump(overlay))
        start = time.monotonic()
        flags = [f"--config={name}" for name in (*options.config, path)]
        PreimageCLI(["fit", *flags, f"--run_dir={run.folder}", "--ckpt_path=auto", "--test_after_fit", *rest])
        minutes = None if resumed else (time.monotonic() - start) / 60  # what passed before nobody knows
        write_text(done, json.dumps({"minutes": minutes, "settings": settings}))


def _places(data: InMemoryDataModule, count: int) -> Tensor:
    """Indices of some test images, spread evenly over the split."""
    return torch.linspace(0, len(data.test_set) - 1, count).long()


def _spread(data: InMemoryDataModule, count: int) -> Tensor:
    """The images at these indices, uint8 `(count, C, H, W)`."""
    return data.test_set.images[_places(data, count)]


def _errors(decode: Callable[[Tensor], Tensor], images: Tensor, device: torch.device) -> dict[str, float]:
    """Errors at the common size of what `decode` makes of images, which are given as uint8 `(N, C, H, W)`."""
    batches = (to_float(part, device) for part in images.split(BATCH))
    pairs = ((at_common_size(decode(batch)), at_common_size(batch)) for batch in batches)
    return {f"{name}_{COMMON_SIZE}": value for name, value in reconstruction_errors(pairs).items()}


def mean_of(images: Tensor) -> Tensor:
    """The mean `(C, H, W)` in [0, 1] of uint8 images `(N, C, H, W)`, which are never all turned into floats."""
    total = torch.zeros(images.shape[1:], dtype=torch.long)
    for part in images.split(BATCH):
        total += part.sum(dim=0)
    return total / (255 * len(images))


def _mean_image(data: InMemoryDataModule, device: torch.device) -> dict[str, Any]:
    """What a predictor gets that always answers with the mean training image."""
    mean = mean_of(data.train_set.images).to(device)
    errors = _errors(lambda batch: mean.expand_as(batch), data.test_set.images, device)
    return {"layer": "mean image", "values": 0} | errors


def _row(
    options: argparse.Namespace, layer: str, model: Inversion, data: InMemoryDataModule, device: torch.device
) -> dict[str, Any]:
    run_dir: Path = options.out / layer
    tested = {key: value for row in read_metrics(run_dir / "metrics.csv") for key, value in row.items()}
    features: Any = model.encoder
    shape = features.feature_shape(options.feature_size)
    row: dict[str, Any] = {
        "layer": layer,
        "shape": " x ".join(map(str, shape)),
        "values": int(torch.tensor(shape).prod()),
        "parameters": sum(parameter.numel() for parameter in model.decoder.parameters()),
        "minutes": _noted(run_dir / "done.json", "minutes", int | float | None),
    }
    if missing := [key for key in COLUMNS if f"test/{key}" not in tested]:
        raise ValueError(
            f"{run_dir / 'metrics.csv'} has no test/{missing[0]}: remove {run_dir} to train the layer anew"
        )
    row |= {key: tested[f"test/{key}"] for key in COLUMNS}
    if options.optimize:
        path = run_dir / f"optimization_{options.optimize}.json"
        row |= _baseline(model, _spread(data, options.optimize), device, path)
    return row


def _baseline(model: Inversion, images: Tensor, device: torch.device, path: Path) -> dict[str, float]:
    """PSNR of the search by gradient descent and of the decoder on the same few images, computed once."""
    if not path.is_file():
        search = OptimizationInversion(model.encoder, image_size=COMMON_SIZE).eval()
        with torch.no_grad():
            found = {
                "psnr_64_few": _errors(model, images, device)["psnr_64"],
                "psnr_64_search": _errors(search, images, device)["psnr_64"],
            }
        write_text(path, json.dumps(found))
    return {key: float(_noted(path, key, int | float)) for key in ("psnr_64_few", "psnr_64_search")}


def _write_table(out: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in reversed(rows) for key in row))

    def cell(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)

    table = markdown_table(columns, [[cell(row.get(key)) for key in columns] for row in rows])
    write_rows(out / "atlas.csv", rows, columns)
    write_text(out / "atlas.md", table)


def atlas_figure(title: str, rows: list[dict[str, Any]], names: list[str], strips: list[Tensor]) -> "Figure":
    """Plots error against depth, with the reconstructions of each layer beneath its place.

    Args:
        title: Name of the network.
        rows: The table: the mean image, then one row per layer.
        names: Class of each image.
        strips: The images `(N, C, 64, 64)` in [0, 1], then their reconstructions from each layer.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    columns = len(strips)
    figure = Figure(figsize=(1.5 * columns, 2.6 + 1.5 * len(names)), layout="constrained")
    grid = figure.add_gridspec(1 + len(names), columns, height_ratios=[1.8, *[1] * len(names)])
    axes = figure.add_subplot(grid[0, 1:])
    places = range(columns - 1)
    for name, label in (("psnr_64", "decoder"), ("psnr_64_search", "optimisation")):
        if all(name in row for row in rows[1:]):
            axes.plot(places, [row[name] for row in rows[1:]], marker="o", label=label)
    axes.axhline(rows[0]["psnr_64"], color="gray", linestyle="--", label="mean image")
    axes.set(title=f"{title}: PSNR at 64 x 64 in dB", xlim=(-0.5, columns - 1.5), xticks=[])
    axes.legend(fontsize="small")
    layers = ["image", *(row["layer"] for row in rows[1:])]
    for column, (layer, strip) in enumerate(zip(layers, strips, strict=True)):
        for line, (name, image) in enumerate(zip(names, strip, strict=True)):
            place = figure.add_subplot(grid[1 + line, column])
            place.imshow(image.clamp(0, 1).permute(1, 2, 0).squeeze(2), cmap="gray")
            place.set(xticks=[], yticks=[])
            if line == 0:
                place.set_title(layer, fontsize="small")
            if column == 0:
                place.set_ylabel(name.replace(" (", "\n("), fontsize="x-small")
    return figure
