"""What the nearest neighbours of a code know about its class."""

from copy import copy

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from callbacks.outputs import OutputCallback
from lightning_modules.neighbours import nearest, vote
from preimage.checks import check_range


class KNNProbe(OutputCallback):
    """Classifies codes by their nearest neighbours among the training images' codes, at the test and in validations.

    Logs `test/knn_accuracy` and `test/knn_f1`, or those of `val/`. Needs one of our modules and a data module, and is
    left out where the training images have no labels.

    Args:
        k: Number of neighbours, which vote with the inverse of their distance.
        every_n_epochs: Probe the validation split at every n-th epoch; 0 for the test split alone.
    """

    needs = keeps = ("code", "label")
    pools = every_rank = True

    def __init__(self, k: int = 20, every_n_epochs: int = 0) -> None:
        super().__init__(every_n_epochs)
        check_range("KNNProbe", "[1, inf)", k=k)
        self.k = k
        self._labelled = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Says once where there is nothing to probe."""
        before, train = self._labelled, getattr(getattr(trainer, "datamodule", None), "train_set", None)
        self._labelled = train is None or bool((train.labels >= 0).any())
        if before and not self._labelled and stage != "predict":
            rank_zero_info("KNNProbe is left out: the data has no labels")

    def due(self, trainer: Trainer) -> bool:
        """Whether this split is probed."""
        return self._labelled and super().due(trainer)

    def look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probes the split."""
        kept, self.kept = self.joined(), []
        if not kept:
            return
        known = kept["label"] >= 0
        codes, labels = kept["code"][known], kept["label"][known].to(pl_module.device)
        memory, memory_labels = _training_codes(trainer, pl_module)
        # As many classes as the data has, and not as the labels that this split happens to show.
        num_classes = len(trainer.datamodule.class_names)  # type: ignore[attr-defined]
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(num_classes, average="micro"),
                "f1": MulticlassF1Score(num_classes, average="macro"),
            },
            prefix=f"{'test' if trainer.testing else 'val'}/knn_",
        ).to(pl_module.device)
        if len(codes):
            distances, index = nearest(memory.to(pl_module.device), codes, min(self.k, len(memory)))
            metrics.update(vote(distances, memory_labels.to(pl_module.device)[index]), labels)
        pl_module.log_dict(metrics.compute())


def _training_codes(trainer: Trainer, pl_module: LightningModule) -> tuple[Tensor, Tensor]:
    """Codes `(N, D)` and labels `(N,)` of all labelled training images as they are, on every rank, on the CPU."""
    shuffled = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
    once = copy(shuffled.dataset)
    once.index = once.codes = None  # an image that comes up again in an epoch is no further neighbour
    # In order and whole: the training's own loader has the share of one process.
    loader = DataLoader(dataset=once, batch_size=shuffled.batch_size, collate_fn=shuffled.collate_fn)
    codes, labels = [], []
    with torch.no_grad(), trainer.precision_plugin.val_step_context():
        for batch in loader:
            images, label, *_ = trainer.strategy.batch_to_device(batch)
            codes.append(pl_module.vectors(pl_module.encode(images)).cpu())  # type: ignore[operator]
            labels.append(label.cpu())
    known = torch.cat(labels) >= 0
    return torch.cat(codes)[known], torch.cat(labels)[known]
