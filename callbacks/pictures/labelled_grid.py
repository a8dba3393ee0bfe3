"""Images with what a model that classifies and reconstructs makes of them."""

from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from preimage.checks import check_range

from . import Picture, drawn_names


class LabelledGrid(Picture):
    """Draws what the encoder sees of an image, the target and its reconstruction, under label and prediction.

    For modules such as `ClassifierReconstructor`, for the same images of the split at every epoch. The rows are those
    of `input`, `target` and `reconstruction` that a step gives; where it gives none of them, the images.

    Args:
        count: Number of images, one per column.
        every_n_epochs: Draw at every n-th epoch, and at the test; 0 for the test alone.
    """

    name = "labelled"
    needs = ("image", "logits")
    keeps = ("image", "input", "target", "reconstruction", "label", "logits")

    def __init__(self, count: int = 8, every_n_epochs: int = 5) -> None:
        super().__init__(every_n_epochs)
        check_range("LabelledGrid", "[1, inf)", count=count)
        self.count = count

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> Figure | None:
        """Writes label and prediction over each column."""
        if not self.kept:
            return None
        kept = self.joined()
        rows: dict[str, Tensor] = {key: kept[key] for key in ("input", "target", "reconstruction") if key in kept}
        probabilities = kept["logits"].softmax(dim=1)
        names = drawn_names(trainer, probabilities.shape[1])
        return labelled_figure(rows or {"image": kept["image"]}, kept["label"], probabilities, names)


def labelled_figure(rows: dict[str, Tensor], labels: Tensor, probabilities: Tensor, names: list[str]) -> Figure:
    """Lays images out in named rows, with the label and the predicted class over each column.

    Args:
        rows: Images `(N, C, H, W)` in [0, 1] by the name of their row, C = 1 or 3.
        labels: Class indices `(N,)`, -1 for an image whose label is not given.
        probabilities: Class probabilities `(N, num_classes)`.
        names: Names of the classes.

    Returns:
        The figure; a prediction is green where it is right and red where it is wrong.
    """
    figure = Figure(figsize=(1.6 * len(labels), 1.6 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), len(labels), squeeze=False)
    for line, (row, images) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(row)
        for cell, image in zip(line, images.clamp(0, 1).float(), strict=True):
            cell.imshow(image.permute(1, 2, 0).squeeze(2), cmap="gray", vmin=0, vmax=1)
            cell.set(xticks=[], yticks=[])
    for cell, label, probability in zip(axes[0], labels.tolist(), probabilities, strict=True):
        best = int(probability.argmax())
        color = "gray" if label < 0 else "green" if best == label else "red"
        text = f"{names[label] if label >= 0 else 'unlabelled'}\npredicted {names[best]} {probability[best]:.0%}"
        cell.set_title(text, color=color, fontsize=8)
    return figure
