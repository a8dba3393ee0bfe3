"""Reconstruction, generation, classification, time and memory of trained runs, in one table."""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from callbacks.run.state import PROVENANCE
from datamodules import InMemoryDataModule
from datamodules.cache import Rows
from lightning_modules import LPIPS, VAE, Inversion
from lightning_modules.base import EncoderModule
from lightning_modules.checkpoints import load_checkpoint
from lightning_modules.metrics import ActiveUnits
from preimage.errors import explain
from preimage.files import read_plain, sha256, write_json
from preimage.reporting.tables import columns_of, figures, markdown_table, notes_on
from preimage.runs import Run, claimed

from .generation import Extractor, inception, measure_generation, measure_rfid, named_extractor
from .geometry import measure_geometry
from .measures import Codes, encode_splits, labelled, measure_speed, reconstruction_errors, spread, to_float
from .probes import probe_codes
from .runs import default_device, find_run, left_to_others, load_data, load_model

FILE = "evaluation.json"


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
    lpips = None if options.lpips is None else LPIPS.named(options.lpips).to(device)
    asked = {"images": options.images, "labels_per_class": options.labels_per_class}
    asked |= ({"extractor": extractor.name} if extractor else {}) | ({"data": flags} if flags else {})
    asked |= {"lpips": lpips.name} if lpips else {}
    measured, rows, failed = [], [], []
    for run in runs:
        try:
            with left_to_others(str(run.folder)), claimed(run.folder / FILE):
                made_of = {"checkpoint": {"file": run.kept.name, "sha256": sha256(run.kept)}, "options": asked}
                row = None if options.overwrite else _known(run, made_of)
                if row is None:
                    row = _evaluate(run, options, flags, extractor, lpips, device) | made_of
                    write_json(run.folder / FILE, row)
                measured.append(run)
                rows.append(row)
        except Exception as error:  # the others are measured all the same
            failed.append(explain(error) if str(run.folder) in str(error) else f"{run.folder}: {explain(error)}")
    if rows:
        print(table(measured, rows), end="")
    if note := notes_on(key for row in rows for key in figures(row)):
        print(note)
    for run, row in zip(measured, rows, strict=True):
        for note in row["notes"]:
            print(f"{run.folder}: {note}")
    if failed:
        raise ValueError("; ".join(failed))


def _known(run: Run, made_of: dict[str, Any]) -> dict[str, Any] | None:
    """What was measured of the same checkpoint as asked for; with any extractor and data, where none is asked for."""
    path = run.folder / FILE
    try:
        row = read_plain(path) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{error}: --overwrite measures again") from error
    options = row.get("options", {}) if isinstance(row, dict) else None
    if not isinstance(options, dict):
        raise ValueError(f"{path} is no evaluation: --overwrite measures again")
    if row.get("checkpoint") != made_of["checkpoint"] or not made_of["options"].items() <= options.items():
        return None
    print(f"{run.folder}: done, --overwrite measures again")
    return dict(row)


def _evaluate(
    run: Run,
    options: argparse.Namespace,
    flags: Sequence[str],
    extractor: Extractor | None,
    lpips: LPIPS | None,
    device: torch.device,
) -> dict[str, Any]:
    """Measures a run on its test split, in float32."""
    model, data = load_model(run).to(device), load_data(run, flags)
    test = data.test_set.images
    if not len(test):
        raise ValueError("an evaluation needs test images: the data has none")
    speed, memory = measure_speed(model.encoder, test, device)
    tested = encode_splits(model, data, ["test"], device)
    probes, notes = _probes(model, data, tested, options.labels_per_class, device)
    codes, _ = tested["test"]
    made = _made_images(model, test, test[spread(test, options.images)], extractor, lpips, device, notes)
    seed, last = run.config.get("seed_everything"), run.checkpoint("last")
    provenance = load_checkpoint(run.kept).get(PROVENANCE, {})
    # The best checkpoint may be an early state: the minutes are those of the whole training.
    whole = load_checkpoint(last).get(PROVENANCE, {}) if last.is_file() else provenance
    return {
        "version": 1,
        "name": run.name,
        "model": type(model).__name__,
        "data": type(data).__name__,
        "seed": seed if type(seed) is int else None,
        "git_commit": provenance.get("git_commit"),
        "training_precision": provenance.get("precision"),
        **made,
        "reading": probes,
        "geometry": measure_geometry(codes),
        # Of codes that are held to a standard normal prior, since the threshold is meant for their scale.
        "active_units": int(ActiveUnits(codes.shape[1])(codes)) if isinstance(model, VAE) else None,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable_parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "training_minutes": whole.get("minutes"),
        "images_per_second": speed,
        "peak_memory_gb": memory,
        "notes": notes,
    }


def _made_images(
    model: EncoderModule,
    test: Tensor | Rows,
    some: Tensor,
    extractor: Extractor | None,
    lpips: LPIPS | None,
    device: torch.device,
    notes: list[str],
) -> dict[str, dict[str, Any] | None]:
    """How far rebuilt and drawn images are from test images, by Frechet from some; why draws are not is noted."""
    # A ClassifierReconstructor may have a decoder that never learned.
    rebuild = None if getattr(model, "reconstruction", "") == "none" else getattr(model, "reconstruct", None)
    sample = getattr(model, "sample", None)
    if extractor is None and (rebuild or sample):
        try:
            extractor = inception(device)
        except (ModuleNotFoundError, OSError) as error:
            if sample:
                why = f"Inception cannot be loaded ({explain(error)}): give an --extractor"
                notes.append(f"no FID, KID and rFID, since {why}")
    rebuilt: dict[str, Any] = {}
    if rebuild:
        rebuilt |= reconstruction_errors(rebuild, test, device, lpips=lpips)
        rebuilt |= {"lpips_network": lpips.name} if lpips else {}
        rebuilt |= measure_rfid(rebuild, some, extractor, device) if extractor else {}
    drawn = measure_generation(sample, some, extractor, device) if sample and extractor else None
    return {"reconstruction": rebuilt or None, "generation": drawn}


def _probes(
    model: EncoderModule,
    data: InMemoryDataModule,
    tested: dict[str, Codes],
    labels_per_class: Sequence[int],
    device: torch.device,
) -> tuple[dict[str, Any] | None, list[str]]:
    """Figures of the probes, if there are any, and what they do not say: why, from how many labels, of which codes."""
    if isinstance(model, Inversion) and model.encoder_checkpoint:
        return None, [f"its codes are read in the evaluation of {model.encoder_checkpoint}"]
    splits = labelled(encode_splits(model, data, ["train", "val"], device) | tested)
    if "test" not in splits or "train" not in splits or len(splits["train"][1].unique()) < 2:
        why = "the data has no labels of two classes to learn from, or none to test"
        return None, [f"nothing is read out of its codes, since {why}"]
    codes, labels = splits["train"]
    notes = [f"the probes learn from {len(labels)} labels"]
    if "val" not in splits:
        notes.append("without validation images, a tenth of the training images chooses the probes")
    with torch.no_grad():
        shape = model.encode(to_float(data.test_set.images[:1], device)).shape[1:]
    if len(shape) > 1:
        if shape.numel() == codes.shape[1]:
            how = "flattened"
        elif len(shape) == 3:
            how = "averaged over space"
        else:
            how = "pooled as their network does" if hasattr(model.encoder, "vectors") else "averaged over tokens"
        notes.append(f"codes {' x '.join(map(str, shape))} are {how} to {codes.shape[1]} numbers for the probes")
    return probe_codes(splits, len(data.class_names), labels_per_class, device), notes


def table(runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> str:
    """The figures as a Markdown table with a line per run; FIDs of another extractor or count have their own column.

    Args:
        runs: The runs.
        rows: What was measured of each.
    """
    values = [figures(_counted(row)) for row in rows]
    columns = columns_of(key for value in values for key in value)
    lines = []
    for run, row, value in zip(runs, rows, values, strict=True):
        cells = (column.metric.text(value[column.key]) if column.key in value else "" for column in columns)
        lines.append([str(run.folder), row["model"], *cells])
    return markdown_table(["run", "model", *(column.metric.heading for column in columns)], lines)


def _counted(row: dict[str, Any]) -> dict[str, Any]:
    """The same, with the number of images in the name of the extractor."""
    if drawn := row["generation"]:
        drawn = drawn | {"extractor": f"{drawn['extractor']}, {drawn['images']} images"}
    return row | {"generation": drawn}
