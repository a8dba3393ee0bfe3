"""What the nearest neighbours of a code know about its class."""

from copy import copy
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from preimage.checks import check_range


class KNNProbe(Callback):
    """Classifies codes by their nearest neighbours among the training images' codes, at the test and in validations.

    Logs `test/knn_accuracy` and `test/knn_f1`, or those of `val/`. Needs one of our modules and a data module, and is
    left out where the training images have no labels.
    """

    def __init__(self, k: int = 20, every_n_epochs: int = 0) -> None:
        """Sets the probe.

        Args:
            k: Number of neighbours, which vote with the inverse of their distance.
            every_n_epochs: Probe the validation split at every n-th epoch; 0 for the test split alone.
        """
        check_range("KNNProbe", "[1, inf)", k=k)
        check_range("KNNProbe", "[0, inf)", every_n_epochs=every_n_epochs)
        self.k = k
        self.every_n_epochs = every_n_epochs
        self._labelled = True
        self._codes: list[tuple[Tensor, Tensor]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Says once where there is nothing to probe."""
        before, train = self._labelled, getattr(getattr(trainer, "datamodule", None), "train_set", None)
        self._labelled = train is None or bool((train.labels >= 0).any())
        if before and not self._labelled and stage != "predict":
            rank_zero_info("KNNProbe is left out: the data has no labels")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Keeps the codes of the batch."""
        due = self.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if self._labelled and due and not trainer.sanity_checking:
            self._codes.append(_on_cpu(outputs["code"], outputs["label"]))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Keeps the codes of the batch."""
        if self._labelled:
            self._codes.append(_on_cpu(outputs["code"], outputs["label"]))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probes the validation split."""
        self._probe(trainer, pl_module, "val/knn_")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probes the test split."""
        self._probe(trainer, pl_module, "test/knn_")

    def _probe(self, trainer: Trainer, pl_module: LightningModule, prefix: str) -> None:
        if not self._codes:
            return
        codes, labels = _labelled(self._codes)
        self._codes = []
        memory, memory_labels = _labelled(training_codes(trainer, pl_module))
        from sklearn.neighbors import KNeighborsClassifier

        classifier = KNeighborsClassifier(min(self.k, len(memory)), weights="distance").fit(memory, memory_labels)
        # As many classes as the data has, and not as the labels that this split happens to show.
        num_classes = len(trainer.datamodule.class_names)  # type: ignore[attr-defined]
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(num_classes, average="micro"),
                "f1": MulticlassF1Score(num_classes, average="macro"),
            },
            prefix=prefix,
        ).to(pl_module.device)
        if len(codes):
            predictions = torch.from_numpy(classifier.predict(codes))
            metrics.update(predictions.to(pl_module.device), labels.to(pl_module.device))
        pl_module.log_dict(metrics.compute())


def training_codes(trainer: Trainer, pl_module: LightningModule) -> list[tuple[Tensor, Tensor]]:
    """Codes and labels of all training images as they are, on every rank, batch by batch.

    Args:
        trainer: The trainer, with a data module.
        pl_module: One of our modules.
    """
    shuffled = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
    found = []
    once = copy(shuffled.dataset)
    once.places = once.codes = None  # an image that comes up again in an epoch is no further neighbour
    # In order and whole: the training's own loader has the share of one process.
    images = DataLoader(dataset=once, batch_size=shuffled.batch_size, collate_fn=shuffled.collate_fn)
    with torch.no_grad(), trainer.precision_plugin.val_step_context():
        for batch in images:
            batch = trainer.strategy.batch_to_device(batch)
            found.append(_on_cpu(pl_module.encode(batch[0]), batch[1]))  # type: ignore[operator]
    return found


def _on_cpu(codes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return codes.detach().flatten(1).float().cpu(), labels.cpu()


def _labelled(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    codes, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return codes[labels >= 0], labels[labels >= 0]
