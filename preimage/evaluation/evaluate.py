"""Reconstruction, generation, classification, time and memory of trained runs, in one table."""

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from callbacks.run.state import PROVENANCE as KEY
from datamodules import InMemoryDataModule
from lightning_modules import VAE, Inversion
from lightning_modules.base import EncoderModule
from lightning_modules.checkpoints import load_checkpoint
from lightning_modules.metrics import ActiveUnits
from preimage.errors import explain
from preimage.evaluation.generation import Extractor, inception, measure_generation, named_extractor
from preimage.evaluation.measures import (
    Codes,
    encode_splits,
    labelled,
    measure_reconstruction,
    measure_speed,
    rebuilder,
    to_float,
)
from preimage.evaluation.readers import read_codes
from preimage.evaluation.runs import default_device, find_run, load_data, load_model
from preimage.files import read_plain, sha256, write_json
from preimage.locks import Busy
from preimage.reporting.tables import markdown_table
from preimage.runs import Run, claimed

FILE = "evaluation.json"
_ORDER = ("run", "model", "MSE", "PSNR, dB", "SSIM", "normalised error")
_READERS = ("linear", "kNN", "MLP")
_COSTS = ("active units", "parameters", "trained, minutes", "images/s encoded", "memory, GB")


def evaluate_runs(options: argparse.Namespace, flags: list[str]) -> None:
    """Measures every run that has not been, and prints a table of all.

    Args:
        options: The arguments of the command.
        flags: What to change of the data of every run, for example `--data.root=DIR`.

    Raises:
        ValueError: Some could not be measured; they are named after the table of the others.
    """
    runs = [find_run(path) for path in options.ckpt_path]  # a wrong one ends it before it begins
    device = default_device()
    extractor = None if options.extractor is None else named_extractor(options.extractor, device)
    asked = {"images": options.images, "labels_per_class": options.labels_per_class}
    asked |= ({"extractor": extractor.name} if extractor else {}) | ({"data": flags} if flags else {})
    measured, rows, failed = [], [], []
    for run in runs:
        try:
            with claimed(run.folder / FILE):
                rows.append(_measure(run, options, flags, extractor, asked, device))
                measured.append(run)
        except Busy as error:
            print(f"{run.folder}: {error}, left out here; the same command adds it when it is done")
        except Exception as error:  # the others are measured all the same
            failed.append(explain(error) if str(run.folder) in str(error) else f"{run.folder}: {explain(error)}")
    if rows:
        print(table(measured, rows), end="")
    for run, row in zip(measured, rows, strict=True):
        for note in row["notes"]:
            print(f"{run.folder}: {note}")
    if failed:
        raise ValueError("; ".join(failed))


def _measure(
    run: Run,
    options: argparse.Namespace,
    flags: Sequence[str],
    extractor: Extractor | None,
    asked: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    """What `evaluation.json` holds, or is made to hold."""
    checkpoint = {"file": run.kept.name, "sha256": sha256(run.kept)}
    found = None if options.overwrite else _done(run, checkpoint, asked)
    if found is not None:
        print(f"{run.folder}: done, --overwrite measures again")
        return found
    found = evaluate(run, flags, extractor, options.images, options.labels_per_class, device)
    found |= {"checkpoint": checkpoint, "options": asked}
    write_json(run.folder / FILE, found)
    return found


def evaluate(
    run: Run,
    flags: Sequence[str],
    extractor: Extractor | None,
    images: int,
    labels_per_class: Sequence[int],
    device: torch.device,
) -> dict[str, Any]:
    """Measures a run on its test split, in float32.

    Args:
        run: The run.
        flags: What to change of its data, for example `--data.root=DIR`.
        extractor: Whose features FID and KID compare; by default Inception's.
        images: Most images that are drawn for them.
        labels_per_class: Of the readers on a few labels.
        device: Where the model runs.

    Returns:
        What `evaluation.json` holds.
    """
    model, data = load_model(run).to(device), load_data(run.folder, flags)
    rebuild, test = rebuilder(model), data.test_set.images
    # Of an inversion, the codes are read in the evaluation of the run that trained the encoder.
    trained = model.encoder_checkpoint if isinstance(model, Inversion) else None
    if not len(test):
        raise ValueError("an evaluation needs test images: the data has none")
    speed, memory = measure_speed(model.encoder, test, device)
    reconstruction = measure_reconstruction(rebuild, test, device) if rebuild else None
    splits = encode_splits(model, data, ["test"] if trained else ["train", "val", "test"], device)
    known = labelled(splits)
    readable = not trained and "test" in known and "train" in known and len(known["train"][1].unique()) > 1
    if readable:
        notes = _notes(model, data, known, device)
    elif trained:
        notes = [f"its codes are read in the evaluation of {trained}"]
    else:
        why = "the data has no labels of two classes to learn from, or none to test"
        notes = [f"nothing is read out of its codes, since {why}"]
    seed = run.config.get("seed_everything")
    provenance = load_checkpoint(run.kept).get(KEY, {})
    return {
        "version": 1,
        "name": run.name,
        "model": type(model).__name__,
        "data": type(data).__name__,
        "seed": seed if type(seed) is int else None,
        "git_commit": provenance.get("git_commit"),
        "training_precision": provenance.get("precision"),
        "reconstruction": reconstruction,
        "generation": _generation(model, test, extractor, images, device, notes),
        "reading": read_codes(known, len(data.class_names), labels_per_class) if readable else None,
        "active_units": _active_units(model, splits["test"][0]),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable_parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "training_minutes": _training_minutes(run),
        "images_per_second": speed,
        "peak_memory_gb": memory,
        "notes": notes,
    }


def _done(run: Run, checkpoint: dict[str, str], asked: dict[str, Any]) -> dict[str, Any] | None:
    """What was measured of the same checkpoint as asked for; with any extractor and data, where none is asked for."""
    path = run.folder / FILE
    try:
        found = read_plain(path) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{error}: --overwrite measures again") from error
    options = found.get("options", {}) if isinstance(found, dict) else None
    if not isinstance(options, dict):
        raise ValueError(f"{path} is no evaluation: --overwrite measures again")
    return found if found.get("checkpoint") == checkpoint and asked.items() <= options.items() else None


def _training_minutes(run: Run) -> float | None:
    """Those of the whole training, of which the best checkpoint may be an early state; None where no file has them."""
    last = run.checkpoint("last")
    minutes: float | None = load_checkpoint(last if last.is_file() else run.kept).get(KEY, {}).get("minutes")
    return minutes


def _generation(
    model: EncoderModule,
    test: torch.Tensor,
    extractor: Extractor | None,
    images: int,
    device: torch.device,
    notes: list[str],
) -> dict[str, Any] | None:
    sample = getattr(model, "sample", None)
    if sample is None:
        return None
    try:
        extractor = extractor or inception(device)
    except (ModuleNotFoundError, OSError) as error:
        notes.append(f"no FID and KID, since Inception cannot be loaded ({explain(error)}): give an --extractor")
        return None
    places = torch.linspace(0, len(test) - 1, min(images, len(test))).long()
    return measure_generation(sample, test[places], extractor, device)


def _active_units(model: EncoderModule, codes: torch.Tensor) -> int | None:
    """Of codes that are held to a standard normal prior, since the threshold is meant for their scale."""
    if not isinstance(model, VAE):
        return None
    metric = ActiveUnits(codes.shape[1])
    metric.update(codes)
    return int(metric.compute())


def _notes(model: EncoderModule, data: InMemoryDataModule, splits: dict[str, Codes], device: torch.device) -> list[str]:
    """What figures do not say: on how many labels the readers rest, and what became of codes that are no vectors."""
    with torch.no_grad():
        shape = model.encode(to_float(data.test_set.images[:1], device)).shape[1:]
    codes, labels = splits["train"]
    notes = [f"the readers learn from {len(labels)} labels"]
    if "val" not in splits:
        notes.append("without validation images, a tenth of the training images chooses the readers")
    if len(shape) > 1:
        how = "flattened" if shape.numel() == codes.shape[1] else "averaged over space"
        notes.append(f"codes {' x '.join(map(str, shape))} are {how} to {codes.shape[1]} numbers for the readers")
    return notes


def table(runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> str:
    """The figures as a Markdown table with a line per run; FIDs of another extractor or count have their own column.

    Args:
        runs: The runs.
        rows: What was measured of each.
    """
    cells = [{"run": str(run.folder)} | _cells(row) for run, row in zip(runs, rows, strict=True)]
    order = [*_ORDER, *sorted({key for row in cells for key in row if key[:3] in ("FID", "KID")})]
    few = {key for row in cells for key in row if key.endswith(" labels")}
    order += [*_READERS, *sorted(few, key=lambda key: int(key.split()[0])), *_COSTS]
    columns = [key for key in order if any(row.get(key, "") for row in cells)]
    return markdown_table(columns, [[row.get(key, "") for key in columns] for row in cells])


def _cells(row: dict[str, Any]) -> dict[str, str]:
    cells = {"model": row["model"], "parameters": f"{row['parameters']:,}"}
    if errors := row["reconstruction"]:
        cells |= {"MSE": f"{errors['mse']:.4f}", "PSNR, dB": f"{errors['psnr']:.2f}", "SSIM": f"{errors['ssim']:.3f}"}
        cells["normalised error"] = f"{errors['normalized_error']:.3f}"
    if drawn := row["generation"]:
        source = f"{drawn['extractor']}, {drawn['images']} images"
        cells |= {f"FID: {source}": f"{drawn['fid']:.2f}", f"KID: {source}": f"{drawn['kid']:.4f}"}
    if reading := row["reading"]:
        figures = dict(zip(_READERS, (reading["linear"], reading["knn"], reading["mlp"]), strict=True))
        figures |= {f"{count} labels": found for count, found in reading["few_labels"].items()}
        cells |= {key: f"{100 * found['accuracy']:.2f} %" for key, found in figures.items()}
    if row["active_units"] is not None:
        cells["active units"] = str(row["active_units"])
    if row["training_minutes"] is not None:
        cells["trained, minutes"] = f"{row['training_minutes']:.1f}"
    cells |= {"images/s encoded": f"{row['images_per_second']:,.0f}", "memory, GB": f"{row['peak_memory_gb']:.2f}"}
    return cells
