from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, confusion_matrix, f1_score, roc_auc_score
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import InMemoryDataModule, MNISTDataModule
from datamodules.in_memory import InMemoryImages
from lightning_modules import ClassifierReconstructor, MNISTDecoder, MNISTEncoder
from lightning_modules.base import Batch
from tests.conftest import ROOT, Fails, Run
from tests.lightning_modules.test_base import trainer
from tests.preimage.test_cli import values, weights

FLAGS = ["--config", ROOT / "configs/faces/real_fake.yaml", "--model.encoder.width", 0.03]
FLAGS += ["--model.decoder.width", 0.03, "--trainer.max_epochs", 2, "--trainer.accelerator", "cpu"]
FLAGS += ["--trainer.precision", "32", "--trainer.callbacks", "null", "--trainer.enable_model_summary", "false"]
FLAGS += ["--curves=null"]
FLAGS += ["--trainer.limit_val_batches", 0, "--data.batch_size", 6]


def model(latent_dim: int = 10, **kwargs: Any) -> ClassifierReconstructor:
    torch.manual_seed(0)
    networks = MNISTEncoder(latent_dim), MNISTDecoder(latent_dim)
    return ClassifierReconstructor(*networks, latent_dim=latent_dim, num_classes=10, **kwargs)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(1)), torch.arange(8)


def test_the_code_is_the_logits_unless_it_is_wider(batch: tuple[Tensor, Tensor]) -> None:
    narrow, wide = model(10), model(16)
    assert narrow(batch[0]).equal(narrow.encoder(batch[0]))
    code = wide.encoder(batch[0])
    assert code.shape == (8, 16)
    assert torch.allclose(wide(batch[0]), code @ wide.head.weight.T + wide.head.bias, atol=1e-6)
    assert wide.decode(code).equal(wide.reconstruct(batch[0]))
    assert wide.decode(code).shape == (8, 1, 28, 28)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_loss_is_cross_entropy_plus_weighted_squared_error(batch: tuple[Tensor, Tensor], split: Any) -> None:
    whole = model(reconstruction_weight=5.0)
    logits, error = whole(batch[0]), (whole.reconstruct(batch[0]) - batch[0]).square().mean()
    expected = -logits.log_softmax(1)[torch.arange(8), batch[1]].mean() + 5 * error
    assert whole._step(Batch(*batch), split)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert model(reconstruction="none")._step(Batch(*batch), split)["loss"].item() == pytest.approx(
        F.cross_entropy(logits, batch[1]).item(), rel=1e-5
    )


def test_class_weights_weigh_images_by_their_class(batch: tuple[Tensor, Tensor]) -> None:
    given = [float(number) for number in range(10)]
    whole = model(reconstruction="none", class_weights=given)
    each = -whole(batch[0]).log_softmax(1)[torch.arange(8), batch[1]]
    expected = (each * torch.arange(8.0)).mean()
    assert whole.training_step(batch, 0).item() == pytest.approx(expected.item(), rel=1e-5)
    whole_numbers: Any = list(range(10))
    assert model(reconstruction="none", class_weights=whole_numbers).class_weights.tolist() == given
    for wrong, message in (([1.0, 2.0], "10 numbers from 0 up"), ([-1.0] * 10, "at least 0"), ([0.0] * 10, "not all")):
        with pytest.raises(ValueError, match=rf"model\.class_weights=.* must be .*{message}"):
            model(class_weights=wrong)


class Unbalanced(InMemoryDataModule):
    """Images of the classes given, the same ones in every split."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__(batch_size=16)
        images = torch.randint(0, 256, (len(labels), 1, 28, 28), generator=torch.Generator().manual_seed(0))
        self.train_set = self.val_set = self.test_set = InMemoryImages(images.byte(), labels)


def test_balanced_weights_are_those_of_scikit_learn_and_stay_in_the_checkpoint(tmp_path: Path) -> None:
    labels = torch.arange(10).repeat_interleave(torch.arange(1, 11))
    hidden = torch.cat([labels, torch.full((5,), -1)])
    whole = model(class_weights="balanced")
    run = trainer(tmp_path)
    run.fit(whole, Unbalanced(hidden))
    expected = compute_class_weight("balanced", classes=np.arange(10), y=labels.numpy())
    assert np.allclose(whole.class_weights.numpy(), expected)
    run.save_checkpoint(tmp_path / "model.ckpt")
    assert np.allclose(weights(tmp_path / "model.ckpt")["class_weights"].numpy(), expected)
    with pytest.raises(ValueError, match=r"needs training images of each of model\.num_classes=10 classes"):
        trainer(tmp_path).fit(model(class_weights="balanced"), Unbalanced(torch.arange(20) % 9))
    with pytest.raises(ValueError, match=r"needs a data module with a train_set\.labels"):
        loader = Unbalanced(labels).train_dataloader()
        trainer(tmp_path).fit(model(class_weights="balanced"), loader)


def test_classes_that_are_not_the_data_s_are_named(tmp_path: Path) -> None:
    whole = ClassifierReconstructor(MNISTEncoder(2), MNISTDecoder(2))
    with pytest.raises(
        ValueError, match=r"the data has 10 classes, model\.num_classes=2: give --model\.num_classes 10"
    ):
        trainer(tmp_path).fit(whole, MNISTDataModule())


def test_unlabelled_images_enter_the_squared_error_alone(batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch[0][:6], torch.tensor([1, -1, 3, -1, -1, 5])
    labelled = images[labels >= 0], labels[labels >= 0]
    alone = model(reconstruction="none")
    assert alone.training_step((images, labels), 0).item() == pytest.approx(
        alone.training_step(labelled, 0).item(), rel=1e-6
    )
    whole = model()
    expected = alone.training_step(labelled, 0) + F.mse_loss(whole.reconstruct(images), images)
    assert whole.training_step((images, labels), 0).item() == pytest.approx(expected.item(), rel=1e-5)
    assert alone.training_step((images, torch.full((6,), -1)), 0).item() == 0


def test_only_joint_lets_the_reconstruction_into_the_classifier(batch: tuple[Tensor, Tensor]) -> None:
    def gradients(reconstruction: Any) -> tuple[list[Tensor], bool]:
        whole = model(16, reconstruction=reconstruction, reconstruction_weight=3.0)
        whole.training_step(batch, 0).backward()
        classifier = [p.grad for part in (whole.encoder, whole.head) for p in part.parameters()]
        assert all(gradient is not None for gradient in classifier)
        return classifier, all(p.grad is not None for p in whole.decoder.parameters())  # type: ignore[return-value]

    (joint, _), (detached, learns), (none, decodes) = map(gradients, ("joint", "detached", "none"))
    assert all(a.equal(b) for a, b in zip(detached, none, strict=True))
    assert not any(a.equal(b) for a, b in zip(joint[:-2], none[:-2], strict=True))  # the head reads, it is not read
    assert learns and not decodes


def test_detached_trains_the_same_classifier_as_none_bit_for_bit(run: Run, face_root: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, "--data.root", face_root, "--data.cache_dir", tmp_path / "cache"]
    saved = {}
    for mode in ("none", "detached", "joint"):
        runs = run("fit", *flags, "--model.reconstruction", mode, "--name", mode)
        saved[mode] = weights(runs / mode / "version_0/checkpoints/last.ckpt")
    encoder = [name for name in saved["none"] if name.startswith("encoder.")]
    decoder = [name for name in saved["none"] if name.startswith("decoder.")]
    assert len(encoder) == 12
    assert all(torch.equal(saved["detached"][name], saved["none"][name]) for name in encoder)
    assert not any(torch.equal(saved["joint"][name], saved["none"][name]) for name in encoder)
    assert not any(torch.equal(saved["detached"][name], saved["none"][name]) for name in decoder)


def test_test_metrics_against_scikit_learn(tmp_path: Path) -> None:
    data, whole = MNISTDataModule(batch_size=16), model(12)
    run = trainer(tmp_path, max_epochs=1, limit_train_batches=60)
    run.fit(whole, data)
    (found,) = run.test(whole, data, verbose=False)
    images, labels = data.test_set.images.float() / 255, data.test_set.labels
    with torch.no_grad():
        probabilities, rebuilt = whole(images).softmax(1), whole.reconstruct(images)
    predicted = probabilities.argmax(1)
    one_hot = F.one_hot(labels, 10)
    assert found["test/accuracy"] == pytest.approx((predicted == labels).float().mean().item())
    assert found["test/accuracy"] > 0.3  # it learned something
    assert found["test/f1"] == pytest.approx(f1_score(labels, predicted, average="macro"), rel=1e-5)
    assert found["test/auroc"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"), rel=1e-5)
    assert found["test/average_precision"] == pytest.approx(average_precision_score(one_hot, probabilities), rel=1e-4)
    assert found["test/calibration_error"] == pytest.approx(calibration_error(probabilities, labels), abs=1e-4)
    cross_entropy, mse = F.cross_entropy(probabilities.log(), labels).item(), F.mse_loss(rebuilt, images).item()
    assert found["test/cross_entropy"] == pytest.approx(cross_entropy, rel=1e-4)
    assert found["test/mse"] == pytest.approx(mse, rel=1e-4)
    assert found["test/loss"] == pytest.approx(cross_entropy + mse, rel=1e-4)
    assert {"test/psnr", "test/ssim"} < set(found)


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error in 15 bins (Guo et al. 2017), bin by bin."""
    confidence, predicted = probabilities.max(dim=1)
    error = 0.0
    for low in np.linspace(0, 1, 16)[:-1]:
        chosen = (confidence > low) & (confidence <= low + 1 / 15)
        if chosen.any():
            gap = (predicted == labels)[chosen].float().mean() - confidence[chosen].mean()
            error += float(gap.abs() * chosen.float().mean())
    return error


def test_two_classes_have_the_binary_roc_auc_and_a_confusion_matrix() -> None:
    torch.manual_seed(0)
    whole = ClassifierReconstructor(MNISTEncoder(2), MNISTDecoder(2), reconstruction="none")
    images, labels = torch.rand(60, 1, 28, 28), torch.arange(60) % 3 // 2
    for part in range(0, 60, 25):
        whole.validation_step((images[part : part + 25], labels[part : part + 25]), part)
    with torch.no_grad():
        logits = whole(images)
    found = whole.val_metrics.compute()
    assert float(found["val/auroc"]) == pytest.approx(roc_auc_score(labels, logits[:, 1] - logits[:, 0]), rel=1e-5)
    scores = [average_precision_score(labels == k, logits[:, k] - logits[:, 1 - k]) for k in (0, 1)]
    assert float(found["val/average_precision"]) == pytest.approx(np.mean(scores), rel=1e-5)
    assert whole.confusion.compute().tolist() == confusion_matrix(labels, logits.argmax(1)).tolist()
    assert set(whole.val_errors.compute()) == {"val/loss"}


def test_channels_last_networks_reach_the_metrics(batch: tuple[Tensor, Tensor]) -> None:
    whole = model().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = whole.validation_step((batch[0].contiguous(memory_format=torch.channels_last), batch[1]), 0)
    assert outputs["reconstruction"].is_contiguous()
    assert outputs["reconstruction"].dtype == outputs["logits"].dtype == torch.float32
    assert float(whole.val_errors.compute()["val/mse"]) > 0


def test_predict_and_the_checkpoint_alone(run: Run, face_root: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, "--data.root", face_root, "--data.cache_dir", tmp_path / "cache", "--model.latent_dim", 4]
    flags += ["--model.encoder.latent_dim", 4, "--model.decoder.latent_dim", 4]
    run_dir = run("fit", *flags) / "real_fake/version_0"
    run("predict", *flags, "--ckpt_path", run_dir / "checkpoints/last.ckpt")
    predictions = np.load(run_dir / "predictions.npz")
    assert set(predictions) >= {"code", "probability", "label"}
    assert "reconstruction" not in predictions
    whole = ClassifierReconstructor.load_from_checkpoint(run_dir / "checkpoints/last.ckpt", weights_only=True).eval()
    assert isinstance(whole.head, nn.Linear)
    with torch.no_grad():
        probability = whole.head(torch.from_numpy(predictions["code"])).softmax(1)
    assert np.allclose(predictions["probability"], probability, atol=1e-5)
    assert values(run_dir, "train/mse")[0] > 0


def test_a_code_of_another_length_is_named(face_root: Path, tmp_path: Path, fails: Fails) -> None:
    flags = [*FLAGS, "--data.root", face_root, "--data.cache_dir", tmp_path / "cache"]
    line = fails("fit", *flags, "--model.encoder.latent_dim", 5, "--model.latent_dim", 2)
    assert "model.encoder (FaceEncoder, latent_dim=5) gives codes (5,) for model.latent_dim=2" in line
