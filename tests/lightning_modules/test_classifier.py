from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, recall_score
from torch import nn
from torch.distributions import Normal
from torch.nn import functional as F

from datamodules import MNISTDataModule
from lightning_modules import Classifier, MLPHead, MNISTEncoder, MNISTGaussianEncoder
from lightning_modules.noise import fixed_noise
from tests.lightning_modules.test_base import trainer
from tests.lightning_modules.test_classifier_reconstructor import calibration_error


def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(MNISTEncoder(), MLPHead(), label_smoothing=0.1)


def test_the_whole_has_the_parameters_of_the_system() -> None:
    assert sum(p.numel() for p in classifier().parameters()) == 31_958


def test_loss_is_smoothed_in_training_only() -> None:
    model = classifier()
    batch = torch.rand(8, 1, 28, 28), torch.arange(8)
    logits = model(batch[0])
    assert model.training_step(batch, 0).item() == pytest.approx(
        F.cross_entropy(logits, batch[1], label_smoothing=0.1).item(), rel=1e-6
    )
    assert model.validation_step(batch, 0)["loss"].item() == pytest.approx(F.cross_entropy(logits, batch[1]).item())


def test_unlabelled_images_do_not_enter_the_loss() -> None:
    model = classifier()
    images, labels = torch.rand(6, 1, 28, 28), torch.tensor([1, -1, 3, -1, -1, 5])
    all_labelled = model.training_step((images[labels >= 0], labels[labels >= 0]), 0)
    assert model.training_step((images, labels), 0).item() == pytest.approx(all_labelled.item(), rel=1e-6)
    assert model.training_step((images, torch.full((6,), -1)), 0).item() == 0


def test_test_metrics_against_scikit_learn(tmp_path: Path) -> None:
    data, model = MNISTDataModule(batch_size=16), classifier()
    run = trainer(tmp_path, max_epochs=1, limit_train_batches=60)
    run.fit(model, data)
    (values,) = run.test(model, data, verbose=False)
    with torch.no_grad():
        probabilities = model(data.test_set.images.float() / 255).softmax(1)
    predicted, labels = probabilities.argmax(1), data.test_set.labels
    assert values["test/calibration_error"] == pytest.approx(calibration_error(probabilities, labels), abs=1e-4)
    assert values["test/accuracy"] == pytest.approx((predicted == labels).float().mean().item())
    assert values["test/f1"] == pytest.approx(f1_score(labels, predicted, average="macro"), rel=1e-5)
    recalls = recall_score(labels, predicted, average=None, zero_division=0)
    assert [values[f"test/accuracy_class_{i}"] for i in range(10)] == pytest.approx(recalls.tolist())
    assert values["test/accuracy"] > 0.3  # it learned something


def test_confusion_matrix_is_that_of_the_split(tmp_path: Path) -> None:
    data, model = MNISTDataModule(), classifier()
    data.setup("test")
    images, labels = data.test_set.images.float() / 255, data.test_set.labels
    for part in range(0, len(labels), 300):
        model.test_step((images[part : part + 300], labels[part : part + 300]), 0)
    with torch.no_grad():
        expected = confusion_matrix(labels, model(images).argmax(1), labels=range(10))
    assert model.confusion.compute().tolist() == expected.tolist()


def test_codes_are_drawn_and_their_probabilities_averaged_in_evaluation() -> None:
    torch.manual_seed(0)
    model = Classifier(MNISTGaussianEncoder(5), MLPHead(5, [8, 8]), num_samples=6)
    images, labels = torch.rand(4, 1, 28, 28), torch.arange(4)
    assert isinstance(model.encoder, MNISTGaussianEncoder)
    posterior = Normal(model.encoder.posterior(images)[0], (0.5 * model.encoder.posterior(images)[1]).exp())
    torch.manual_seed(3)
    noise = torch.randn(6, 4, 5)
    logits = model.head(posterior.mean + posterior.stddev * noise)  # (6, 4, 10)
    torch.manual_seed(3)
    loss = model.training_step((images, labels), 0).item()
    assert loss == pytest.approx(np.mean([F.cross_entropy(each, labels).item() for each in logits]), rel=1e-5)
    logits = model.head(posterior.mean + posterior.stddev * fixed_noise(images, 6, 5))
    outputs = model.validation_step((images, labels), 0)
    mean = logits.softmax(dim=-1).mean(dim=0)
    assert torch.allclose(outputs["logits"].softmax(dim=-1), mean, atol=1e-6)
    assert outputs["loss"].item() == pytest.approx(F.nll_loss(mean.log(), labels).item(), rel=1e-5)
    assert outputs["code"].equal(posterior.mean)
    assert torch.allclose(model.predict_step((images[1:], labels[1:]), 0)["probability"], mean[1:], atol=1e-6)
    with pytest.raises(ValueError, match="num_samples=3 needs a GaussianEncoder to draw from, not MNISTEncoder"):
        Classifier(MNISTEncoder(), MLPHead(), num_samples=3)


def test_a_head_that_is_not_read_does_not_train() -> None:
    torch.manual_seed(0)
    for samples, trains in ((0, False), (3, True)):
        encoder = MNISTGaussianEncoder()
        model = Classifier(encoder, MLPHead(), num_samples=samples)
        model.training_step((torch.rand(4, 1, 28, 28), torch.arange(4)), 0).backward()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert all(parameter.grad is not None for parameter in parameters)  # DDP would wait for it
        assert encoder.log_variance.weight.requires_grad == trains


def test_the_head_of_the_butterflies_is_that_of_the_system() -> None:
    head = MLPHead(128, [128, 128], 75, [0.2, 0.4])
    assert " ".join(type(layer).__name__ for layer in head) == "Linear ReLU Dropout Linear ReLU Dropout Linear"
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.2, 0.4]
    assert sum(p.numel() for p in head.parameters()) == 2 * 129 * 128 + 129 * 75
    with pytest.raises(ValueError, match="1 values for 2 hidden layers"):
        MLPHead(128, [128, 128], 75, [0.2])
