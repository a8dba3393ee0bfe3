"""Everything that draws. What all pictures share: when to draw, and where a picture goes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from callbacks.outputs import OutputCallback
from preimage.files import write_atomically
from preimage.fonts import choose_fonts, drawable
from preimage.loggers import reporters, run_directory


class Picture(OutputCallback):
    """Base of callbacks that draw a picture from the outputs of validation and test.

    A subclass names what it `needs` and `keeps` of them, or has a `collect` of its own, which rank 0 calls; it draws in
    `draw`, which every rank calls since it may gather.

    Attributes:
        name: Folder of the pictures below `images/`, and their name in the loggers.
    """

    name: str

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> NDArray[np.uint8] | Figure | None:
        """Returns the picture `(H, W)` or `(H, W, 3)` or a figure, or None where there is nothing to draw."""
        raise NotImplementedError

    def look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws, and saves the picture."""
        picture = self.draw(trainer, pl_module)
        if picture is not None and trainer.is_global_zero:
            epoch = f"val_epoch_{trainer.current_epoch + 1:04d}"  # the first is 1, as everywhere
            split, file = ("test", "test") if trainer.testing else ("val", epoch)
            save_picture(trainer, picture, f"{self.name}/{file}.png", f"{split}/{self.name}")


def class_names(trainer: Trainer, count: int) -> list[str]:
    """Names of the classes of the data, or their numbers, up to `count`, where they have none."""
    names = getattr(getattr(trainer, "datamodule", None), "class_names", None)
    return names or [str(number) for number in range(count)]


def drawn_names(trainer: Trainer, count: int) -> list[str]:
    """The same, as they can be drawn."""
    return drawable(class_names(trainer, count))


def decode(pl_module: LightningModule, codes: Tensor) -> Tensor:
    """What a module's `decode` makes of codes `(N, ...)`: images `(N, C, H, W)` in [0, 1], float32 on the CPU."""
    with torch.no_grad():
        images: Tensor = pl_module.decode(codes.to(pl_module.device).to(pl_module.dtype))  # type: ignore[operator]
    return images.float().cpu()


def save_picture(trainer: Trainer, picture: NDArray[np.uint8] | Figure, file: str, key: str | None = None) -> None:
    """Writes a picture below `images/` in the run directory and hands it to the loggers that take pictures.

    A picture that cannot be written costs a warning and not the training.

    Args:
        trainer: The trainer, on rank 0.
        picture: uint8 array `(H, W)` or `(H, W, 3)`, or a matplotlib figure.
        file: Path below `images/`.
        key: Name in the loggers; without one only the file is written.
    """
    image = picture if isinstance(picture, np.ndarray) else _render(picture)
    save_below_images(trainer, file, Image.fromarray(image).save)
    for reporter in reporters(trainer) if key is not None else ():
        try:
            reporter.log_picture(str(key), image, trainer.global_step)
        except Exception as error:  # whatever a logger may raise
            rank_zero_warn(f"the picture {key} could not be logged: {error}")


def save_below_images(trainer: Trainer, file: str, write: Callable[[Path], Any]) -> None:
    """Writes a file below `images/` in the run directory; where that fails, it costs a warning and not the training.

    Args:
        trainer: The trainer, on rank 0.
        file: Path below `images/`.
        write: Writes to the path that it is given.
    """
    run_dir = run_directory(trainer)
    try:
        if run_dir is not None:
            write_atomically(run_dir / "images" / file, write)
    except OSError as error:
        rank_zero_warn(f"{Path('images') / file} could not be written: {error}")


def _render(figure: Figure) -> NDArray[np.uint8]:
    choose_fonts(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
