"""Finds images, labels and splits in a folder or zip file, by the layouts in which data sets are passed around."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from .folders import class_folders, split_folders
from .source import EXPECTED, Entry, Source, folded
from .splits import SplitName
from .tables import Unused, Wanted, from_tables

Layout = Literal["auto", "folders", "splits", "csv", "flat"]
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


@dataclass(frozen=True)
class ImageTree:
    """Images of a source with their labels.

    Attributes:
        names: Paths in the source.
        labels: Class indices, one per image; -1 for all where the source has no labels.
        splits: `train`, `val` or `test` where the tree says so, else None; one per image.
        class_names: Names of the classes, by label.
        notes: What was chosen or left out, for the user to know.
    """

    names: list[str]
    labels: list[int]
    splits: list[SplitName | None]
    class_names: list[str]
    notes: list[str] = field(default_factory=list)


def find_images(source: Source, layout: Layout = "auto", wanted: Wanted | None = None) -> ImageTree:
    """Looks through a source for images and their labels.

    Args:
        source: The files.
        layout: How they are laid out; `auto` looks for tables, then for split folders, class folders, and images alone.
        wanted: What the user says of a table of labels.

    Returns:
        The images.

    Raises:
        ValueError: There are no images in that layout, it can be taken in more than one way, or a table has a mistake.
    """
    names = source.images()
    entries: list[Entry] = []
    notes, unused = list(source.notes), list[Unused]()
    if layout in ("auto", "csv"):
        entries, notes_of_tables, unused = from_tables(source, names, wanted or Wanted())
        notes += notes_of_tables
    by_table = {entry.name for entry in entries}
    to_test = all(entry.split in ("val", "test") for entry in entries)  # or there are none
    found = split_folders(names) if to_test and layout in ("auto", "splits") else None
    if found and (not entries or any(entry.label and entry.split == "train" for entry in found[0])):
        entries += [entry for entry in found[0] if entry.name not in by_table]
        notes += found[1]
    if layout in ("auto", "folders") and not entries:
        entries = class_folders([(name, name.split("/")) for name in names])
    if layout == "flat":
        entries = [Entry(name, None, None) for name in names]
    if not entries:
        why = f"; {unused[0].reason}" if unused else ""
        raise ValueError(f"{source.root} holds {len(names)} images, but not as {EXPECTED}; it has {source.seen()}{why}")
    if any(entry.split == "train" for entry in entries):  # what is in none of the splits is not for the training
        entries = [entry for entry in entries if entry.split]
    labelled, spelled = _one_spelling([entry for entry in entries if entry.label])
    classes = sorted({str(entry.label) for entry in labelled})
    train = [entry for entry in entries if entry.split in (None, "train")]  # without any, the rest is good for a test
    if len(classes) > 1 and (not train or any(entry.label for entry in train)):
        notes += spelled
    elif unclear := [reason for reason, asks in unused if asks]:
        raise ValueError(f"{unclear[0]}, or --data.layout flat for images without labels")
    elif layout in ("auto", "flat"):
        labelled = [entry._replace(label=None) for entry in entries]
        notes.append(_why_unlabelled(labelled, classes))
    else:
        raise ValueError(f"{source.root} holds images of {len(classes)} class {classes}, expected two or more")
    kept = {entry.name for entry in labelled}
    if left := Counter(name.rpartition("/")[0] for name in names if name not in kept):
        some = ", ".join(f"{count} in {folder or source.root}" for folder, count in left.most_common(3))
        notes.append(f"{left.total()} images are left out, since they have no label or are in no split: {some}")
    if empty := source.without_images(names):
        notes.append(f"{len(empty)} folders hold no images: {', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''}")
    return _tree(labelled, notes + [reason for reason, _ in unused])


def _why_unlabelled(entries: list[Entry], classes: list[str]) -> str:
    if not classes:
        return f"{len(entries)} images without labels"
    why = f"{classes[0]} would be their only class" if len(classes) == 1 else "no image to train on has one"
    return f"{len(entries)} images are taken without labels, since {why}"


def _tree(entries: list[Entry], notes: list[str]) -> ImageTree:
    class_names = {entry.label for entry in entries if entry.label is not None}
    numbers = all(NUMBER.fullmatch(name) for name in class_names)
    ordered = sorted(class_names, key=lambda name: Decimal(name)) if numbers else sorted(class_names)
    index: dict[str | None, int] = {name: number for number, name in enumerate(ordered)} | {None: -1}
    names, labels, splits = zip(*entries, strict=True)
    return ImageTree(list(names), [index[label] for label in labels], list(splits), ordered, notes)


def _one_spelling(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """Takes for one class what is one number, as 1 and 1.0, and what differs only by case between splits.

    Within a split `A` and `a` may be letters.
    """
    plain = {entry.label or "": (entry.label or "").strip() for entry in entries}
    names = sorted(set(plain.values()), key=lambda name: (len(name), name))
    first: dict[Decimal, str] = {}
    spelled = {name: first.setdefault(Decimal(name), name) for name in names if NUMBER.fullmatch(name)}
    trained = {plain[entry.label or ""] for entry in entries if entry.split in (None, "train")}
    same = defaultdict(list)
    for name in sorted(trained):
        same[folded(name)].append(name)
    for name in names:
        if name not in trained and len(same[folded(name)]) == 1:
            spelled[name] = same[folded(name)][0]
    notes = []
    if changed := [f"{name} is {to}" for name, to in spelled.items() if name != to]:
        notes.append(f"classes that differ only in spelling are one: {', '.join(changed[:5])}")
    if apart := [" and ".join(alike) for alike in same.values() if len(alike) > 1 and len(alike[0]) > 1]:
        notes.append(f"classes that differ only by case are kept apart: {', '.join(apart[:5])}")
    final = {label: spelled.get(name, name) for label, name in plain.items()}
    return [Entry(name, final[label or ""], split) for name, label, split in entries], notes
