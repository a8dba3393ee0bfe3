import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.datasets import load_sample_images
from sklearn.metrics import accuracy_score, f1_score
from torchmetrics import MetricCollection

from lightning_modules import ssim
from lightning_modules.metrics import (
    ActiveUnits,
    MeanLoss,
    MeanSSIM,
    NormalizedError,
    class_keys,
    classification_metrics,
    direction,
    probability_metrics,
    reconstruction_metrics,
)
from lightning_modules.ssim import structural_similarity as ssim_of_batch
from tests.conftest import Digits

SSIM = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0, "channel_axis": 0}


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
    similarities = [structural_similarity(a, b, **SSIM) for a, b in pairs]
    assert values["val/ssim"] == pytest.approx(np.mean(similarities), abs=1e-4)


@pytest.fixture(params=["digits", "gray photos", "photos"])
def pictures(request: pytest.FixtureRequest, digits: Digits) -> torch.Tensor:
    if request.param == "digits":
        return torch.from_numpy(digits[0][:20])[:, None] / 255
    photos = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2) / 255
    crops = torch.cat([photos[..., place : place + 50, place : place + 90] for place in (0, 120, 240)])
    return crops if request.param == "photos" else crops.mean(dim=1, keepdim=True)


def test_ssim_is_that_of_scikit_image(pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    preds = (0.8 * pictures + 0.1 * noise + 0.05).clamp(0, 1)
    expected = [structural_similarity(a, b, **SSIM) for a, b in zip(preds.numpy(), pictures.numpy(), strict=True)]
    assert ssim_of_batch(preds, pictures).tolist() == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(ssim, "PIECE", 2 * pictures[0].numel() + 1)  # two images at a time
    processes = MeanSSIM(), MeanSSIM()  # of different size, as the last batches of a split
    for metric, part in zip(processes, (slice(0, 1), slice(1, None)), strict=True):
        metric.update(preds[part], pictures[part])
    processes[0].merge_state(processes[1])
    assert float(processes[0].compute()) == pytest.approx(np.mean(expected), abs=1e-5)
    assert ssim_of_batch(pictures, pictures).tolist() == pytest.approx([1.0] * len(pictures), abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(8, 5), (1, 1), (10, 24)])
def test_the_window_of_ssim_is_cut_to_a_small_image(height: int, width: int) -> None:
    images = torch.rand(2, 1, 1, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sides = [min(11, length - 1 + length % 2) for length in (height, width)]
    rows, columns = (np.exp(-((np.arange(side) - side // 2) ** 2) / (2 * 1.5**2)) for side in sides)
    weights = np.outer(rows, columns).ravel()
    values = []
    for pair in zip(
        *(sliding_window_view(image[0, 0].numpy(), sides).reshape(-1, weights.size) for image in images), strict=True
    ):
        (a, b), covariance = np.average(pair, axis=1, weights=weights), np.cov(pair, aweights=weights, ddof=0)
        ratio = (2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4)
        values.append(ratio * (2 * covariance[0, 1] + 9e-4) / (covariance.trace() + 9e-4))
    assert float(ssim_of_batch(*images)) == pytest.approx(np.mean(values), rel=1e-9)


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
    more += ["test/accuracy_Ankle_boot", "val/MulticlassAUROC", "val/StructuralSimilarityIndexMeasure", "epoch"]
    assert [direction(name) for name in less + more] == ["min"] * len(less) + ["max"] * len(more)
    assert direction("val/energy") is None


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["Ankle boot", "T-shirt/top", "dress"], ["Ankle_boot", "T-shirt_top", "dress"]),
        (["0", "dress", "蝴蝶"], ["class_0", "dress", "class_2"]),
        (["a/b", "a b", "class 0"], ["class_0", "class_1", "class_2"]),
        (["a", "b"], ["class_0", "class_1", "class_2"]),
        ([], ["class_0", "class_1", "class_2"]),
    ],
)
def test_metrics_call_a_class_by_its_name_where_that_is_safe(names: list[str], keys: list[str]) -> None:
    assert class_keys(names, 3) == keys


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
