from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

from callbacks import KNNProbe
from datamodules import MNISTDataModule
from lightning_modules import VAE, Classifier, MLPHead, MNISTDecoder, MNISTEncoder, MNISTGaussianEncoder
from tests.lightning_modules.test_base import trainer

FEW: dict[str, Any] = {"num_labels": 30, "keep_unlabeled": True, "label_repeat": 9}


@pytest.mark.parametrize("options", [{}, FEW])
def test_figures_are_those_of_scikit_learn(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = VAE(MNISTGaussianEncoder(6), MNISTDecoder(6), latent_dim=6), MNISTDataModule(**options)
    run = trainer(tmp_path, callbacks=[KNNProbe(k=5)], limit_test_batches=1.0)
    (metrics,) = run.test(model, data, verbose=False)
    model.eval()
    with torch.no_grad():
        codes = [model.encoder(split.images.float() / 255).numpy() for split in (data.train_set, data.test_set)]
    known = data.train_set.labels >= 0
    knn = KNeighborsClassifier(5, weights="distance").fit(codes[0][known], data.train_set.labels[known])
    predicted = knn.predict(codes[1])
    truth = data.test_set.labels.numpy()
    assert metrics["test/knn_accuracy"] == pytest.approx(accuracy_score(truth, predicted), abs=0.002)
    assert metrics["test/knn_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"), abs=0.002)


def test_it_probes_validations_when_asked_and_skips_images_without_a_label(tmp_path: Path) -> None:
    data = MNISTDataModule(num_labels=100, keep_unlabeled=True)
    model = Classifier(MNISTEncoder(), MLPHead())
    probe = KNNProbe(k=1, every_n_epochs=2)
    run = trainer(tmp_path, callbacks=[probe], max_epochs=1, limit_val_batches=1.0)
    run.fit(model, data)
    assert "val/knn_accuracy" not in run.callback_metrics
    run = trainer(tmp_path, callbacks=[probe], max_epochs=2, limit_val_batches=1.0)
    run.fit(model, data)
    assert 0.3 < float(run.callback_metrics["val/knn_accuracy"]) < 1.0
