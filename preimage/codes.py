"""The codes of all images of a folder, by a network as it is, in one file: no training and no config."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datamodules import ImageFolderDataModule
from datamodules.image_cache import cores, opened, refuse_bad, tell_left_out
from datamodules.image_tree import find_images
from datamodules.source import Source
from lightning_modules import FrozenFeatures
from lightning_modules.networks.sources.base import extra
from lightning_modules.networks.tokens import Tokens
from preimage.files import write_atomically
from preimage.model import Model, load
from preimage.progress import Progress

_BATCH = 64


def write_codes(
    network: str,
    layer: str,
    out: Path,
    weights: str = "DEFAULT",
    image_size: int | None = None,
    tokens: Tokens = "all",
    **data: Any,
) -> None:
    """Writes the codes of all images of a folder or zip file, in its order, those without a label after the others.

    An `.npz` has the arrays `code` `(N, ...)`, `label` `(N,)` (-1 where it is not known), `name` `(N,)` and
    `class_names`; a `.parquet` has a row for each image with the flattened `code` (its shape is `code_shape` in pandas'
    `attrs`), `label`, `class_name` and `name`.

    Args:
        network: See `FrozenFeatures`, for this and those that follow.
        layer: Name of the layer.
        out: The file, `.npz` or `.parquet`.
        weights: Weights of the network.
        image_size: Height and width at which it looks, in pixels; by default its own.
        tokens: What is taken of tokens and maps.
        data: Where the images are and how they are laid out, see `ImageFolderDataModule`.

    Raises:
        FileNotFoundError: There is no such folder, or there are no such weights.
        ModuleNotFoundError: The library of the network, or that of the file, is not installed.
        ValueError: There is no such network or layer, it takes no images of that size, or an image cannot be read.
    """
    if out.suffix == ".parquet":
        extra("pyarrow", of="parquet")
    folder = ImageFolderDataModule(**data, val_fraction=0, test_fraction=0)
    source = Source(folder.root)
    tree = find_images(source, folder.layout, folder.wanted, every=True)
    for note in tree.notes:
        rank_zero_info(note)
    model = load(network, layer, weights, image_size, tokens=tokens)
    features = cast(FrozenFeatures, model.module)
    # A size that it refuses is said before anything is read.
    features.feature_shape(cast(int, features.image_size))
    codes, bad = list[Tensor](), dict[str, str]()
    for code, bad_of_batch in _encoded(model, source, tree.names):
        refuse_bad(source.root, bad_of_batch, folder.on_bad_image)
        bad |= bad_of_batch
        codes += [code] if len(code) else []
    tell_left_out(source.root, bad, len(tree.names))
    good = [index for index, name in enumerate(tree.names) if name not in bad]
    arrays = {
        "code": torch.cat(codes).float().numpy(),
        "label": np.array(tree.labels)[good],
        "name": np.array(tree.names)[good],
        "class_names": np.array(tree.class_names, dtype=str),
    }
    write_atomically(out, lambda file: _write(file, arrays))
    print(f"{out}: " + ", ".join(f"{key} {array.shape}" for key, array in arrays.items()))


def _encoded(model: Model, source: Source, names: list[str]) -> Iterator[tuple[Tensor, dict[str, str]]]:
    """The codes of some images at a time, and the reason by name for those that could not be read."""
    convert = cast(Callable[[Image.Image], Tensor], model.convert)

    def picture(name: str) -> Tensor | str:
        try:
            with opened(source.read(name)) as image:
                return convert(image)
        except (ValueError, OSError) as error:
            return str(error)

    bar = Progress(total=len(names), desc=f"encoding {source.root.name}", unit="images")
    with ThreadPoolExecutor(cores()) as pool, bar:  # PIL decodes without Python's lock
        for start in range(0, len(names), _BATCH):
            some = names[start : start + _BATCH]
            pictures = list(pool.map(picture, some))
            good = [image for image in pictures if isinstance(image, Tensor)]
            bad = {name: image for name, image in zip(some, pictures, strict=True) if isinstance(image, str)}
            yield model.encode(torch.stack(good)) if good else torch.empty(0), bad
            bar.update(len(some))


def _write(file: Path, arrays: dict[str, NDArray[Any]]) -> None:
    if file.suffix == ".npz":
        np.savez(file, **arrays)  # type: ignore[arg-type]
        return
    code, label, name, classes = arrays.values()
    frame = pd.DataFrame({"name": name, "label": label, "code": list(code.reshape(len(code), -1))})
    if len(classes):
        frame.insert(2, "class_name", [classes[index] if index >= 0 else None for index in label])
    frame.attrs["code_shape"] = list(code.shape[1:])
    frame.to_parquet(file)
