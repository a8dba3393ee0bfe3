"""Images decoded from a plane of codes."""

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from preimage.checks import check_range

from .pictures import Picture, class_names, decode
from .reconstruction_grid import image_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class CodePlane(Picture):
    """Decodes a grid of codes: all of a two-dimensional code space, of a larger one the plane of two principal axes.

    The grid spans the codes of the split but for the outermost percent at either end. For modules with a method
    `decode` and codes of at least two numbers.
    """

    name = "code_plane"

    def __init__(self, steps: int = 9, every_n_epochs: int = 5) -> None:
        """Sets the size of the grid.

        Args:
            steps: Codes along each axis.
            every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
        """
        super().__init__(every_n_epochs)
        check_range("CodePlane", "[2, inf)", steps=steps)
        self.steps = steps

    def collect(self, trainer: Trainer, outputs: dict[str, Any], batch_idx: int) -> None:
        """Keeps the codes of a batch that were decoded."""
        if "reconstruction" in outputs:
            self.kept.append(outputs["code"].float().cpu())

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> "Figure | None":
        """Decodes the grid, a row at a time."""
        codes = torch.cat(self.kept) if self.kept else torch.empty(0, 0)
        if len(codes) < 2 or codes[0].numel() < 2:
            return None
        centre, axes = code_axes(codes.flatten(1))
        scores = (codes.flatten(1) - centre) @ axes.T
        low, high = torch.quantile(scores, torch.tensor([0.01, 0.99]), dim=0)
        across = torch.linspace(float(low[0]), float(high[0]), self.steps)
        up = torch.linspace(float(high[1]), float(low[1]), self.steps)  # the picture's rows run downwards
        grid = centre + torch.cartesian_prod(up, across).flip(1) @ axes
        rows = grid.view(-1, *codes.shape[1:]).split(self.steps)
        images = torch.cat([decode(pl_module, row) for row in rows])
        return plane_figure(images, across, up, _axis_names(trainer, pl_module, codes[0].numel()))


def _axis_names(trainer: Trainer, pl_module: LightningModule, length: int) -> list[str]:
    if length > 2:
        return ["first principal axis of the codes", "second principal axis of the codes"]
    classes = class_names(trainer)
    if classes is not None and isinstance(getattr(pl_module, "head", None), nn.Identity):
        return [f"logit of {name}" for name in classes]
    return ["first number of the code", "second number of the code"]


def code_axes(codes: Tensor) -> tuple[Tensor, Tensor]:
    """The plane in which codes are looked at: their own if they have two numbers, else that of the most variance.

    Args:
        codes: Codes `(N, D)`, D and N at least 2.

    Returns:
        A point of the plane `(D,)` and two orthonormal directions `(2, D)`.
    """
    if codes.shape[1] == 2:
        return torch.zeros(2), torch.eye(2)
    from sklearn.decomposition import PCA

    pca = PCA(2, random_state=0).fit(codes.numpy())
    return torch.from_numpy(pca.mean_).float(), torch.from_numpy(pca.components_).float()


def plane_figure(images: Tensor, across: Tensor, up: Tensor, names: list[str]) -> "Figure":
    """Plots images at their places in the plane.

    Args:
        images: Images `(steps * steps, C, H, W)` in [0, 1], row by row.
        across: Horizontal places `(steps,)` of the columns.
        up: Vertical places `(steps,)` of the rows, from the top down.
        names: Names of the horizontal and the vertical axis.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.add_subplot()
    picture = image_grid(images, len(across))
    axes.imshow(picture)
    height, width = picture.shape[:2]
    columns, rows = ((torch.arange(len(across)) + 0.5) * length / len(across) for length in (width, height))
    axes.set_xticks(columns.tolist(), [f"{value:.2g}" for value in across.tolist()])
    axes.set_yticks(rows.tolist(), [f"{value:.2g}" for value in up.tolist()])
    axes.set(xlabel=names[0], ylabel=names[1])
    return figure
