from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kornia.augmentation import RandomGaussianNoise
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import MNISTDataModule, PerImageAffine
from lightning_modules import Classifier, FixMatch, MLPHead, MNISTDecoder, MNISTEncoder
from lightning_modules.fixmatch import pseudo_label_loss
from tests.conftest import ROOT, Fails, Run
from tests.lightning_modules.test_base import trainer
from tests.test_cli import values, weights

SEMI = ["--config", str(ROOT / "configs/mnist/classifier_100_semi.yaml"), "--model.encoder_checkpoint=null"]
SEMI += ["--data.dataset=digits5k", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
SEMI += ["--trainer.limit_test_batches=1", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]


class Darken(nn.Module):
    """A distortion without chance."""

    def forward(self, images: Tensor) -> Tensor:
        return images * 0.5


def classifier(threshold: float = 0.105, **kwargs: Any) -> Classifier:
    torch.manual_seed(0)
    return Classifier(MNISTEncoder(), MLPHead(), fixmatch=FixMatch([Darken()], threshold, weight=0.7), **kwargs)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(6, 1, 28, 28), torch.tensor([1, -1, 3, -1, -1, 5])


def gradient(model: Classifier, batch: tuple[Tensor, Tensor]) -> Tensor:
    model.zero_grad()
    model.training_step(batch, 0).backward()
    return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in model.parameters()])


def test_pseudo_label_loss_against_a_computation_by_hand() -> None:
    weak = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 0.1], [0.0, 0.0, 5.0]])
    strong = torch.tensor([[1.0, 2.0, 0.0], [4.0, 0.0, 0.0], [0.0, 1.0, 3.0]], requires_grad=True)
    losses, sure = pseudo_label_loss(strong, weak.requires_grad_(), threshold=0.9)
    assert sure.tolist() == [True, False, True]  # e^3 / (e^3 + 2) is 0.909
    expected = [np.log(np.exp(1) + np.exp(2) + 1) - 1, 0, np.log(1 + np.exp(1) + np.exp(3)) - 3]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    losses.sum().backward()
    assert weak.grad is None
    assert strong.grad is not None
    assert strong.grad[1].tolist() == [0, 0, 0]
    assert pseudo_label_loss(strong, weak, 0.92)[1].tolist() == [False, False, True]
    assert pseudo_label_loss(strong, weak, 0.0)[1].all()


def test_training_loss_is_that_of_the_labels_and_of_the_pseudo_labels(batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    model = classifier(label_smoothing=0.1)
    with torch.no_grad():
        weak, strong = model(images), model(images * 0.5)
    confidence, guess = weak.softmax(dim=1).max(dim=1)
    threshold = float(confidence.sort().values[2:4].mean())  # three of six are above it
    model.fixmatch.threshold = threshold  # type: ignore[union-attr]
    pseudo = F.cross_entropy(strong, guess, reduction="none")[confidence >= threshold].sum() / 6
    known = labels >= 0
    supervised = F.cross_entropy(weak[known], labels[known], label_smoothing=0.1)
    assert model.training_step(batch, 0).item() == pytest.approx((supervised + 0.7 * pseudo).item(), rel=1e-5)
    assert model.train_unlabeled.compute()["train/pseudo_labelled"].item() == pytest.approx(0.5)
    assert model.validation_step(batch, 0)["loss"].item() == pytest.approx(
        F.cross_entropy(weak[known], labels[known]).item(), rel=1e-5
    )


def test_images_without_a_label_teach_and_their_true_labels_cannot(batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    plain = Classifier(MNISTEncoder(), MLPHead())
    never, always = classifier(threshold=1.0), classifier(threshold=0.0)
    plain.load_state_dict(never.state_dict())
    assert torch.allclose(gradient(never, batch), gradient(plain, batch), atol=1e-7)  # nobody is that sure
    assert not torch.allclose(gradient(always, batch), gradient(plain, batch), atol=1e-4)
    changed = images.clone()
    changed[1] = 1 - changed[1]  # without a label
    assert not torch.allclose(gradient(always, (changed, labels)), gradient(always, batch), atol=1e-4)
    hidden = torch.full_like(labels, -1)
    alone = gradient(always, (images, hidden))  # not one label in the batch
    assert alone.isfinite().all() and alone.abs().max() > 1e-4


def test_the_decoder_rebuilds_the_images_from_distorted_ones(batch: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    images, _ = batch
    source = nn.ModuleDict({"encoder": MNISTEncoder(), "decoder": MNISTDecoder()})
    torch.save({"state_dict": source.state_dict()}, tmp_path / "autoencoder.ckpt")
    model = classifier(
        threshold=1.0,
        auxiliary_decoder=MNISTDecoder(),
        reconstruction_weight=3.0,
        encoder_checkpoint="autoencoder.ckpt",
    )
    trainer(tmp_path, limit_train_batches=0).fit(model, MNISTDataModule(batch_size=16))
    loaded = {name: value for name, value in model.state_dict().items() if name.startswith("auxiliary_decoder.")}
    assert len(loaded) == len(source["decoder"].state_dict())
    assert all(value.equal(source.state_dict()[name.removeprefix("auxiliary_")]) for name, value in loaded.items())
    mse = F.mse_loss(source["decoder"](source["encoder"](images * 0.5)), images)
    hidden = torch.full((6,), -1)
    assert model.training_step((images, hidden), 0).item() == pytest.approx(3 * mse.item(), rel=1e-5)
    assert model.train_unlabeled.compute()["train/mse"].item() == pytest.approx(mse.item(), rel=1e-5)


def test_images_with_a_label_come_up_more_often_and_no_other_label_is_served() -> None:
    options: dict[str, Any] = {"num_labels": 20, "val_size": 0, "batch_size": 64}
    data = MNISTDataModule(keep_unlabeled=True, label_repeat=30, **options)
    data.setup("fit")
    batches = list(data.train_dataloader())
    labels = torch.cat([labels for _, labels in batches])
    images = torch.cat([images for images, _ in batches])
    assert torch.bincount(labels[labels >= 0]).tolist() == [60] * 10
    assert len(labels) == 4000 + 20 * 29
    few = MNISTDataModule(**options)
    few.setup("fit")
    assert images[labels >= 0].flatten(1).unique(dim=0).equal(few.train_set.images.flatten(1).unique(dim=0))
    assert len(images.flatten(1).unique(dim=0)) == 4000  # each image is there


def test_the_config_trains_resumes_and_loads_from_its_checkpoint_alone(run: Run) -> None:
    run_dir = run("fit", *SEMI, "--test_after_fit") / "classifier_100_semi/version_0"
    assert 0 <= values(run_dir, "train/pseudo_labelled")[0] <= 1
    last = run_dir / "checkpoints/last.ckpt"
    before = weights(last)
    run("fit", *SEMI, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert values(run_dir, "epoch")[-1] == 1
    assert not torch.equal(weights(last)["head.0.weight"], before["head.0.weight"])
    model = Classifier.load_from_checkpoint(last, weights_only=True)
    assert isinstance(model.fixmatch, FixMatch)
    assert [type(part) for part in model.fixmatch.augmentations][::2] == [PerImageAffine, RandomGaussianNoise]
    assert sum(p.numel() for p in model.parameters()) == 31_958


def test_distorted_images_stay_in_the_unit_interval() -> None:
    images = FixMatch([RandomGaussianNoise(std=1.0, p=1.0)]).distort(torch.rand(4, 1, 28, 28))
    assert images.min() == 0
    assert images.max() == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.fixmatch.threshold=1.5"], ["threshold=1.5", "0 to 1"]),
        (
            ["--model.fixmatch=null", "--model.auxiliary_decoder=MNISTDecoder"],
            ["model.auxiliary_decoder", "set model.fixmatch"],
        ),
        (["--model.freeze_encoder=true", "--model.cache_codes=true"], ["cache_codes false"]),
        (["--data.keep_unlabeled=false"], ["label_repeat=160", "keep_unlabeled true"]),
    ],
)
def test_what_does_not_go_together_ends_in_one_line(fails: Fails, flags: list[str], words: list[str]) -> None:
    line = fails("fit", *SEMI, *flags)
    for word in words:
        assert word in line
