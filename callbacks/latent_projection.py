"""A map of the codes in two dimensions."""

from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from preimage.checks import check_range

from .pictures import Picture, class_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LatentProjection(Picture):
    """Projects the codes of a split to the plane and colours them by class, those without a label in gray."""

    name = "latents"

    def __init__(self, method: Literal["pca", "tsne"] = "pca", count: int = 2000, every_n_epochs: int = 5) -> None:
        """Sets the projection.

        Args:
            method: Principal components, or t-SNE (slower, shows clusters, distances mean little).
            count: Number of images.
            every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
        """
        super().__init__(every_n_epochs)
        check_range("LatentProjection", "[3, inf)", count=count)
        self.method = method
        self.count = count

    def collect(self, trainer: Trainer, outputs: dict[str, Any], batch_idx: int) -> None:
        """Keeps some codes and their labels."""
        chosen = self.pick(trainer, batch_idx, len(outputs["code"]), self.count)
        self.kept.append((outputs["code"][chosen].flatten(1).float().cpu(), outputs["label"][chosen].cpu()))

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> "Figure | None":
        """Projects and plots the codes."""
        if not trainer.is_global_zero:
            return None
        if (count := sum(len(code) for code, _ in self.kept)) < 3:
            rank_zero_warn(f"LatentProjection: {count} codes are too few for a plane, and no picture is drawn")
            return None
        codes, labels = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        points = self._project(codes)
        from matplotlib.figure import Figure

        names = class_names(trainer)
        figure = Figure(figsize=(7, 6), layout="constrained")
        axes = figure.add_subplot()
        for label in labels.unique().tolist():
            chosen = labels == label
            name = "unlabelled" if label < 0 else names[label] if names is not None else str(label)
            axes.scatter(
                points[chosen, 0], points[chosen, 1], s=6, color=f"C{label % 10}" if label >= 0 else "gray", label=name
            )
        if len(labels.unique()) <= 20 and (labels >= 0).any():
            axes.legend(markerscale=3, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        axes.set(title=f"codes of {len(codes)} images, {self.method.upper()}", xticks=[], yticks=[])
        return figure

    def _project(self, codes: Tensor) -> Tensor:
        from sklearn.decomposition import PCA

        if codes.shape[1] == 1:
            return torch.cat([codes, torch.zeros_like(codes)], dim=1)
        if self.method == "pca":
            return torch.from_numpy(PCA(2, random_state=0).fit_transform(codes.numpy()))
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(codes) - 1) / 3)
        return torch.from_numpy(TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(codes.numpy()))
