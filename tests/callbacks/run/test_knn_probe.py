from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from callbacks import KNNProbe, LatentProjection
from datamodules import MNISTDataModule
from lightning_modules import VAE, Classifier, FrozenFeatures, MLPHead, MNISTDecoder, MNISTEncoder, MNISTGaussianEncoder
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


@pytest.mark.filterwarnings("ignore:.*RANDOM weights")
def test_tokens_are_compared_by_the_class_token(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    data = MNISTDataModule(num_labels=20)
    features = FrozenFeatures("timm/vit_tiny_patch16_224", "blocks.0", weights="random", image_size=32)
    model = Classifier(features, nn.Sequential(nn.Flatten(), nn.Linear(5 * 192, 10)), freeze_encoder=True)
    probe, projection = KNNProbe(k=1), LatentProjection()
    run = trainer(tmp_path, callbacks=[probe, projection], limit_test_batches=1)
    collected = []
    projection.draw = lambda *args: collected.append(projection.joined()["code"])  # type: ignore[method-assign]
    (metrics,) = run.test(model, data, verbose=False)
    with torch.no_grad():
        train, test = (features(split.images[:256] / 255)[:, 0] for split in (data.train_set, data.test_set))
    assert collected[0].allclose(test[: len(collected[0])], atol=1e-5)
    nearest = torch.cdist(test, train).argmin(dim=1)
    correct = data.train_set.labels[nearest] == data.test_set.labels[:256]
    assert metrics["test/knn_accuracy"] == pytest.approx(float(correct.float().mean()), abs=0.01)
