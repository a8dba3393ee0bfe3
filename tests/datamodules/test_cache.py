import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from datamodules import ImageFolderDataModule
from datamodules.cache import Rows, mapped
from datamodules.in_memory import InMemoryImages


def test_rows_are_read_as_those_of_a_tensor() -> None:
    array = torch.randint(0, 256, (50, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([40, 3, 3, 17, 0, 49])
    rows, plain = Rows(array, index, "key"), array[index]
    assert len(rows) == 6 and rows.shape == plain.shape
    some = torch.tensor([5, 0, 2])
    for key in (slice(None), slice(1, 4), some, torch.tensor([True, False] * 3), 2, -1):
        assert rows[key].equal(plain[key])
    assert rows.index_select(0, some).equal(plain.index_select(0, some))
    assert [part.tolist() for part in rows.split(4)] == [part.tolist() for part in plain.split(4)]
    rows[:].zero_(), rows[2].zero_()
    assert rows[:].equal(plain)  # what is read is the reader's own
    assert len(Rows(array, index[:0], "key")[:]) == 0


def test_rows_are_known_by_their_array_and_index() -> None:
    array, index = torch.zeros(9, 1), torch.arange(4)
    key = Rows(array, index, "key").key
    assert Rows(array, index.clone(), "key").key == key
    assert len({key, Rows(array, index, "other").key, Rows(array, index.flip(0), "key").key}) == 3


def test_a_file_larger_than_the_memory_is_mapped_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    size = 4 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(size)  # which takes no room on the disk
    array = mapped(path, (size // 1024, 1024), torch.uint8)
    array[5] = 7  # stays with this process
    assert array[5].unique().tolist() == [7]
    assert mapped(path, (size,), torch.uint8)[5 * 1024] == 0
    mapped(path, (size,), torch.uint8, shared=True)[5 * 1024] = 9
    assert mapped(path, (size,), torch.uint8)[5 * 1024] == 9


def anonymous() -> int:
    """Bytes of memory of this process that are no pages of a file."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("only Linux tells")
    return 1024 * int(re.findall(r"RssAnon:\s*(\d+)", status.read_text())[0])


@pytest.mark.parametrize("size", [256, pytest.param(768, marks=pytest.mark.slow)])  # 0.2 and 1.8 GB
def test_an_epoch_takes_no_memory_for_the_cache(tmp_path: Path, size: int) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(1000):
        Image.new("RGB", (1, 1), (number % 256, number // 256, 0)).save(folder / f"{number:04}.ppm")
    data = ImageFolderDataModule(str(folder), image_size=size, cache_dir=str(tmp_path / "cache"), batch_size=16)
    data.prepare_data()
    before = anonymous()
    data.setup("fit")
    most, seen = 0, torch.zeros(1000)
    for batch in data.train_dataloader():
        seen[(batch.images[:, 0, 0, 0] + 256 * batch.images[:, 1, 0, 0].long()).long()] += 1
        most = max(most, anonymous() - before)
    assert seen.sum() == seen.count_nonzero() == 700
    assert most < 0.25 * 1000 * 3 * size**2  # of which a copy of the split would take 0.7


def test_batches_are_those_of_a_copy() -> None:
    array = torch.randint(0, 256, (40, 3, 4, 4), dtype=torch.uint8)
    rows, labels = Rows(array, torch.randperm(40)[:30], "key"), torch.arange(30)
    again = torch.tensor([4, 4, 9, 0])
    for index in (None, again):
        mapped_set, copied = InMemoryImages(rows, labels, index), InMemoryImages(rows[:], labels, index)
        ours, theirs = (split.__getitems__([3, 0, 2]) for split in (mapped_set, copied))
        assert ours.images.equal(theirs.images) and ours.labels.equal(theirs.labels)
        assert len(mapped_set) == len(copied)
