"""Numbers that make no sense are refused where they are given, by their name."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

import callbacks as c
import datamodules as d
import lightning_modules as m
from preimage.checks import check_range
from tests.conftest import QUICK, Fails

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("interval", "good", "bad", "text"),
    [
        ("[1, inf)", [1, 10**9], [0, 0.99, -1, INF, NAN], "at least 1"),
        ("(0, inf)", [1e-9], [0, -0.0, -INF, INF, NAN], "above 0"),
        ("[0, 1)", [0, 0.999], [1, -0.1, NAN], r"in \[0, 1\)"),
        ("[0, inf]", [0, INF], [-1, NAN], "at least 0"),
    ],
)
def test_intervals(interval: str, good: list[float], bad: list[float], text: str) -> None:
    check_range("model", interval, one=None, two=good, three=good[0])
    for value in bad:
        with pytest.raises(ValueError, match=rf"^model\.x={value} must be {text}"):
            check_range("model", interval, x=value)
        with pytest.raises(ValueError, match=r"^model\.y=\["):
            check_range("model", interval, y=[*good, value])


ENCODER, DECODER = nn.Flatten(), nn.Unflatten(1, (1, 28, 28))


def vae(**kwargs: Any) -> m.VAE:
    return m.VAE(m.MNISTGaussianEncoder(4), m.MNISTDecoder(4), **{"latent_dim": 4} | kwargs)


def classifier(**kwargs: Any) -> m.Classifier:
    return m.Classifier(m.MNISTEncoder(), m.MLPHead(), **kwargs)


def semi(**kwargs: Any) -> m.SemiSupervisedClassifier:
    return m.SemiSupervisedClassifier(
        m.MNISTEncoder(), m.MLPHead(), vat=m.VirtualAdversarialTraining(epsilon=2.0), **kwargs
    )


def both(**kwargs: Any) -> m.ClassifierReconstructor:
    return m.ClassifierReconstructor(m.MNISTEncoder(2), m.MNISTDecoder(2), **kwargs)


def search(**kwargs: Any) -> m.OptimizationInversion:
    return m.OptimizationInversion(m.MNISTEncoder(), **kwargs)


def schedule(**kwargs: Any) -> m.OneCycle:
    return m.OneCycle(m.Autoencoder(m.MNISTEncoder(), m.MNISTDecoder()).configure_optimizers(), **kwargs)


def folder(**kwargs: Any) -> d.ImageFolderDataModule:
    return d.ImageFolderDataModule("data", **kwargs)


def tiny(**kwargs: Any) -> d.TinyImageNetDataModule:
    return d.TinyImageNetDataModule("data", **kwargs)


def vat(**kwargs: Any) -> m.VirtualAdversarialTraining:
    return m.VirtualAdversarialTraining(**{"epsilon": 1.0} | kwargs)


def inverter(**kwargs: Any) -> m.ConvInverter:
    return m.ConvInverter(**{"in_channels": 4, "in_size": 7, "image_size": 28} | kwargs)


def fully_connected(**kwargs: Any) -> m.FullyConnectedInverter:
    return m.FullyConnectedInverter(**{"in_features": 4} | kwargs)


ZERO, BELOW = [0, -1, NAN], [-1, NAN, INF]
ARGUMENTS: list[tuple[Callable[..., Any], dict[str, list[Any]]]] = [
    (
        vae,
        {"latent_dim": ZERO, "variance": [*ZERO, INF], "beta": BELOW, "warmup_epochs": [-1], "cycle_epochs": [-2, 1]},
    ),
    (vae, {"free_bits": BELOW, "num_samples": ZERO, "num_importance_samples": [-1], "encoder_lr": [*ZERO, INF]}),
    (classifier, {"num_classes": [*ZERO, 1], "label_smoothing": [-0.1, 1, NAN], "num_samples": [-1]}),
    (semi, {"reconstruction_weight": BELOW}),
    (both, {"latent_dim": ZERO, "num_classes": [0, 1], "reconstruction_weight": BELOW}),
    (both, {"class_weights": [[1.0], [1.0, -1.0], [1.0, NAN], [0.0, 0.0], [1.0, INF], []]}),
    (search, {"image_size": ZERO, "channels": ZERO, "steps": ZERO, "lr": [*ZERO, INF]}),
    (search, {"variation_weight": BELOW, "norm_weight": BELOW}),
    (schedule, {"pct_start": [0, 1, -1, NAN], "div_factor": [0, -1, NAN, INF], "final_div_factor": [0, NAN]}),
    (vat, {"epsilon": [*ZERO, INF], "probe": ZERO, "weight": BELOW, "entropy_weight": BELOW}),
    (m.MNISTEncoder, {"latent_dim": ZERO}),
    (m.MNISTDecoder, {"latent_dim": ZERO}),
    (m.MNISTGaussianEncoder, {"latent_dim": ZERO}),
    (m.ConvGaussianEncoder, {"latent_dim": ZERO, "in_channels": ZERO, "width": ZERO, "image_size": [0, -32, 33]}),
    (m.ConvDecoder, {"latent_dim": ZERO, "out_channels": ZERO, "width": ZERO, "image_size": [0, -32, 33]}),
    (m.ResidualGaussianEncoder, {"latent_dim": ZERO, "in_channels": ZERO, "width": ZERO, "blocks": [-1]}),
    (m.ResidualDecoder, {"latent_dim": ZERO, "out_channels": ZERO, "width": ZERO, "blocks": [-1]}),
    (m.MLPHead, {"in_features": ZERO, "num_classes": ZERO, "hidden_features": [0, -1, [64, 0]]}),
    (m.MLPHead, {"dropout": [-0.1, 1.1, NAN]}),
    (m.FaceEncoder, {"latent_dim": ZERO, "width": [*ZERO, INF]}),
    (m.FaceDecoder, {"latent_dim": ZERO, "width": [*ZERO, INF], "out_channels": ZERO}),
    (inverter, {"in_channels": ZERO, "in_size": [0, -7], "image_size": [0, -28], "width": ZERO, "out_channels": ZERO}),
    (fully_connected, {"in_features": ZERO, "image_size": [0, -8, 4], "width": [*ZERO, INF], "out_channels": ZERO}),
    (c.ReconstructionGrid, {"count": ZERO, "columns": ZERO, "every_n_epochs": [-1, NAN]}),
    (c.PriorSamples, {"count": ZERO, "columns": ZERO, "every_n_epochs": [-1]}),
    (c.Interpolation, {"pairs": ZERO, "steps": [1, 0, -1], "every_n_epochs": [-1]}),
    (c.Traversal, {"dimensions": ZERO, "steps": [1, 0], "span": [*ZERO, INF], "every_n_epochs": [-1]}),
    (c.CodePlane, {"steps": [1, 0, -1], "every_n_epochs": [-1]}),
    (c.LabelledGrid, {"count": ZERO, "every_n_epochs": [-1]}),
    (c.LatentProjection, {"count": [2, *ZERO], "every_n_epochs": [-1]}),
    (c.ConfusionMatrix, {"every_n_epochs": [-1]}),
    (c.KNNProbe, {"k": ZERO, "every_n_epochs": [-1]}),
    (c.GradientNorms, {"depth": ZERO}),
    (c.ProgressBar, {"refresh_rate": [-1]}),
    (c.Compile, {"modules": [[]]}),
    (c.LastCheckpoint, {"every_n_steps": ZERO, "every_n_minutes": [-1.0, NAN]}),
    (
        d.MNISTDataModule,
        {"batch_size": [*ZERO, 10**30], "val_size": [-1], "repeat": ZERO, "label_repeat": ZERO, "num_labels": ZERO},
    ),
    (d.MNISTDataModule, {"code_cache_limit_gb": [-1.0, NAN]}),
    (
        folder,
        {"image_size": ZERO, "val_fraction": [-0.1, 1.0, NAN], "test_fraction": [-0.1, 1.0, NAN], "batch_size": ZERO},
    ),
    (tiny, {"image_size": ZERO, "num_classes": ZERO, "test_per_class": ZERO, "val_fraction": [-0.1, 1.0, NAN]}),
    (d.PerImageAffine, {"degrees": BELOW, "translate": BELOW, "scale": [-0.1, 1.0, NAN], "shear": [-1, 90, NAN]}),
    (d.PerImageAffine, {"p": [-0.1, 1.1, NAN]}),
]


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [(make, name, value) for make, arguments in ARGUMENTS for name, values in arguments.items() for value in values],
)
def test_arguments(make: Callable[..., Any], name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        make(**{name: value})


@pytest.mark.parametrize("make", dict.fromkeys(make for make, _ in ARGUMENTS))
def test_defaults_are_in_range(make: Callable[..., Any]) -> None:
    make()


FLAGS = [
    ["trainer.gradient_clip_val", -1.0],
    ["trainer.gradient_clip_val", ".nan"],
    ["trainer.log_every_n_steps", -1],
    ["trainer.accumulate_grad_batches", 0],
    ["trainer.check_val_every_n_epoch", 0],
    ["trainer.val_check_interval", 0],
    ["trainer.overfit_batches", -1],
    ["trainer.num_nodes", 0],
    ["trainer.min_epochs", -1],
    ["trainer.num_sanity_val_steps", -3],
    ["checkpoint.every_n_epochs", 0],
    ["checkpoint.every_n_train_steps", -1],
    ["checkpoint.save_top_k", -2],
    ["model.optimizer.lr", ".nan"],
    ["model.optimizer.lr", ".inf"],
]


@pytest.mark.parametrize(("name", "value"), FLAGS)
def test_flags(fails: Fails, name: str, value: object) -> None:
    line = fails("fit", *QUICK, f"--{name}={value}")
    said = [f"{name.removeprefix('model.')}={str(value).lstrip('.')} must be", "learning rate: nan"]
    assert any(text in line for text in [*said, "every_n_epochs=0 leaves nothing to save"])
    assert "Exception" not in line
