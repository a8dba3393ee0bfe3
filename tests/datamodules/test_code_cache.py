import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules import ImageFolderDataModule, MNISTDataModule
from datamodules.cache import Rows
from datamodules.code_cache import cache_codes
from lightning_modules import Autoencoder, Classifier, Inversion, MLPHead, MNISTDecoder, MNISTEncoder
from tests.conftest import QUICK, Fails, Run, fork, wait_for
from tests.lightning_modules.test_base import trainer

IMAGES = torch.randint(0, 256, (150, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Counting:
    """Doubles images, and counts how many it was given."""

    def __init__(self, dtype: torch.dtype = torch.float32, factor: float = 2.0) -> None:
        self.seen, self.dtype, self.factor = 0, dtype, factor

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return (images.flatten(1).float() * self.factor).to(self.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_are_encoded_once(tmp_path: Path, dtype: torch.dtype) -> None:
    first, second = Counting(dtype), Counting(dtype)
    codes = cache_codes(IMAGES, first, "key", tmp_path, 1.0)
    assert codes.dtype == dtype
    assert codes.equal(first(IMAGES))
    assert cache_codes(IMAGES, second, "key", tmp_path, 1.0).equal(codes)
    assert second.seen < 20  # a few are always encoded, to see whether the cache is right
    assert len(list(tmp_path.glob("*/"))) == 1


def test_processes_that_start_together_encode_once(tmp_path: Path) -> None:
    def encode(images: Tensor) -> Tensor:
        with (tmp_path / "seen").open("a") as file:
            file.write(f"{len(images)}\n")
        time.sleep(0.02)
        return images.flatten(1).float()

    def work() -> None:
        torch.set_num_threads(1)
        assert cache_codes(IMAGES, encode, "key", tmp_path / "cache", 1.0).equal(IMAGES.flatten(1).float())

    processes = [multiprocessing.get_context("fork").Process(target=work) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    sizes = [int(size) for size in (tmp_path / "seen").read_text().split()]
    assert sum(size for size in sizes if size in (64, 22)) == len(IMAGES)  # the others are samples of nine


def test_other_images_or_another_encoder_have_a_cache_of_their_own(tmp_path: Path) -> None:
    cache_codes(IMAGES, Counting(), "key", tmp_path, 1.0)
    for images, key in ((IMAGES, "other"), (IMAGES.flip(0), "key"), (IMAGES[1:], "key"), (255 - IMAGES, "key")):
        encode = Counting()
        assert cache_codes(images, encode, key, tmp_path, 1.0).equal(Counting()(images))
        assert encode.seen > len(images)


def test_codes_of_another_shape_or_kind_stay_beside_the_first(tmp_path: Path) -> None:
    def pairs(images: Tensor) -> Tensor:
        return torch.stack([images.flatten(1).float()] * 2, dim=1)

    kinds: list[Callable[[Tensor], Tensor]] = [Counting(), Counting(torch.bfloat16), pairs]
    for encode in kinds:
        cache_codes(IMAGES, encode, "key", tmp_path, 1.0)
    again = Counting()
    assert cache_codes(IMAGES, again, "key", tmp_path, 1.0).shape == (150, 16)
    assert again.seen < 20


def test_a_cache_that_disagrees_with_the_encoder_is_made_anew(tmp_path: Path) -> None:
    cache_codes(IMAGES, Counting(), "key", tmp_path, 1.0)
    changed = Counting(factor=3.0)  # its code was edited, which no hash of weights shows
    assert cache_codes(IMAGES, changed, "key", tmp_path, 1.0).equal(Counting(factor=3.0)(IMAGES))


class Killed(Counting):
    """Ends in the second of the blocks."""

    def __call__(self, images: Tensor) -> Tensor:
        if self.seen > 64:
            raise KeyboardInterrupt
        return super().__call__(images)


def test_a_killed_build_is_continued_and_a_damaged_one_is_made_anew(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache_codes(IMAGES, Killed(), "key", tmp_path, 1.0)
    (part,) = tmp_path.glob("*/")
    assert [path.name for path in part.glob("*.done")] == ["0.done"]
    rest = Counting()
    assert cache_codes(IMAGES, rest, "key", tmp_path, 0.0).equal(Counting()(IMAGES))  # its room was taken before
    assert rest.seen == 9 + 150 - 64
    (folder,) = tmp_path.glob("*/")
    assert {path.name for path in folder.iterdir()} == {"codes", "sample"}
    with (folder / "codes").open("r+b") as file:
        file.truncate(1000)
    assert cache_codes(IMAGES, Counting(), "key", tmp_path, 1.0).equal(Counting()(IMAGES))


def test_a_cache_is_believed_by_codes_of_the_same_batch(tmp_path: Path) -> None:
    """Half precision is rounded otherwise in batches of another size."""

    class Rounded(Counting):
        def __call__(self, images: Tensor) -> Tensor:
            return super().__call__(images) + len(images)

    codes = cache_codes(IMAGES, Rounded(), "key", tmp_path, 1.0)
    again = Rounded()
    assert cache_codes(IMAGES, again, "key", tmp_path, 1.0).equal(codes)
    assert again.seen == 9
    (folder,) = tmp_path.glob("*/")
    (folder / "sample").unlink()  # as in a cache of an earlier version
    cache_codes(IMAGES, again, "key", tmp_path, 1.0)
    assert again.seen == 9 + 9 + 150


def test_codes_that_are_no_numbers_are_kept_too(tmp_path: Path) -> None:
    images = torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    for value in (3.0, float("nan")):
        for _ in range(2):
            codes = cache_codes(
                images, partial(torch.full_like, fill_value=value, dtype=torch.float32), str(value), tmp_path, 1.0
            )
            assert codes.allclose(torch.full((1, 1, 1, 1), value), equal_nan=True)
    assert len(list(tmp_path.glob("*/"))) == 2


def test_a_half_written_cache_of_another_encoder_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache_codes(IMAGES, Killed(factor=3.0), "key", tmp_path, 1.0)
    assert cache_codes(IMAGES, Counting(), "key", tmp_path, 1.0).equal(Counting()(IMAGES))


def test_a_file_that_the_encoder_misses_leaves_no_cache_that_is_believed(tmp_path: Path) -> None:
    def misses(images: Tensor) -> Tensor:
        if len(images) == 64:
            raise FileNotFoundError("weights.pt")
        return Counting()(images)

    with pytest.raises(FileNotFoundError, match="weights"):
        cache_codes(IMAGES, misses, "key", tmp_path, 1.0)
    assert [".part-" in path.name for path in tmp_path.glob("*/")] == [True]
    assert cache_codes(IMAGES, Counting(), "key", tmp_path, 1.0).equal(Counting()(IMAGES))


def test_one_whose_cache_is_thrown_away_leaves_a_half_written_one_alone(tmp_path: Path) -> None:
    class Displaced(Counting):
        def __call__(self, images: Tensor) -> Tensor:
            if len(images) == 64 and self.seen < 20:
                with pytest.raises(KeyboardInterrupt):
                    cache_codes(IMAGES, Killed(factor=3.0), "key", tmp_path, 1.0)
            return super().__call__(images)

    with pytest.raises(OSError, match="thrown away"):
        cache_codes(IMAGES, Displaced(), "key", tmp_path, 1.0)
    rest = Counting(factor=3.0)
    assert cache_codes(IMAGES, rest, "key", tmp_path, 1.0).equal(Counting(factor=3.0)(IMAGES))
    assert rest.seen == 9 + 150 - 64


def test_one_whose_cache_is_thrown_away_says_so(tmp_path: Path) -> None:
    class Displaced(Counting):
        def __call__(self, images: Tensor) -> Tensor:
            if len(images) == 64 and self.seen < 20:  # amid its first block comes one with other codes
                cache_codes(IMAGES, Counting(factor=3.0), "key", tmp_path, 1.0)
            return super().__call__(images)

    with pytest.raises(OSError, match=r"codes-\w+\.part-\w+ was thrown away by a process whose"):
        cache_codes(IMAGES, Displaced(), "key", tmp_path, 1.0)
    assert cache_codes(IMAGES, Counting(factor=3.0), "key", tmp_path, 1.0).equal(Counting(factor=3.0)(IMAGES))


def test_codes_of_mapped_images_are_known_without_a_look_at_all_of_them(tmp_path: Path) -> None:
    class Looked(Rows):
        seen = 0

        def __getitem__(self, rows: int | slice | Tensor) -> Tensor:
            images = super().__getitem__(rows)
            self.seen += len(images)
            return images

    index = torch.arange(149, -1, -1)
    first = cache_codes(Rows(IMAGES, index, "images"), Counting(), "key", tmp_path, 1.0)
    assert first.equal(Counting()(IMAGES.flip(0)))
    again = Looked(IMAGES, index, "images")
    assert cache_codes(again, Counting(), "key", tmp_path, 1.0).equal(first)
    assert again.seen == 9
    for other in (Rows(IMAGES, index, "others"), Rows(IMAGES, index.flip(0), "images")):
        encode = Counting()
        assert cache_codes(other, encode, "key", tmp_path, 1.0).equal(Counting()(other[:]))
        assert encode.seen == 9 + 150


def test_processes_share_the_work_and_take_up_that_of_a_killed_one(tmp_path: Path) -> None:
    images = torch.arange(64 * 12, dtype=torch.int32).view(-1, 1, 1, 1).bitwise_and(255).to(torch.uint8)

    def encode(images: Tensor) -> Tensor:
        if len(images) == 64:
            with (tmp_path / "seen").open("a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(0.1)
        return images.flatten(1).float()

    def work() -> None:
        torch.set_num_threads(1)
        assert cache_codes(images, encode, "key", tmp_path / "cache", 1.0).equal(images.flatten(1).float())

    killed, left = (fork(work) for _ in range(2))
    wait_for(tmp_path / "seen", killed)
    time.sleep(0.35)
    killed.kill()
    left.join(30)
    assert left.exitcode == 0
    by = Counter((tmp_path / "seen").read_text().split())
    assert sum(by.values()) in (12, 13)  # with the block that was killed, unless it was between two
    assert 2 <= by[str(killed.pid)] <= 6


def test_too_large_a_cache_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"would take 0\.00 GB on disk, more than data\.code_cache_limit_gb=1e-06"):
        cache_codes(IMAGES, Counting(), "key", tmp_path, 1e-6)
    assert list(tmp_path.glob("*/")) == []
    cache_codes(IMAGES, Counting(), "key", tmp_path, 1.0)
    assert cache_codes(IMAGES, Counting(), "key", tmp_path, 1e-6).equal(Counting()(IMAGES))  # one that is there is read


def test_a_full_disk_is_an_error_and_leaves_nothing(small_disk: Path) -> None:
    images = torch.zeros(20_000, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(OSError, match=rf"{small_disk} has 1\.0 MB free, and 1\.3 MB are wanted .*model\.cache_codes"):
        cache_codes(images, Counting(), "key", small_disk, 1.0)
    assert list(small_disk.iterdir()) == []


def test_training_on_cached_codes_is_the_training_on_images(tmp_path: Path) -> None:
    """The same batches in the same order and the same codes: the same weights."""

    def fit(model_class: type[Classifier] | type[Inversion], cache: bool) -> tuple[dict[str, Tensor], int]:
        torch.manual_seed(0)
        encoder = MNISTEncoder()
        calls: list[int] = []
        encoder.register_forward_hook(lambda module, args, output: calls.append(len(output)))
        options: dict[str, Any] = (
            {"freeze_encoder": True} if model_class is Classifier else {"encoder_checkpoint": None}
        )
        reader: nn.Module = MLPHead() if model_class is Classifier else MNISTDecoder()
        # Codes of other batch sizes are rounded otherwise. A step of SGD is as small as its gradient and hands that on
        # as it is; Adam's is as large for a gradient of 1e-8, which rounding turns around.
        sgd = partial(torch.optim.SGD, lr=0.05)
        model = model_class(encoder, reader, cache_codes=cache, optimizer=sgd, **options)
        data = MNISTDataModule(val_size=100, num_labels=500, cache_dir=str(tmp_path))
        run = trainer(tmp_path, max_epochs=3, limit_train_batches=1.0, limit_val_batches=1.0)
        torch.manual_seed(1)
        run.fit(model, data)
        return model.state_dict() | {"val/loss": run.callback_metrics["val/loss"]}, sum(calls)

    for model_class in (Classifier, Inversion):
        plain, seen = fit(model_class, cache=False)
        cached, seen_cached = fit(model_class, cache=True)
        assert seen == 2 + 3 * 500 + 4 * 100  # to look at the shapes, at every epoch, and in the sanity check
        assert seen_cached < (650 if model_class is Classifier else 100)  # the second class finds the first one's
        assert all(torch.allclose(plain[name], cached[name], atol=1e-4) for name in plain)


def test_what_cannot_be_cached_is_said(run: Run, fails: Fails, tmp_path: Path) -> None:
    flags = [*QUICK, "--model=Classifier", "--model.encoder=MNISTEncoder", "--model.head=MLPHead"]
    flags += ["--trainer.callbacks=null", "--model.cache_codes=true"]
    assert "set model.freeze_encoder true" in fails("fit", *flags)
    flags += ["--model.freeze_encoder=true", f"--data.cache_dir={tmp_path / 'cache'}"]
    assert "set data.augmentations to null" in fails("fit", *flags, "--data.augmentations+=PerImageAffine")
    run("fit", *flags)
    assert len(list((tmp_path / "cache").glob("*/"))) == 2


def test_predictions_name_the_files_in_the_order_of_the_data(tmp_path: Path) -> None:
    from callbacks import PredictionWriter
    from preimage.loggers import RunLogger
    from tests.datamodules.test_image_folder import make_tree

    data = ImageFolderDataModule(str(make_tree(tmp_path)), image_size=8, cache_dir=str(tmp_path), predict_split="train")
    run = trainer(tmp_path, callbacks=[PredictionWriter()], logger=RunLogger(tmp_path / "run"))
    run.predict(Autoencoder(nn.Flatten(), nn.Unflatten(1, (3, 8, 8))), data)
    predictions = np.load(tmp_path / "run/predictions.npz")
    assert len(predictions["name"]) == len(predictions["code"]) == 63
    for name, label, code in zip(predictions["name"], predictions["label"], predictions["code"], strict=True):
        folder, _, index = str(name).removesuffix(".png").partition("/")
        assert data.class_names[label] == folder
        assert round(255 * float(code[64])) == 5 * int(index)  # the green channel tells the image
