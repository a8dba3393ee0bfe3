import errno
import io
import os
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from skimage.data import astronaut, coffee, rocket

from datamodules import image_cache
from datamodules.image_cache import cache_images, decode, square
from datamodules.source import Source
from tests.conftest import fork


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def picture() -> Image.Image:
    """Red on the left, green on the right, a smooth change between."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    return Image.fromarray(np.stack([255 - ramp, ramp, np.full(64, 40, np.uint8)], axis=1)[None].repeat(64, axis=0))


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "P", "RGBA", "YCbCr"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_every_mode_becomes_the_same_rgb(picture: Image.Image, mode: str, kind: str) -> None:
    source = picture.quantize(256) if mode == "P" else picture.convert(mode)
    if (kind, mode) in {("PNG", "CMYK"), ("PNG", "YCbCr"), ("JPEG", "P"), ("JPEG", "RGBA")}:
        pytest.skip(f"{kind} has no {mode}")
    image = decode(encoded(source, kind), 64)
    assert image.shape == (3, 64, 64)
    difference = np.abs(image.astype(int) - np.asarray(picture).transpose(2, 0, 1))
    assert difference.mean() < 6


def test_grayscale_of_8_and_16_bits() -> None:
    ramp = np.linspace(0, 255, 32).astype(np.uint8)[None].repeat(32, axis=0)
    for pixels in (ramp, ramp.astype(np.uint16) * 257):
        image = decode(encoded(Image.fromarray(pixels)), 32)
        assert np.abs(image.astype(int) - ramp).max() <= 1


def test_transparent_parts_become_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (decode(encoded(clear), 8) == 255).all()
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert np.abs(decode(encoded(half), 8).astype(int) - 127).max() <= 1


def test_exif_rotation_and_the_middle_square(picture: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright = decode(encoded(picture.rotate(90, expand=True), "JPEG", exif=exif, quality=95), 64)
    assert np.abs(upright.astype(int) - np.asarray(picture).transpose(2, 0, 1)).mean() < 3
    wide = Image.new("RGB", (100, 20), "blue")
    wide.paste("yellow", (40, 0, 60, 20))
    assert (decode(encoded(wide), 20)[:, :, 1:-1] == np.array([255, 255, 0])[:, None, None]).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"quality": 60, "progressive": True}, {"turned": 6}, {"xmp": 3}])
@pytest.mark.parametrize("size", [512, 300])
def test_a_jpeg_has_the_pixels_of_pil_however_it_is_decoded(
    mode: str, options: dict[str, int], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, picture = dict(options), Image.fromarray(astronaut()).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = options.pop("turned", 1)
    extra = {"exif": exif} if exif[0x0112] > 1 else {}
    if turn := options.pop("xmp", 0):
        extra = {"xmp": f'<x:xmpmeta tiff:Orientation="{turn}"/>'.encode()}  # type: ignore[dict-item]
    data = encoded(picture, "JPEG", **options, **extra)
    decoded = decode(data, size)
    monkeypatch.setattr(image_cache, "simplejpeg", None)
    assert np.array_equal(decoded, decode(data, size))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB").resize((size, size), 3)
    assert np.array_equal(decoded, np.asarray(upright).transpose(2, 0, 1))


@pytest.mark.parametrize("read", [astronaut, coffee, rocket])
@pytest.mark.parametrize("size", [32, 64, 100])
def test_a_large_jpeg_is_decoded_at_a_smaller_size_to_about_the_same_pixels(
    read: Callable[[], NDArray[np.uint8]], size: int
) -> None:
    picture = Image.fromarray(read())
    data = encoded(picture, "JPEG", quality=95)
    exact = Image.open(io.BytesIO(data))
    exact.load()
    difference = np.abs(decode(data, size).astype(int) - square(exact, size))
    assert difference.mean() < 2
    assert difference.mean() > 0  # it was indeed


def test_bad_files_are_errors_of_one_kind(picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(picture, "JPEG")
    for data in (b"", b"no image", whole[: len(whole) // 2], whole[:-200], encoded(picture)[:100]):
        with pytest.raises(ValueError, match=r"\w"):
            decode(data, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    with pytest.raises(ValueError, match=r"4096 pixels are more than the limit of 4095"):
        decode(whole, 8)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "PCX", "SGI"])
def test_only_raster_formats_are_opened_whatever_a_file_is_called(picture: Image.Image, kind: str) -> None:
    with pytest.raises(ValueError, match=r"^its content is no image$"):
        decode(encoded(picture, kind), 8)


@pytest.mark.parametrize("kind", image_cache.FORMATS)
def test_every_format_of_the_list_is_opened(picture: Image.Image, kind: str) -> None:
    try:
        data = encoded(picture, kind)
    except KeyError:
        pytest.skip(f"this build of PIL writes no {kind}")
    assert np.abs(decode(data, 64).astype(int) - np.asarray(picture).transpose(2, 0, 1)).mean() < 6


def folder_of_images(root: Path, count: int) -> list[str]:
    random = np.random.default_rng(0)
    for index in range(count):
        path = root / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return [f"{index:03d}.png" for index in range(count)]


def plain(root: Path, names: list[str]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(root / name)).transpose(2, 0, 1) for name in names])


@pytest.mark.parametrize("processes", [1, 3])
def test_images_are_in_order_and_decoded_once(tmp_path: Path, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = folder_of_images(tmp_path / "data", 200)[::-1]
    cache = cache_images(Source(tmp_path / "data"), names, 16, tmp_path / "cache", processes=processes)
    assert np.array_equal(cache.images, plain(tmp_path / "data", names))
    monkeypatch.setattr(image_cache, "decode", None)  # nothing is decoded again
    again = cache_images(Source(tmp_path / "data"), names, 16, tmp_path / "cache", processes=1)
    assert np.array_equal(again.images, cache.images)
    assert len(list((tmp_path / "cache").glob("*/"))) == 1


def test_other_files_or_sizes_get_a_cache_of_their_own(tmp_path: Path) -> None:
    names = folder_of_images(tmp_path / "data", 3)
    first = cache_images(Source(tmp_path / "data"), names, 16, tmp_path / "cache")
    assert cache_images(Source(tmp_path / "data"), names, 8, tmp_path / "cache").images.shape == (3, 3, 8, 8)
    Image.new("RGB", (16, 16), "white").save(tmp_path / "data/001.png")
    second = cache_images(Source(tmp_path / "data"), names, 16, tmp_path / "cache")
    assert (second.images[1] == 255).all()
    assert np.array_equal(first.images[0], second.images[0])


def test_a_file_that_was_replaced_is_decoded_again(tmp_path: Path) -> None:
    path = tmp_path / "data/a.bmp"
    path.parent.mkdir()
    for value in (0, 255):  # files of the same name and size
        Image.new("RGB", (8, 8), (value, value, value)).save(path)
        os.utime(path, ns=(0, value))
        cache = cache_images(Source(path.parent), ["a.bmp"], 8, tmp_path / "cache")
        assert (cache.images == value).all()


def test_bad_images_are_named_or_left_out(tmp_path: Path) -> None:
    names = folder_of_images(tmp_path / "data", 70)
    (tmp_path / "data/003.png").write_bytes(b"broken")
    source = Source(tmp_path / "data")
    with pytest.raises(ValueError, match=r"the image 003\.png cannot be read.*on_bad_image skip"):
        cache_images(source, names, 16, tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*/")) == []  # nothing half-made is left
    cache = cache_images(source, names, 16, tmp_path / "cache", on_bad_image="skip")
    assert list(cache.bad) == ["003.png"]
    with pytest.raises(ValueError, match=r"the image 003\.png cannot be read"):  # from the cache too
        cache_images(source, names, 16, tmp_path / "cache")


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    names = folder_of_images(tmp_path / "data", 4)
    cache_images(Source(tmp_path / "data"), names, 16, tmp_path / "cache")
    (file,) = tmp_path.glob("cache/*/images.u8")
    file.write_bytes(file.read_bytes()[:100])
    again = cache_images(Source(tmp_path / "data"), names, 16, tmp_path / "cache")
    assert np.array_equal(again.images, plain(tmp_path / "data", names))


def test_a_killed_build_is_never_believed(tmp_path: Path) -> None:
    names = folder_of_images(tmp_path / "data", 130)

    def killed_in_the_second_chunk() -> None:
        decode, left = image_cache.decode, iter(range(70))

        def decoded(data: bytes, size: int) -> NDArray[np.uint8]:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return decode(data, size)

        image_cache.decode = decoded
        cache_images(Source(tmp_path / "data"), names, 16, tmp_path / "cache", processes=1)

    process = fork(killed_in_the_second_chunk)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert list((tmp_path / "cache").iterdir())  # it had begun
    cache = cache_images(Source(tmp_path / "data"), names, 16, tmp_path / "cache")
    assert np.array_equal(cache.images, plain(tmp_path / "data", names))
    assert len(list((tmp_path / "cache").glob("*/"))) == 1  # its half is removed


@pytest.mark.parametrize("count", [60, 560])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, small_disk: Path, count: int) -> None:
    names = folder_of_images(tmp_path / "data", count)
    with pytest.raises(OSError, match=rf"{small_disk} has 1\.0 MB free, and .* MB are wanted .*: make room, or set"):
        cache_images(Source(tmp_path / "data"), names, 80, small_disk, processes=2)
    assert list(small_disk.iterdir()) == []


def test_room_is_asked_for_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    names = folder_of_images(tmp_path / "data", 3)
    monkeypatch.setattr(image_cache, "decode", None)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"cache has .* MB free, and 0\.0 MB are wanted \(No space left on device\)"):
        cache_images(Source(tmp_path / "data"), names, 16, tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*/")) == []


def decoding(root: Path, names: list[str]) -> tuple[Any, list[int]]:
    """A process that decodes slowly in two others, in a session of its own, and the two."""

    def work() -> None:
        os.setsid()
        decode = image_cache.decode
        image_cache.decode = lambda *args: time.sleep(0.05) or decode(*args)  # type: ignore[func-returns-value]
        cache_images(Source(root / "data"), names, 16, root / "cache", processes=2)

    process = fork(work, root / "said")
    deadline = time.monotonic() + 60
    while len(children := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()) < 2:
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, [int(child) for child in children]


def ended(pid: int) -> bool:
    path = Path(f"/proc/{pid}/stat")
    return not path.exists() or path.read_text().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of processes")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_that_decode_end_with_their_parent(tmp_path: Path, number: int) -> None:
    process, children = decoding(tmp_path, folder_of_images(tmp_path / "data", 500))
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as the terminal does
    else:
        process.kill()
    process.join(60)
    deadline = time.monotonic() + 30
    while not all(map(ended, children)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (tmp_path / "said").read_text().count("Traceback") == (number == signal.SIGINT)  # the parent's own
    assert bool(list((tmp_path / "cache").glob("*/"))) == (number == signal.SIGKILL)


def test_a_process_that_is_killed_while_it_decodes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = folder_of_images(tmp_path / "data", 130)
    monkeypatch.setattr(image_cache, "decode", lambda *args: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ChildProcessError, match=r"decodes the images of .*data was killed"):
        cache_images(Source(tmp_path / "data"), names, 16, tmp_path / "cache", processes=2)
    assert list((tmp_path / "cache").glob("*/")) == []


def test_a_damaged_member_of_a_zip_is_named(tmp_path: Path) -> None:
    names = folder_of_images(tmp_path / "data", 3)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name in names:
            archive.write(tmp_path / "data" / name, name)
    data = bytearray((tmp_path / "data.zip").read_bytes())
    data[200] ^= 0xFF  # inside the first image: its checksum fails
    (tmp_path / "data.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"the image 000\.png cannot be read"):
        cache_images(Source(tmp_path / "data.zip"), names, 16, tmp_path / "cache")
