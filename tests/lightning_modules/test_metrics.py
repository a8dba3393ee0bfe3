import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import accuracy_score, f1_score
from torchmetrics import MetricCollection
from torchmetrics.image import StructuralSimilarityIndexMeasure

from lightning_modules.metrics import (
    ActiveUnits,
    MeanLoss,
    NormalizedError,
    PiecewiseSSIM,
    classification_metrics,
    direction,
    probability_metrics,
    reconstruction_metrics,
)


def test_reconstruction_metrics_against_scikit_image() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(7, 3, 32, 32, generator=generator)
    preds = (
        target + torch.linspace(0.01, 0.4, 7).view(-1, 1, 1, 1) * torch.randn(target.shape, generator=generator)
    ).clamp(0, 1)
    metrics = reconstruction_metrics("val/")
    for part in (slice(0, 5), slice(5, 7)):  # batches of different size
        loss = (preds[part] - target[part]).square().mean()
        metrics.update(value=loss, weight=len(target[part]), preds=preds[part], target=target[part])
    values = {key: float(value) for key, value in metrics.compute().items()}
    pairs = list(zip(target.numpy(), preds.numpy(), strict=True))
    assert values["val/mse"] == pytest.approx(np.mean([np.mean((a - b) ** 2) for a, b in pairs]), rel=1e-4)
    assert values["val/loss"] == pytest.approx(values["val/mse"], rel=1e-5)
    psnr = [peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in pairs]
    assert values["val/psnr"] == pytest.approx(np.mean(psnr), rel=1e-4)
    pooled = 10 * np.log10(1 / values["val/mse"])
    assert abs(values["val/psnr"] - pooled) > 1  # per image, not pooled over the data set
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    ssim = [structural_similarity(a, b, channel_axis=0, **options) for a, b in pairs]
    assert values["val/ssim"] == pytest.approx(np.mean(ssim), abs=2e-2)  # they treat the border differently


def test_ssim_in_pieces_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    target = torch.rand(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    preds = target.square()
    whole, pieces = StructuralSimilarityIndexMeasure(data_range=1.0), PiecewiseSSIM(data_range=1.0)
    monkeypatch.setattr(PiecewiseSSIM, "pixels", 2 * 3 * 32 * 32 + 1)  # two images, and one at the end
    for metric in (whole, pieces):
        metric.update(preds[:5], target[:5])
        metric.update(preds[5:], target[5:])
    assert torch.allclose(torch.as_tensor(pieces.compute()), torch.as_tensor(whole.compute()))


def test_metrics_of_images_are_float32_under_mixed_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(4, 3, 32, 32, generator=generator) * 0.01 + 0.9  # nearly flat, as backgrounds are
    preds = target + 0.001 * torch.randn(target.shape, generator=generator)
    values = []
    for enabled in (False, True):
        metrics = reconstruction_metrics("")
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            metrics.update(value=torch.tensor(0.0), weight=4, preds=preds, target=target)
        values.append({name: float(value) for name, value in metrics.compute().items()})
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_classification_metrics_against_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (101,), generator=generator) ** 2 // 3  # classes of different size
    logits = torch.randn(101, 4, generator=generator) + 1.5 * torch.nn.functional.one_hot(labels, 4)
    metrics = classification_metrics(4, "test/")
    for part in (slice(0, 64), slice(64, 101)):
        metrics.update(value=torch.tensor(1.0), weight=1, preds=logits[part], target=labels[part])
    values = {key: float(value) for key, value in metrics.compute().items()}
    predicted = logits.argmax(1)
    assert values["test/accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert values["test/f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    batches = [f1_score(labels[p], predicted[p], average="macro") for p in (slice(0, 64), slice(64, 101))]
    assert values["test/f1"] != pytest.approx(np.mean(batches))  # not a mean of per-batch values


def test_unlabelled_images_do_not_count() -> None:
    metrics = classification_metrics(2, "")
    labels = torch.tensor([0, -1, 1, -1])
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    metrics.update(value=torch.tensor(0.0), weight=2, preds=logits, target=labels)
    assert float(metrics.compute()["accuracy"]) == 0.5


def test_mean_loss_weighs_batches_and_shows_nan() -> None:
    metric = MeanLoss()
    metric.update(3, value=torch.tensor(1.0), other=torch.tensor(9.0))
    metric.update(torch.tensor(1), value=torch.tensor(2.0), other=torch.tensor(9.0))
    assert float(metric.compute()) == 1.25
    metric.update(1, value=torch.tensor(float("nan")))
    assert metric.compute().isnan()


def test_the_best_of_a_metric_is_what_the_metric_says_or_its_name() -> None:
    collections = [reconstruction_metrics("val/", "_64"), classification_metrics(3, "val/")]
    collections[1].add_metrics(
        {**probability_metrics(3), "active_units": ActiveUnits(2), "normalized_error": NormalizedError()}
    )
    for name, metric in (item for collection in collections for item in collection.items()):
        assert direction(name) == ("max" if metric.higher_is_better else "min"), name
    less = ["train/loss", "val/kl", "val/reconstruction", "val_loss", "val/loss_epoch", "val/lpips", "test/fid", "nll"]
    less += ["val/cross_entropy", "val/feature_error", "val/negative_log_likelihood", "val/MeanSquaredError"]
    more = ["val/elbo", "test/log_likelihood", "val/knn_accuracy", "val/knn_f1", "test/accuracy_class_3", "step"]
    more += ["val/MulticlassAUROC", "val/StructuralSimilarityIndexMeasure", "epoch"]
    assert [direction(name) for name in less + more] == ["min"] * len(less) + ["max"] * len(more)
    assert direction("val/energy") is None


@pytest.mark.parametrize("shown", [[0, 1, 3], [2], []])
def test_what_a_split_without_a_class_says_of_all_classes_is_nan(
    shown: list[int], recwarn: pytest.WarningsRecorder
) -> None:
    metrics = MetricCollection(probability_metrics(4))
    if shown:
        labels = torch.tensor(shown * 5)
        metrics.update(preds=torch.rand(len(labels), 4).softmax(1), target=labels)
    metrics.update(preds=torch.rand(2, 4).softmax(1), target=torch.tensor([-1, -1]))
    values = metrics.compute()
    assert values["auroc"].isnan() and values["average_precision"].isnan()
    # The sanity check of a sorted split meets its first class alone: no news.
    assert not [warning for warning in recwarn if "samples" in str(warning.message)]
    metrics.update(preds=torch.eye(4), target=torch.arange(4))
    if len(shown) == 3:
        assert not metrics.compute()["auroc"].isnan()
