"""Codes in two dimensions: the images that a plane of them decodes to, and a map of those of a split."""

import math
from typing import Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from matplotlib.figure import Figure
from torch import Tensor

from preimage.checks import check_range

from . import Picture, decode, drawn_names
from .grids import image_grid

_MARKERS = "o^sDvP"  # each for ten classes, which have a colour each


class CodePlane(Picture):
    """Decodes a grid of codes: all of a two-dimensional code space, of a larger one the plane of two principal axes.

    The grid spans the codes of the split but for the outermost percent at either end. For modules with a method
    `decode` and codes of at least two numbers.

    Args:
        steps: Codes along each axis.
        every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
    """

    name = "code_plane"
    needs = ("reconstruction",)
    keeps = ("code", "logits")

    def __init__(self, steps: int = 9, every_n_epochs: int = 5) -> None:
        super().__init__(every_n_epochs)
        check_range("CodePlane", "[2, inf)", steps=steps)
        self.steps = steps

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> Figure | None:
        """Decodes the grid, a row at a time."""
        kept = self.joined()
        codes, logits = (kept.get(key, torch.empty(0)) for key in self.keeps)
        if len(codes) < 2 or codes[0].numel() < 2:
            return None
        flat = codes.flatten(1)  # not pooled as for probes: what lies on the plane is decoded
        centre, axes = code_axes(flat)
        scores = (flat - centre) @ axes.T
        low, high = torch.quantile(scores, torch.tensor([0.01, 0.99]), dim=0)
        across = torch.linspace(float(low[0]), float(high[0]), self.steps)
        up = torch.linspace(float(high[1]), float(low[1]), self.steps)  # the picture's rows run downwards
        grid = centre + torch.cartesian_prod(up, across).flip(1) @ axes
        rows = grid.view(-1, *codes.shape[1:]).split(self.steps)
        if codes[0].numel() > 2:
            names = ["first principal axis of the codes", "second principal axis of the codes"]
        elif codes.equal(logits):
            names = [f"logit of {name}" for name in drawn_names(trainer, 2)]
        else:
            names = ["first number of the code", "second number of the code"]
        return plane_figure(torch.cat([decode(pl_module, row) for row in rows]), across, up, names)


class LatentProjection(Picture):
    """Projects the codes of a split to the plane and colours them by class, those without a label in gray.

    Args:
        method: Principal components, or t-SNE (slower, shows clusters, distances mean little).
        count: Number of images.
        every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
    """

    name = "latents"
    needs = keeps = ("code", "label")
    pools = True

    def __init__(self, method: Literal["pca", "tsne"] = "pca", count: int = 2000, every_n_epochs: int = 5) -> None:
        super().__init__(every_n_epochs)
        check_range("LatentProjection", "[3, inf)", count=count)
        self.method = method
        self.count = count

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> Figure | None:
        """Projects and plots the codes."""
        if not trainer.is_global_zero:
            return None
        if (count := sum(len(part["code"]) for part in self.kept)) < 3:
            rank_zero_warn(f"LatentProjection: {count} codes are too few for a plane, and no picture is drawn")
            return None
        codes, labels = self.joined().values()
        points = self._project(codes)
        names = drawn_names(trainer, int(labels.max()) + 1)
        figure = Figure(figsize=(7, 6), layout="constrained")
        axes = figure.add_subplot()
        for label in labels.unique().tolist():
            name, color = (names[label], f"C{label % 10}") if label >= 0 else ("unlabelled", "gray")
            across, up = points[labels == label].T
            axes.scatter(across, up, s=9, color=color, marker=_MARKERS[label // 10 % len(_MARKERS)], label=name)
        classes, of = int((labels.unique() >= 0).sum()), ""
        if classes > 20:
            of = f" of {classes} classes, several to a colour"
        elif classes:
            axes.legend(markerscale=2, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        axes.set(title=f"codes of {count} images{of}, {self.method.upper()}", xticks=[], yticks=[])
        return figure

    def _project(self, codes: Tensor) -> Tensor:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE

        if codes.shape[1] == 1:
            return torch.cat([codes, torch.zeros_like(codes)], dim=1)
        tsne = TSNE(2, perplexity=min(30.0, (len(codes) - 1) / 3), init="pca", random_state=0)
        method = tsne if self.method == "tsne" else PCA(2, random_state=0)
        return torch.from_numpy(method.fit_transform(codes.numpy()))


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


def plane_figure(images: Tensor, across: Tensor, up: Tensor, names: list[str]) -> Figure:
    """Plots images where they lie in the plane.

    Args:
        images: Images `(steps * steps, C, H, W)` in [0, 1], row by row.
        across: Coordinates `(steps,)` of the columns.
        up: Coordinates `(steps,)` of the rows, from the top down.
        names: Names of the horizontal and the vertical axis.
    """
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.add_subplot()
    picture = image_grid(images, len(across))
    axes.imshow(picture)
    for axis, values, length in ((axes.xaxis, across, picture.shape[1]), (axes.yaxis, up, picture.shape[0])):
        middles = (torch.arange(len(values)) + 0.5) * length / len(values)
        step = float((values[1] - values[0]).abs()) or 1.0
        digits = max(0, 1 - math.floor(math.log10(step)))  # so that neighbours differ
        axis.set_ticks(middles.tolist(), labels=[f"{value:.{digits}f}" for value in values.tolist()])
    axes.set(xlabel=names[0], ylabel=names[1])
    return figure
