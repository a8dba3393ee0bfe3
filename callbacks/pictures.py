"""What all drawing callbacks share: when to draw, and where a picture goes."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from preimage.checks import check_range
from preimage.files import write_atomically

from .run_directory import run_directory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Picture(Callback):
    """Base of callbacks that draw a picture from the outputs of validation and test.

    A subclass collects in `collect`, on rank 0, and draws in `draw`, which every rank calls since it may gather.

    Attributes:
        name: Folder of the pictures below `images/`, and their name in the loggers.
        kept: What `collect` keeps of the split; empty at its first batch.
    """

    name: str

    def __init__(self, every_n_epochs: int = 1) -> None:
        """Sets how often to draw.

        Args:
            every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
        """
        check_range(type(self).__name__, "[0, inf)", every_n_epochs=every_n_epochs)
        self.every_n_epochs = every_n_epochs
        self.kept: list[Any] = []

    def collect(self, trainer: Trainer, outputs: dict[str, Any], batch_idx: int) -> None:
        """Keeps what is needed of the outputs of one validation or test step."""

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> "NDArray[np.uint8] | Figure | None":
        """Returns the picture `(H, W)` or `(H, W, 3)` or a figure, or None where there is nothing to draw."""
        raise NotImplementedError

    def pick(self, trainer: Trainer, batch_idx: int, size: int, count: int) -> Tensor:
        """Chooses images of a batch so that `count` are spread evenly over the split, the same at every epoch.

        The first ones would all be of one class where the images are sorted by class.

        Args:
            trainer: The trainer, which knows the number of batches.
            batch_idx: Index of the batch.
            size: Images in the batch.
            count: Images wanted of the whole split.

        Returns:
            Indices into the batch.
        """
        batches = int((trainer.num_test_batches if trainer.testing else trainer.num_val_batches)[0])
        share = min(size, count * (batch_idx + 1) // batches - count * batch_idx // batches)
        return (torch.arange(share) * size).div(max(share, 1), rounding_mode="floor")

    def _due(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        if trainer.testing:
            return True
        return self.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _collect(self, trainer: Trainer, outputs: Any, batch_idx: int) -> None:
        if trainer.is_global_zero and self._due(trainer) and isinstance(outputs, dict):
            if batch_idx == 0:
                self.kept = []
            self.collect(trainer, outputs, batch_idx)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._due(trainer):
            return
        picture = self.draw(trainer, pl_module)
        if picture is not None and trainer.is_global_zero:
            split = "test" if trainer.testing else "val"
            file = "test.png" if trainer.testing else f"val_epoch_{trainer.current_epoch:04d}.png"
            save_picture(trainer, picture, f"{self.name}/{file}", f"{split}/{self.name}")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Collects from a validation step."""
        self._collect(trainer, outputs, batch_idx)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Collects from a test step."""
        self._collect(trainer, outputs, batch_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws after the validation."""
        self._draw(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws after the test."""
        self._draw(trainer, pl_module)


def class_names(trainer: Trainer) -> list[str] | None:
    """Names of the classes of the data, where it has any."""
    return getattr(getattr(trainer, "datamodule", None), "class_names", None) or None


def decode(pl_module: LightningModule, codes: Tensor) -> Tensor:
    """What a module's `decode` makes of codes.

    Args:
        pl_module: The module.
        codes: Codes `(N, ...)`.

    Returns:
        Images `(N, C, H, W)` in [0, 1], as float32 on the CPU.
    """
    with torch.no_grad():
        images: Tensor = pl_module.decode(codes.to(pl_module.device).to(pl_module.dtype))  # type: ignore[operator]
    return images.float().cpu()


def save_picture(trainer: Trainer, picture: "NDArray[np.uint8] | Figure", file: str, key: str | None = None) -> None:
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
    if key is not None:
        try:
            _log_picture(trainer, key, image)
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


def _render(figure: "Figure") -> NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _log_picture(trainer: Trainer, key: str, image: NDArray[np.uint8]) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [image], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            formats = "HW" if image.ndim == 2 else "HWC"
            logger.experiment.add_image(key, image, trainer.global_step, dataformats=formats)
