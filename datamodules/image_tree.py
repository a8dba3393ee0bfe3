"""Finds images, labels and splits in a folder or zip file, by the layouts in which data sets are passed around."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from .source import EXPECTED, Entry, Source, folded, is_hidden
from .splits import SplitName, split_named
from .tables import TABLES, Unused, Wanted, from_tables

Layout = Literal["auto", "folders", "splits", "csv", "flat"]
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_TELL = "--data.layout folders takes every folder for a class, flat none"
#: Path of an image, and the parts of that path below some folder.
_Image = tuple[str, list[str]]


class ImageTree(NamedTuple):
    """Images of a source with their labels.

    Attributes:
        names: Paths in the source.
        labels: Class indices, one per image; -1 for an image without a label.
        splits: `train`, `val` or `test` where the tree says so, else None; one per image.
        class_names: Names of the classes, by label.
        notes: What was chosen or left out, for the user to know.
    """

    names: list[str]
    labels: list[int]
    splits: list[SplitName | None]
    class_names: list[str]
    notes: Sequence[str] = ()


def find_images(
    source: Source, layout: Layout = "auto", wanted: Wanted | None = None, every: bool = False
) -> ImageTree:
    """Looks through a source for images and their labels.

    Args:
        source: The files.
        layout: How they are laid out; `auto` looks for tables, then for split folders, class folders, and images alone.
        wanted: What the user says of a table of labels.
        every: Beside images with labels, take those without one too, after them; else they are left out.

    Raises:
        ValueError: There are no images in that layout, it can be taken in more than one way, or a table has a mistake.
    """
    names, wanted = source.images(), wanted or Wanted()
    entries, notes, unused = _entries(source, names, layout, wanted)
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
        why = f"{classes[0]} would be their only class" if len(classes) == 1 else "no image to train on has one"
        notes.append(
            f"{len(entries)} images " + (f"are taken without labels, since {why}" if classes else "without labels")
        )
        classes = []
    else:
        raise ValueError(f"{source.root} holds images of {len(classes)} class {classes}, expected two or more")
    kept = {entry.name for entry in labelled}
    if every:
        labelled += [Entry(name, None, None) for name in names if name not in kept]
        kept.update(names)
    notes += _left_out(source, names, kept, wanted)
    classes = in_order(classes)
    index: dict[str | None, int] = {name: number for number, name in enumerate(classes)} | {None: -1}
    paths, labels, splits = map(list, zip(*labelled, strict=True))
    return ImageTree(paths, [index[label] for label in labels], splits, classes, notes + [why for why, _ in unused])


def in_order(classes: Iterable[str]) -> list[str]:
    """The names of classes, each once: numbers by their value, others by their letters."""
    names = sorted({*classes})
    return sorted(names, key=Decimal) if all(map(_NUMBER.fullmatch, names)) else names


def _entries(
    source: Source, names: list[str], layout: Layout, wanted: Wanted
) -> tuple[list[Entry], list[str], list[Unused]]:
    """The images in the first of the layouts that there is, what is to be said of them, and tables without labels."""
    entries, notes, unused = list[Entry](), list(source.notes), list[Unused]()
    if layout in ("auto", "csv"):
        entries, notes_of_tables, unused = from_tables(source, names, wanted)
        notes += notes_of_tables
    if layout in ("auto", "splits") and all(entry.split in ("val", "test") for entry in entries):  # or there are none
        by_table = {entry.name for entry in entries}
        by_split, notes_of_splits = _by_split_folder(names)
        if not entries or any(entry.label and entry.split == "train" for entry in by_split):
            entries += [entry for entry in by_split if entry.name not in by_table]
            notes += notes_of_splits
    if layout in ("auto", "folders") and not entries:
        entries = _by_class_folder([(name, name.split("/")) for name in names])
    if layout == "flat":
        entries = [Entry(name, None, None) for name in names]
    return entries, notes, unused


def _left_out(source: Source, names: list[str], kept: Set[str], wanted: Wanted) -> list[str]:
    """A line for each kind of what is left out: images, other files, folders."""
    images = Counter(name.rpartition("/")[0] or str(source.root) for name in names if name not in kept)
    tables = (*TABLES, (wanted.table or TABLES[0]).lower())
    looked_at = {*names}
    others = [name.lower() for name in source.sizes if name not in looked_at and not is_hidden(name)]
    files = Counter(PurePosixPath(name).suffix or name for name in others if not name.endswith(tables))
    empty = source.without_images(names)
    notes = []
    if images:
        what = ", ".join(f"{count} in {folder}" for folder, count in images.most_common(3))
        notes.append(f"{images.total()} images are left out, since they have no label or are in no split: {what}")
    if files:
        what = ", ".join(f"{count} {suffix}" for suffix, count in files.most_common(3))
        notes.append(f"{files.total()} files are no images and are left out: {what}")
    if empty:
        notes.append(f"{len(empty)} folders hold no images: {', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''}")
    return notes


def _by_class_folder(
    images: list[_Image], split: SplitName | None = None, known: Set[str] = frozenset()
) -> list[Entry]:
    """Takes the outermost folders that tell images apart for classes, whatever they are called.

    One folder alone that is none of the known classes (of the training images, folded) is none: `test/images/*.jpg`.
    """
    while images and all(len(parts) > 2 and parts[0] == images[0][1][0] for _, parts in images):
        if folded(images[0][1][0]) in known:
            break
        images = [(name, parts[1:]) for name, parts in images]
    loose = [name for name, parts in images if len(parts) == 1]
    classes = sorted({parts[0] for _, parts in images if len(parts) > 1})
    if len(images) / 2 < len(loose) < len(images):
        raise ValueError(f"{len(loose)} images, as {loose[0]}, lie beside {_some(classes)}: are these classes? {_TELL}")
    inner = defaultdict[str, set[str]](set)
    for _, parts in images:
        if len(parts) > 2:
            inner[parts[0]].add(parts[1])
    for outer in sorted(inner) if len(classes) > 2 else []:
        if inner[outer] == {*classes} - {outer}:
            raise ValueError(f"{outer}/ holds {_some(sorted(inner[outer]))} again, which are beside it: move one away")
    if known and len(classes) == 1 and folded(classes[0]) not in known:
        classes = []
    return [Entry(name, parts[0] if classes and len(parts) > 1 else None, split) for name, parts in images]


def _by_split_folder(names: list[str]) -> tuple[list[Entry], list[str]]:
    """The images in folders that are named as splits, in `train/CLASS/`, `CLASS/train/` or `train/`, and notes."""
    named = _split_names({folder for path in {name.rpartition("/")[0] for name in names} for folder in path.split("/")})
    trees: dict[tuple[str, ...], dict[str, list[_Image]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        *folders, file = name.split("/")
        level = next((i for i, folder in enumerate(folders) if folder in named), None)
        if level is not None:
            trees[tuple(folders[:level])][folders[level]].append((name, [*folders[level + 1 :], file]))
    if not trees:
        return [], []
    tops = sorted(top for top in trees if len(top) == min(map(len, trees)))
    if len(tops) == 1:
        by_name, notes = _by_tree("/".join((*tops[0], "")), trees[tops[0]], named, names)
        return [by_name[name] for name in names if name in by_name], notes
    within = [(top, folder, image) for top in tops for folder, images in trees[top].items() for image in images]
    if len({top[:-1] for top in tops}) > 1 or any(len(parts) > 1 for _, _, (_, parts) in within):
        first, second = ("/".join((*top, min(trees[top]))) for top in tops[:2])
        raise ValueError(f"there is more than one tree, as {first} and {second}: set data.root to one of them")
    by_name = {name: Entry(name, top[-1], named[folder]) for top, folder, (name, _) in within}
    return [by_name[name] for name in names if name in by_name], []


def _split_names(folders: Set[str]) -> dict[str, SplitName]:
    """The split of each folder that names one, alone, or as one of a pair, as `seg_train` and `2_seg_test`."""
    named = {folder: split for folder in folders if (split := split_named(folder))}
    alike: dict[str, dict[str, SplitName]] = defaultdict(dict)
    for folder in folders - set(named):
        words = [word for word in re.split(r"[\W_]+", folder.lower()) if not word.isdigit()]
        splits = [(word, split) for word in words if (split := split_named(word))]
        if len(splits) == 1:
            alike[" ".join(word for word in words if word != splits[0][0])][folder] = splits[0][1]
    pairs = [same for same in alike.values() if len(set(same.values())) > 1]
    if len(pairs) > 1:
        both = _some(sorted(name for same in pairs for name in same))
        raise ValueError(f"{both} name a class and a split in one: move the images to train/CLASS/, test/CLASS/")
    return named | (pairs[0] if pairs else {})


def _by_tree(
    top: str, folders: dict[str, list[_Image]], named: dict[str, SplitName], names: list[str]
) -> tuple[dict[str, Entry], list[str]]:
    """Images by name in `train/CLASS/*.jpg`, or where there is no folder of training images, beside the splits."""
    splits: dict[SplitName, list[str]] = defaultdict(list)
    for folder in sorted(folders):
        splits[named[folder]].append(folder)
    images = {split: [image for folder in same for image in folders[folder]] for split, same in splits.items()}
    inner = [(name, name.removeprefix(top).split("/")) for name in names if name.startswith(top)]
    beside = [(name, parts) for name, parts in inner if len(parts) > 1 and parts[0] not in folders]
    entries = _by_class_folder(images.get("train") or beside, "train")
    known = {folded(entry.label) for entry in entries if entry.label}
    strange: list[SplitName] = [
        split
        for split, of_split in sorted(images.items(), reverse=True)  # val before test
        if "train" not in splits and any(len(parts) == 1 or folded(parts[0]) not in known for _, parts in of_split)
    ]
    if beside and (strange or (set(splits) == {"train"} and not known)):
        folder, others = splits[strange[0] if strange else "train"][0], _some(sorted({parts[0] for _, parts in beside}))
        raise ValueError(
            f"{folder}/ beside {others} may be a class or a split: {_TELL}, or put the others into train/CLASS/"
        )
    for split in ("val", "test"):
        entries += _by_class_folder(images.get(split, []), split, known)
    notes = [f"{' and '.join(same)} are both the {split} split" for split, same in splits.items() if len(same) > 1]
    return {entry.name: entry for entry in entries}, notes


def _some(names: list[str]) -> str:
    """The first of some folders' names."""
    return ", ".join(f"{name}/" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _one_spelling(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """Takes for one class what is one number, as 1 and 1.0, and what differs only by case between splits.

    Within a split `A` and `a` may be letters.
    """
    plain = {str(entry.label): str(entry.label).strip() for entry in entries}
    trained = {plain[str(entry.label)] for entry in entries if entry.split in (None, "train")}
    names = sorted(set(plain.values()), key=lambda name: (len(name), name))
    first: dict[Decimal, str] = {}
    spelled = {name: first.setdefault(Decimal(name), name) for name in names if _NUMBER.fullmatch(name)}
    same = defaultdict(list)
    for name in sorted(trained):
        same[folded(name)].append(name)
    spelled |= {name: same[folded(name)][0] for name in names if name not in trained and len(same[folded(name)]) == 1}
    notes = []
    if changed := [f"{name} is {to}" for name, to in spelled.items() if name != to]:
        notes.append(f"classes that differ only in spelling are one: {', '.join(changed[:5])}")
    if apart := [" and ".join(alike) for alike in same.values() if len(alike) > 1 and len(alike[0]) > 1]:
        notes.append(f"classes that differ only by case are kept apart: {', '.join(apart[:5])}")
    final = {label: spelled.get(name, name) for label, name in plain.items()}
    return [entry._replace(label=final[str(entry.label)]) for entry in entries], notes
