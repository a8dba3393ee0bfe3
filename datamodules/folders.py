"""Labels and splits of images by the folders in which they lie."""

import re
from collections import defaultdict
from collections.abc import Set

from .source import Entry, folded
from .splits import SplitName, split_named

#: Path of an image, and the parts of that path below some folder.
Image = tuple[str, list[str]]
TELL = "--data.layout folders takes every folder for a class, flat none"


def class_folders(images: list[Image], split: SplitName | None = None, known: Set[str] = frozenset()) -> list[Entry]:
    """Takes the outermost folders that tell images apart for classes, whatever they are called.

    Args:
        images: The images.
        split: Their split.
        known: Classes of the training images, folded; one other folder alone, as in `test/images/*.jpg`, is no class.

    Returns:
        The images, without labels where they lie in no class folder.

    Raises:
        ValueError: More images lie beside the class folders than in them.
    """
    while images and all(len(parts) > 2 and parts[0] == images[0][1][0] for _, parts in images):
        if folded(images[0][1][0]) in known:
            break
        images = [(name, parts[1:]) for name, parts in images]
    loose = [name for name, parts in images if len(parts) == 1]
    classes = sorted({parts[0] for _, parts in images if len(parts) > 1})
    if len(images) / 2 < len(loose) < len(images):
        raise ValueError(f"{len(loose)} images, as {loose[0]}, lie beside {_some(classes)}: are these classes? {TELL}")
    for outer in classes if len(classes) > 2 else []:
        inner = {parts[1] for _, parts in images if parts[0] == outer and len(parts) > 2}
        if inner == {*classes} - {outer}:
            raise ValueError(f"{outer}/ holds {_some(sorted(inner))} again, which are beside it: move one away")
    if known and len(classes) == 1 and folded(classes[0]) not in known:
        classes = []
    return [Entry(name, parts[0] if classes and len(parts) > 1 else None, split) for name, parts in images]


def split_folders(names: list[str]) -> tuple[list[Entry], list[str]] | None:
    """Looks for folders that are named as splits, with class folders in them, or images alone.

    They may also lie within class folders, as `CLASS/train/*.jpg`.

    Args:
        names: Paths of the images.

    Returns:
        The images, and what is to be said of them; None where no folder is named as a split.

    Raises:
        ValueError: A folder may as well be a class as a split, or there is more than one tree.
    """
    trees: dict[tuple[str, ...], dict[str, list[Image]]] = defaultdict(lambda: defaultdict(list))
    named = _split_names(
        {folder for place in {name.rpartition("/")[0] for name in names} for folder in place.split("/")}
    )
    for name in names:
        parts = name.split("/")
        level = next((i for i, part in enumerate(parts[:-1]) if part in named), None)
        if level is not None:
            trees[tuple(parts[:level])][parts[level]].append((name, parts[level + 1 :]))
    if not trees:
        return None
    tops = sorted(top for top in trees if len(top) == min(map(len, trees)))
    found, notes = _in_classes(tops, trees, named) if len(tops) > 1 else _in_tree(tops[0], trees[tops[0]], named, names)
    entries = {entry.name: entry for entry in found}
    return [entries[name] for name in names if name in entries], notes


def _split_names(folders: Set[str]) -> dict[str, SplitName]:
    """The split of each folder that names one, alone, or as one of a pair, as `seg_train` and `2_seg_test`."""
    named = {folder: split for folder in folders if (split := split_named(folder))}
    alike: dict[str, dict[str, SplitName]] = defaultdict(dict)
    for folder in folders - set(named):
        words = re.split(r"[\W_]+", folder.lower())
        splits = [(word, split) for word in words if (split := split_named(word))]
        if len(splits) == 1:
            alike[" ".join(word for word in words if word != splits[0][0] and not word.isdigit())][folder] = splits[0][
                1
            ]
    pairs = [same for same in alike.values() if len(set(same.values())) > 1]
    if len(pairs) > 1:
        names = sorted(name for same in pairs for name in same)
        raise ValueError(
            f"{_some(names)} name a class and a split in one: move the images to train/CLASS/, test/CLASS/"
        )
    return named | (pairs[0] if pairs else {})


def _in_classes(
    tops: list[tuple[str, ...]], trees: dict[tuple[str, ...], dict[str, list[Image]]], named: dict[str, SplitName]
) -> tuple[list[Entry], list[str]]:
    """Images as `CLASS/train/*.jpg`."""
    flat = all(len(parts) == 1 for top in tops for images in trees[top].values() for _, parts in images)
    if len({top[:-1] for top in tops}) > 1 or not flat:
        first, second = ("/".join((*top, min(trees[top]))) for top in tops[:2])
        raise ValueError(f"there is more than one tree, as {first} and {second}: set data.root to one of them")
    found = [
        Entry(name, top[-1], named[folder])
        for top in tops
        for folder, images in trees[top].items()
        for name, _ in images
    ]
    return found, []


def _in_tree(
    top: tuple[str, ...], folders: dict[str, list[Image]], named: dict[str, SplitName], names: list[str]
) -> tuple[list[Entry], list[str]]:
    """Images as `train/CLASS/*.jpg`, below the folder `top`."""
    splits: dict[SplitName, list[str]] = defaultdict(list)
    for folder in sorted(folders):
        splits[named[folder]].append(folder)
    below = "/".join((*top, ""))
    notes = [f"{' and '.join(same)} are both the {split} split" for split, same in splits.items() if len(same) > 1]
    inner = ((name, name.removeprefix(below).split("/")) for name in names if name.startswith(below))
    beside = [(name, parts) for name, parts in inner if len(parts) > 1 and parts[0] not in folders]
    train = [image for folder in splits.get("train", ()) for image in folders[folder]]
    # Without a folder of training images, they are in the class folders beside the splits, if there are any.
    found = class_folders(train or beside, "train")
    known = {folded(entry.label) for entry in found if entry.label}
    for split in ("val", "test"):
        images = [image for folder in splits.get(split, ()) for image in folders[folder]]
        if not train and any(len(parts) == 1 or folded(parts[0]) not in known for _, parts in images) and beside:
            raise ValueError(_either(splits[split][0], beside))
        found += class_folders(images, split, known)
    if set(splits) == {"train"} and beside and not known:
        raise ValueError(_either(splits["train"][0], beside))
    return found, notes


def _either(folder: str, beside: list[Image]) -> str:
    others = _some(sorted({parts[0] for _, parts in beside}))
    return f"{folder}/ beside {others} may be a class or a split: {TELL}, or put the others into train/CLASS/"


def _some(names: list[str]) -> str:
    """The first of some folders' names."""
    return ", ".join(f"{name}/" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
