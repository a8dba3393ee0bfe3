import math
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from kornia.augmentation import RandomErasing
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

import preimage
from datamodules import MNISTDataModule, PerImageAffine
from lightning_modules import BYOL, DINO, JointEmbedding, MNISTEncoder, SelfSupervised, SimCLR
from lightning_modules.metrics import EffectiveRank, effective_rank
from tests.conftest import ROOT, Fails, Run
from tests.lightning_modules.test_base import pretrained, trainer
from tests.preimage.test_cli import values

BATCH = (torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(1)), torch.tensor([1, -1, 3, -1, -1, 5]))
FLAGS = [f"--config={ROOT / 'configs/mnist/simclr.yaml'}", "--data.dataset=digits5k", "--trainer.max_epochs=1"]
FLAGS += ["--trainer.limit_train_batches=2", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
FLAGS += ["--curves=null", "--trainer.callbacks=null"]


def model(method: type[JointEmbedding] = SimCLR, **kwargs: Any) -> SelfSupervised:
    torch.manual_seed(0)
    return SelfSupervised(MNISTEncoder(), method(), [PerImageAffine(), RandomErasing()], **kwargs)


class Constant(MNISTEncoder):
    """Says nearly the same of every image."""

    def forward(self, images: Tensor) -> Tensor:
        return 1 + 1e-4 * super().forward(images)


class Weights(Callback):
    """Keeps the encoder's first weights after every step."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        self.kept.append(pl_module.encoder[0].weight.detach().clone())  # type: ignore[index, union-attr]


def test_the_teacher_is_the_average_of_the_student_over_the_steps(tmp_path: Path) -> None:
    path = pretrained(tmp_path, MNISTEncoder())
    start = torch.load(tmp_path / path)["state_dict"]["encoder.0.weight"]
    student, weights = model(BYOL, encoder_checkpoint=path, optimizer=partial(torch.optim.SGD, lr=0.5)), Weights()
    # Two batches a step, of which there are three in each of two epochs.
    options: dict[str, Any] = {"max_epochs": 2, "limit_train_batches": 6, "accumulate_grad_batches": 2}
    trainer(tmp_path, callbacks=[weights], **options).fit(student, MNISTDataModule(batch_size=16))
    average = start.clone()
    for step, weight in enumerate(weights.kept[1::2]):
        momentum = 1 - 0.01 * (1 + math.cos(math.pi * step / 5)) / 2
        average = momentum * average + (1 - momentum) * weight
    assert student.teacher is not None
    assert torch.allclose(student.teacher[0][0].weight, average, atol=1e-7)  # type: ignore[index]
    assert (average - start).abs().max() > 1e-5  # which it would not be of a teacher that stands still
    assert all(parameter.grad is None for parameter in student.teacher.parameters())


def test_the_linear_probe_learns_from_the_labels_and_the_encoder_does_not() -> None:
    gradients = []
    for num_classes in (None, 10):
        built = model(num_classes=num_classes)
        torch.manual_seed(2)
        built.training_step(BATCH, 0).backward()
        gradients.append([p.grad for p in (*built.encoder.parameters(), *built.method.parameters())])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))
    assert built.probe is not None
    assert built.probe[1].weight.grad.abs().sum() > 0  # type: ignore[index]
    logged = built.train_metrics.compute()
    torch.manual_seed(2)
    _, loss = built.compare(built.views(BATCH[0]))
    assert logged["train/loss"].item() == pytest.approx(loss.item(), rel=1e-5)  # without the probe's
    # Half of what the probe says of images with a label may be right by chance, but never of four out of three.
    assert logged["train/linear_accuracy"].item() * 3 == pytest.approx(
        round(logged["train/linear_accuracy"].item() * 3)
    )


@pytest.mark.parametrize("method", [SimCLR, DINO])
def test_an_evaluation_is_the_same_every_time_and_leaves_the_training_as_it_is(method: type[JointEmbedding]) -> None:
    built = model(method, num_classes=10).eval()
    state = {name: value.clone() for name, value in built.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = (built.validation_step(BATCH, 0) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first["loss"], second["loss"])
    assert torch.equal(first["code"], built.encoder(BATCH[0]))  # of the images, and not of a view or a projection
    assert all(torch.equal(value, state[name]) for name, value in built.state_dict().items() if "metrics" not in name)
    one = built.validation_step((BATCH[0][:1], BATCH[1][:1]), 1)  # the last image of a split
    assert one["loss"] == 0
    assert built.val_metrics.compute()["val/loss"].item() == pytest.approx(first["loss"].item(), rel=1e-5)


def test_views_are_random_and_local_ones_come_after_two_whole_ones() -> None:
    built = model(DINO, local_view=[nn.AvgPool2d(2)], local_views=3)
    views = built.views(BATCH[0])
    assert [view.shape[-1] for view in views] == [28, 28, 14, 14, 14]
    assert not torch.equal(views[0], views[1])
    assert 0 <= min(view.min() for view in views) <= max(view.max() for view in views) <= 1


def test_the_effective_rank_is_that_of_all_codes_together() -> None:
    torch.manual_seed(0)
    codes = torch.randn(300, 8) @ torch.diag(torch.tensor([9.0, 4, 2, 1, 0.5, 0.1, 1e-3, 0])) + 0.3
    parts = [EffectiveRank(8) for _ in range(2)]
    for part, some in zip(parts, codes.split(200), strict=True):
        for batch in some.split(70):
            part.update(batch)
    parts[0].gram += parts[1].gram  # as processes do
    assert parts[0].compute().item() == pytest.approx(effective_rank(codes), rel=1e-5)


@pytest.mark.parametrize("encoder", [Constant, MNISTEncoder])
def test_a_code_that_has_collapsed_is_said_to_have(encoder: type[nn.Module], tmp_path: Path) -> None:
    built = SelfSupervised(encoder(), SimCLR(), [PerImageAffine()], optimizer=partial(torch.optim.Adam, lr=1e-3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, limit_train_batches=20, max_epochs=2).fit(built, MNISTDataModule(batch_size=64))
    said = [str(warning.message) for warning in caught if "collapsed" in str(warning.message)]
    assert [text.split(", so")[0] for text in said] == (
        ["the code has collapsed: its effective rank is 1.00 of 12 in the validation after epoch 1"]
        if encoder is Constant
        else []
    )


def test_a_run_measures_its_code_resumes_and_is_asked_for_it(run: Run) -> None:
    flags = [*FLAGS, "--model.method=BYOL", "--trainer.callbacks+=KNNProbe", "--model.encoder.latent_dim=8"]
    run_dir = run("fit", *flags, "--test_after_fit") / "simclr/version_0"
    assert 1 <= values(run_dir, "val/effective_rank")[0] <= 8
    assert 0 < values(run_dir, "val/linear_accuracy")[0] < 1
    assert 0.1 < values(run_dir, "test/knn_accuracy")[0] < 1
    run("fit", *flags, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert values(run_dir, "epoch")[-1] == 1
    asked = preimage.load(run_dir / "checkpoints/last.ckpt")
    images = BATCH[0]
    assert isinstance(asked.module, SelfSupervised)
    assert torch.allclose(asked.encode(images), asked.module.encoder(images), atol=1e-6)
    assert asked.encode(images).shape == (6, 8)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.freeze_encoder=true"], "model.freeze_encoder true leaves nothing to learn"),
        (["--model.local_views=2"], "model.local_views=2, and SimCLR compares two views"),
        (["--model.method.in_features=9", "--model.encoder.latent_dim=12"], "give --model.method.in_features 12"),
        (["--model.num_classes=9"], "the data has 10 classes, model.num_classes=9"),
        (["--data.batch_size=1"], "--data.batch_size 2 or more"),
        (
            [
                "--model.method=BYOL",
                "--model.scheduler=null",
                "--trainer.max_epochs=-1",
                "--trainer.max_time=00:00:01:00",
            ],
            "model.method=BYOL must know the number of steps",
        ),
    ],
)
def test_what_does_not_go_together_ends_in_one_line(fails: Fails, flags: list[str], words: str) -> None:
    assert words in fails("fit", *FLAGS, "--trainer.num_sanity_val_steps=0", *flags)
