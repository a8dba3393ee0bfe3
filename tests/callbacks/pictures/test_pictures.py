from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from matplotlib.collections import PathCollection
from PIL import Image
from torch import Tensor

from callbacks import ConfusionMatrix, Curves, LatentProjection, PriorSamples, ReconstructionGrid
from callbacks.pictures import save_picture
from callbacks.pictures.confusion_matrix import confusion_figure
from callbacks.pictures.curves import curves_figure
from callbacks.pictures.grids import caption_row, reconstruction_grid
from datamodules import MNISTDataModule
from lightning_modules import VAE, Autoencoder, Classifier, MLPHead, MNISTDecoder, MNISTEncoder, MNISTGaussianEncoder
from preimage.loggers import RunLogger
from tests.lightning_modules.test_base import trainer


def test_grid_puts_originals_over_their_reconstructions() -> None:
    targets = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 1, 64, 64)
    grid = reconstruction_grid(targets, 1 - targets, columns=3)
    assert grid.shape == (4 * 66 + 2, 3 * 66 + 2, 3)
    cells = grid[34::66, 34::66, 0]
    assert cells.tolist() == [[0, 64, 128], [255, 191, 128], [191, 255, 255], [64, 0, 255]]  # 255: an empty place


def test_small_images_are_enlarged_by_a_whole_factor_and_colour_stays() -> None:
    image = torch.zeros(1, 3, 28, 28)
    image[0, 0] = 1.0
    grid = reconstruction_grid(image, image, columns=1)
    assert grid.shape == (2 * 58 + 2, 60, 3)
    assert grid[30, 30].tolist() == [255, 0, 0]


@pytest.mark.parametrize("batch_size", [64, 500])
def test_grid_shows_the_same_images_of_all_classes_at_every_epoch(tmp_path: Path, batch_size: int) -> None:
    data, model = MNISTDataModule(batch_size=batch_size), Autoencoder(MNISTEncoder(), MNISTDecoder())
    grid = ReconstructionGrid(count=18)  # nine columns twice, and not sixteen and two
    logger = RunLogger(tmp_path)
    trainer(tmp_path, callbacks=[grid], logger=logger, max_epochs=2, limit_val_batches=1.0).fit(model, data)
    pictures = sorted((tmp_path / "images/reconstructions").glob("*.png"))
    assert [path.name for path in pictures] == ["val_epoch_0001.png", "val_epoch_0002.png"]
    first, second = (np.asarray(Image.open(path)) for path in pictures)
    assert first.shape == (4 * 58 + 2, 9 * 58 + 2, 3)
    assert np.array_equal(first[:60], second[:60])  # originals
    assert not np.array_equal(first[60:118], second[60:118])  # reconstructions of a model that learns
    shown = grid.joined()["target"]
    with np.load(tmp_path / "images/reconstructions/pairs.npz") as arrays:
        assert np.array_equal(arrays["target"], (255 * shown).round().byte())
    labels = [int(data.val_set.labels[(data.val_set.images.float() / 255 == image).all((1, 2, 3))]) for image in shown]
    assert len(set(labels)) == 10


def test_off_means_nothing_is_kept_or_drawn(tmp_path: Path) -> None:
    data, model = MNISTDataModule(), Autoencoder(MNISTEncoder(), MNISTDecoder())
    pictures: list[Any] = [ReconstructionGrid(every_n_epochs=0), LatentProjection(every_n_epochs=0)]
    run = trainer(tmp_path, callbacks=pictures, logger=RunLogger(tmp_path))
    run.fit(model, data)
    assert not (tmp_path / "images").exists()
    assert pictures[0].kept == []
    assert pictures[1].kept == []
    run.test(model, data, verbose=False)
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"reconstructions", "latents"}


@pytest.mark.parametrize("epochs", [1, 3])
def test_curves_show_every_metric_of_training_and_validation(tmp_path: Path, epochs: int) -> None:
    logger = RunLogger(tmp_path)
    for epoch in range(epochs):
        logger.log_metrics({"train/loss": 3.0 - epoch, "epoch": epoch}, epoch)
        logger.log_metrics({"val/loss": 4.0 - epoch, "val/psnr": 10.0 + epoch, "epoch": epoch}, epoch)
    logger.log_metrics({"test/loss": 9.0, "epoch": 3}, 3)
    logger.save()
    figure = curves_figure(tmp_path / "metrics.csv")
    assert figure is not None
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert set(panels) == {"loss", "psnr"}
    lines: dict[str, Any] = {str(line.get_label()): line.get_ydata() for line in panels["loss"].get_lines()}
    assert {name: list(values) for name, values in lines.items()} == {
        "train": [3, 2, 1][:epochs],
        "val": [4, 3, 2][:epochs],
    }
    assert np.asarray(panels["psnr"].get_lines()[0].get_xdata()).tolist() == [1, 2, 3][:epochs]
    assert all(tick == round(tick) for tick in panels["loss"].get_xticks())  # there is no epoch 1.5


def test_a_legend_of_many_curves_covers_none(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path)
    for step in range(3):
        logger.log_metrics({f"gradient_norm/encoder.{group}": 0.1 + group for group in range(14)}, step)
        logger.log_metrics({"val/loss": 1.0, "epoch": step}, step)
    logger.save()
    figure = curves_figure(tmp_path / "metrics.csv")
    assert figure is not None
    figure.draw_without_rendering()
    _, axes = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.texts] == [f"encoder.{group}" for group in range(14)]  # 2 before 10
    box = legend.get_window_extent()
    assert [text.get_text() for text in legend.texts] == [f"encoder.{group}" for group in range(14)]
    assert len(legend.texts) == len({(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}) == 14
    assert not box.overlaps(axes.get_window_extent())
    assert not box.overlaps(axes.title.get_window_extent())
    assert figure.bbox.containsx(box.x1) and figure.bbox.containsy(box.y1) and figure.bbox.containsy(box.y0)


def test_curves_are_drawn_at_the_end_of_a_fit(tmp_path: Path) -> None:
    data, model = MNISTDataModule(), Autoencoder(MNISTEncoder(), MNISTDecoder())
    trainer(tmp_path, callbacks=[Curves()], logger=RunLogger(tmp_path)).fit(model, data)
    assert Image.open(tmp_path / "images/curves.png").size[0] > 300


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_latent_projection_plots_every_class(tmp_path: Path, method: Any) -> None:
    data, model = MNISTDataModule(), Autoencoder(MNISTEncoder(), MNISTDecoder())
    projection = LatentProjection(method=method, count=60, every_n_epochs=1)
    run = trainer(tmp_path, callbacks=[projection], logger=RunLogger(tmp_path), limit_val_batches=1.0)
    run.validate(model, data, verbose=False)
    figure = projection.draw(run, model)
    assert figure is not None
    points = sum(len(np.asarray(collection.get_offsets())) for collection in figure.axes[0].collections)
    assert points == 60
    assert len(figure.axes[0].collections) == 10


@pytest.mark.parametrize("classes", [20, 45])
def test_classes_that_a_map_names_can_be_told_apart(tmp_path: Path, classes: int) -> None:
    data, model = MNISTDataModule(), Autoencoder(MNISTEncoder(), MNISTDecoder())
    data.setup("test")
    data.test_set.labels = torch.arange(len(data.test_set)) % classes
    data.class_names = [f"species {label}" for label in range(classes)]
    projection = LatentProjection(count=180)
    run = trainer(tmp_path, callbacks=[projection], logger=RunLogger(tmp_path), limit_test_batches=1.0)
    run.test(model, data, verbose=False)
    figure = projection.draw(run, model)
    assert figure is not None
    (axes,) = figure.axes
    dots = [dot for dot in axes.collections if isinstance(dot, PathCollection)]
    looks = {str((dot.get_facecolor(), dot.get_paths()[0].vertices)) for dot in dots}
    assert len(looks) == classes
    legend, title = axes.get_legend(), axes.get_title()
    assert (legend is None, title) == (
        (False, "codes of 180 images, PCA")
        if classes == 20
        else (True, "codes of 180 images of 45 classes, several to a colour, PCA")
    )


def test_confusion_matrix_is_drawn_and_its_counts_saved(tmp_path: Path) -> None:
    data, model = MNISTDataModule(), Classifier(MNISTEncoder(), MLPHead())
    run = trainer(tmp_path, callbacks=[ConfusionMatrix()], logger=RunLogger(tmp_path))
    run.test(model, data, verbose=False)
    lines = (tmp_path / "confusion_test.csv").read_text().splitlines()
    counts = np.array([[int(cell) for cell in line.split(",")[1:]] for line in lines[1:]])
    assert counts.sum(axis=1).tolist() == [100] * 10
    assert (tmp_path / "images/confusion/test.png").is_file()
    figure = confusion_figure(counts, data.class_names)
    assert [text.get_text() for text in figure.axes[0].texts[:10]] == [str(count) for count in counts[0]]


@pytest.mark.parametrize("classes", [3, 20, 60, 200])
def test_names_of_classes_lie_apart(classes: int) -> None:
    figure = confusion_figure(np.eye(classes, dtype=np.int64), [f"species of butterflies {n}" for n in range(classes)])
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))
    assert figure.axes[0].get_window_extent().width > 90 * max(4, min(classes, 40) / 2)  # whatever the names take
    assert [axes.get_ylabel() for axes in figure.axes[1:]] == ["share of the true class"] * (classes > 20)


def test_a_picture_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file where the folder should be")
    run = trainer(tmp_path, logger=RunLogger(tmp_path))
    with pytest.warns(UserWarning, match=r"images/x\.png could not be written"):
        save_picture(run, np.zeros((4, 4), dtype=np.uint8), "x.png")


def test_lightnings_own_loggers_take_pictures_and_one_that_fails_costs_a_warning(tmp_path: Path) -> None:
    image, taken = np.zeros((4, 4, 3), dtype=np.uint8), []

    class Failing(WandbLogger):
        def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
            raise OSError("no service")

    class Taking(WandbLogger):
        def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
            taken.append((key, images[0].shape, step))

    board = TensorBoardLogger(str(tmp_path))
    loggers = [Failing(offline=True), Taking(offline=True), board, CSVLogger(str(tmp_path)), RunLogger(tmp_path)]
    with pytest.warns(UserWarning, match="the picture val/x could not be logged: no service"):
        save_picture(trainer(tmp_path, logger=loggers), image, "x.png", "val/x")
    board.finalize("success")
    assert taken == [("val/x", (4, 4, 3), 0)]
    assert any(b"val/x" in path.read_bytes() for path in tmp_path.rglob("events.out.*"))
    assert (tmp_path / "images/x.png").is_file()


def test_prior_samples_are_the_same_codes_at_every_epoch_and_leave_the_training_alone(tmp_path: Path) -> None:
    def fit(folder: Path, *callbacks: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = VAE(MNISTGaussianEncoder(4), MNISTDecoder(4), latent_dim=4)
        run = trainer(folder, callbacks=list(callbacks), logger=RunLogger(folder), max_epochs=2)
        run.fit(model, MNISTDataModule())
        return model.state_dict()

    drawn = fit(tmp_path / "drawn", PriorSamples(count=8, columns=4, every_n_epochs=1))
    plain = fit(tmp_path / "plain")
    assert all(torch.equal(drawn[name], plain[name]) for name in plain)
    pictures = sorted((tmp_path / "drawn/images/samples").iterdir())
    assert [path.name for path in pictures] == ["val_epoch_0001.png", "val_epoch_0002.png"]
    assert np.asarray(Image.open(pictures[0])).shape == (2 * 58 + 2, 4 * 58 + 2, 3)


def test_prior_samples_need_a_model_that_samples(tmp_path: Path) -> None:
    run = trainer(tmp_path, callbacks=[PriorSamples()], logger=RunLogger(tmp_path))
    run.test(Autoencoder(MNISTEncoder(), MNISTDecoder()), MNISTDataModule(), verbose=False)
    assert not (tmp_path / "images").exists()


def test_captions_name_the_class_of_each_image(tmp_path: Path) -> None:
    data, model = MNISTDataModule(), Autoencoder(MNISTEncoder(), MNISTDecoder())
    grids = [ReconstructionGrid(count=20, columns=10, captions=captions) for captions in (False, True)]
    run = trainer(tmp_path, callbacks=list(grids), logger=RunLogger(tmp_path), limit_test_batches=1.0)
    run.test(model, data, verbose=False)
    plain, captioned = (grid.draw(run, model) for grid in grids)
    assert plain is not None
    assert captioned is not None
    assert captioned.shape == (plain.shape[0] + 2 * 26 + 2, plain.shape[1], 3)  # a row for each pair, and its border
    assert np.array_equal(captioned[26:142], plain[:116])
    names = [data.class_names[label] for label in grids[1].joined()["label"].tolist()]
    assert np.array_equal(captioned[:26], caption_row(names[:10], plain.shape[1], 10))
    cells = [captioned[:26, 2 + 58 * column :][:, :55] for column in range(10)]
    for first, second in zip(range(9), range(1, 10), strict=True):
        assert np.array_equal(cells[first], cells[second]) == (names[first] == names[second])


def test_long_captions_stay_in_their_column() -> None:
    row = caption_row(["a name that is far too long (n01443537)", ""], 134, 2)
    assert row.shape == (26, 134, 3)
    assert row[:, 2:66].min() < 100
    assert row[:, 68:].min() == 255


def test_a_projection_of_two_codes_says_that_it_is_none(tmp_path: Path) -> None:
    picture = LatentProjection()
    picture.kept = [{"code": torch.rand(2, 5), "label": torch.zeros(2)}]
    with pytest.warns(UserWarning, match="LatentProjection: 2 codes are too few for a plane"):
        assert picture.draw(trainer(tmp_path), Autoencoder(MNISTEncoder(), MNISTDecoder())) is None
