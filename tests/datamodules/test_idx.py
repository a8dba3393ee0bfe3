import gzip
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets.mnist import read_image_file

from datamodules.idx import read_idx
from tests.conftest import Digits, write_idx


def test_equals_torchvisions_reader(tmp_path: Path, digits: Digits) -> None:
    write_idx(tmp_path / "images", digits[0][:20])
    write_idx(tmp_path / "images.gz", digits[0][:20])
    expected = read_image_file(str(tmp_path / "images"))
    assert read_idx(tmp_path / "images").equal(expected)
    assert read_idx(tmp_path / "images.gz").equal(expected)
    assert np.array_equal(expected.numpy(), digits[0][:20])


@pytest.mark.parametrize("keep", [0, 3, 7, 16, 1000])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_truncated_file_is_named(tmp_path: Path, digits: Digits, keep: int, suffix: str) -> None:
    path = tmp_path / f"images{suffix}"
    write_idx(path, digits[0][:20])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"images{suffix} is "):
        read_idx(path)


def test_a_file_with_too_much_or_of_another_kind_is_named(tmp_path: Path, digits: Digits) -> None:
    write_idx(tmp_path / "images", digits[0][:20])
    (tmp_path / "images").write_bytes((tmp_path / "images").read_bytes() + b"0")
    with pytest.raises(ValueError, match="damaged: 15681 bytes of 15680"):
        read_idx(tmp_path / "images")
    (tmp_path / "page.gz").write_bytes(gzip.compress(b"<html>not found</html>"))
    with pytest.raises(ValueError, match="is not an IDX file"):
        read_idx(tmp_path / "page.gz")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.idx.LARGEST", 1000)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(ValueError, match=r"bomb\.gz is refused: it holds more than 1000 bytes"):
        read_idx(tmp_path / "bomb.gz")
