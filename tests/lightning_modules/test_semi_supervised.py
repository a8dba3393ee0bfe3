from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import MNISTDataModule
from lightning_modules import MLPHead, MNISTDecoder, MNISTEncoder, SemiSupervisedClassifier, VirtualAdversarialTraining
from tests.conftest import ROOT, Fails, Run
from tests.lightning_modules.test_base import trainer
from tests.preimage.test_cli import values, weights

SEMI = ["--config", str(ROOT / "configs/mnist/classifier_100_semi.yaml"), "--model.encoder_checkpoint=null"]
SEMI += ["--data.dataset=digits5k", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
SEMI += ["--trainer.limit_test_batches=1", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
SEMI += ["--curves=null"]


def classifier(**kwargs: Any) -> SemiSupervisedClassifier:
    torch.manual_seed(0)
    vat = VirtualAdversarialTraining(epsilon=2.0, weight=0.7, entropy_weight=0.4)
    return SemiSupervisedClassifier(MNISTEncoder(), MLPHead(), vat=vat, **kwargs)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(6, 1, 28, 28), torch.tensor([1, -1, 3, -1, -1, 5])


def gradient(model: SemiSupervisedClassifier, batch: tuple[Tensor, Tensor]) -> Tensor:
    model.zero_grad()
    model.training_step(batch, 0).backward()
    return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in model.parameters()])


def test_the_training_loss_is_that_of_the_labels_of_the_neighbours_and_of_the_entropy(
    batch: tuple[Tensor, Tensor],
) -> None:
    images, labels, *_ = batch
    model = classifier(label_smoothing=0.1)
    logits, known = model(images), labels >= 0
    supervised = F.cross_entropy(logits[known], labels[known], label_smoothing=0.1)
    torch.manual_seed(5)
    divergence, entropy = model.vat(model, images, logits)
    torch.manual_seed(5)
    loss = model.training_step(batch, 0)
    assert loss.item() == pytest.approx((supervised + 0.7 * divergence + 0.4 * entropy).item(), rel=1e-5)
    logged = model.train_unlabeled.compute()
    assert logged["train/adversarial_kl"].item() == pytest.approx(divergence.item(), rel=1e-4)
    assert logged["train/entropy"].item() == pytest.approx(entropy.item(), rel=1e-5)
    assert model.validation_step(batch, 0)["loss"].item() == pytest.approx(
        F.cross_entropy(logits[known], labels[known]).item(), rel=1e-5
    )


def test_images_without_a_label_teach_and_neither_statistics_nor_chance_come_of_their_neighbours(
    batch: tuple[Tensor, Tensor],
) -> None:
    images, labels, *_ = batch
    changed = images.clone()
    changed[1] = 1 - changed[1]  # without a label
    torch.manual_seed(2)
    first = gradient(classifier(), batch)
    assert not torch.allclose(gradient(classifier(), (changed, labels)), first, atol=1e-4)
    alone = gradient(classifier(), (images, torch.full_like(labels, -1)))  # not one label in the batch
    assert alone.isfinite().all() and alone.abs().max() > 1e-5
    encoder = nn.Sequential(nn.BatchNorm2d(1, momentum=1.0), nn.Dropout(0.5), MNISTEncoder())
    model = SemiSupervisedClassifier(encoder, MLPHead(), vat=VirtualAdversarialTraining(epsilon=2.0)).train()
    model.training_step(batch, 0)
    assert encoder[0].running_mean.item() == pytest.approx(images.mean().item(), rel=1e-4)  # type: ignore[operator]
    assert all(part.training for part in encoder)


def test_the_decoder_rebuilds_the_images(batch: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    images, *_ = batch
    source = nn.ModuleDict({"encoder": MNISTEncoder(), "decoder": MNISTDecoder()})
    torch.save({"state_dict": source.state_dict()}, tmp_path / "autoencoder.ckpt")
    vat = VirtualAdversarialTraining(epsilon=2.0, weight=0.0, entropy_weight=0.0)
    options: dict[str, Any] = {"auxiliary_decoder": MNISTDecoder(), "reconstruction_weight": 3.0}
    model = SemiSupervisedClassifier(
        MNISTEncoder(), MLPHead(), vat=vat, encoder_checkpoint="autoencoder.ckpt", **options
    )
    trainer(tmp_path, limit_train_batches=0).fit(model, MNISTDataModule(batch_size=16))
    loaded = {name: value for name, value in model.state_dict().items() if name.startswith("auxiliary_decoder.")}
    assert len(loaded) == len(source["decoder"].state_dict())
    assert all(value.equal(source.state_dict()[name.removeprefix("auxiliary_")]) for name, value in loaded.items())
    mse = F.mse_loss(source["decoder"](source["encoder"](images)), images)
    hidden = torch.full((6,), -1)
    assert model.training_step((images, hidden), 0).item() == pytest.approx(3 * mse.item(), rel=1e-5)
    assert model.train_unlabeled.compute()["train/mse"].item() == pytest.approx(mse.item(), rel=1e-5)


def test_images_with_a_label_come_up_more_often_and_no_other_label_is_served() -> None:
    options: dict[str, Any] = {"num_labels": 20, "val_size": 0, "batch_size": 64}
    data = MNISTDataModule(keep_unlabeled=True, label_repeat=30, **options)
    data.setup("fit")
    batches = list(data.train_dataloader())
    labels = torch.cat([labels for _, labels, _ in batches])
    images = torch.cat([images for images, *_ in batches])
    assert torch.bincount(labels[labels >= 0]).tolist() == [60] * 10
    assert len(labels) == 4000 + 20 * 29
    few = MNISTDataModule(**options)
    few.setup("fit")
    assert images[labels >= 0].flatten(1).unique(dim=0).equal(few.train_set.images.flatten(1).unique(dim=0))
    assert len(images.flatten(1).unique(dim=0)) == 4000  # each image is there


def test_the_config_trains_resumes_and_loads_from_its_checkpoint_alone(run: Run) -> None:
    run_dir = run("fit", *SEMI, "--test_after_fit") / "classifier_100_semi/version_0"
    assert 0 < values(run_dir, "train/entropy")[0] < np.log(10)
    last = run_dir / "checkpoints/last.ckpt"
    before = weights(last)
    run("fit", *SEMI, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert values(run_dir, "epoch")[-1] == 1
    assert not torch.equal(weights(last)["head.0.weight"], before["head.0.weight"])
    model = SemiSupervisedClassifier.load_from_checkpoint(last, weights_only=True)
    assert isinstance(model.vat, VirtualAdversarialTraining) and model.vat.epsilon > 0
    assert sum(p.numel() for p in model.parameters()) == 31_958


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.vat.epsilon=0"], ["vat.epsilon=0", "above 0"]),
        (["--model.freeze_encoder=true", "--model.cache_codes=true"], ["cache_codes false"]),
        (["--data.keep_unlabeled=false"], ["label_repeat=160", "keep_unlabeled true"]),
    ],
)
def test_what_does_not_go_together_ends_in_one_line(fails: Fails, flags: list[str], words: list[str]) -> None:
    line = fails("fit", *SEMI, *flags)
    for word in words:
        assert word in line
