import re
import stat
import zipfile
from pathlib import Path

import pytest

from datamodules.source import Source


def make(root: Path, *names: str, text: str = "") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def zipped(root: Path) -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in root.rglob("*"):
            archive.write(path, path.relative_to(root))
    return root.with_suffix(".zip")


def test_links_to_folders_are_followed_and_never_in_circles(tmp_path: Path) -> None:
    elsewhere = make(tmp_path / "elsewhere", "1.jpg", "2.jpg")
    root = make(tmp_path / "data", "cat/1.jpg")
    (root / "dog").symlink_to(elsewhere)
    for name, target in {"loop": ".", "cat/up": "..", "above": "../..", "top": "/", "gone": "nowhere"}.items():
        (root / name).symlink_to(target)
    source = Source(root)
    assert list(source.sizes) == ["cat/1.jpg", "dog/1.jpg", "dog/2.jpg"]
    assert source.read("dog/2.jpg") == b""
    assert len(source.notes) == 5
    assert "1 links lead nowhere and are left out, as gone" in source.notes
    assert "cat/up/ is left out: it links to a folder above it" in source.notes


def test_a_folder_with_links_to_it_is_read_once_by_their_names(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "store/one/1.jpg", "store/two/2.jpg")
    for link, target in {"train/cat": "one", "test/cat": "two"}.items():
        (root / link).parent.mkdir()
        (root / link).symlink_to(root / "store" / target)
    source = Source(root)
    assert list(source.sizes) == ["test/cat/2.jpg", "train/cat/1.jpg"]
    assert source.notes == ["2 folders are read by the links to them, store/two/ as test/cat/"]


def test_files_of_a_folder_are_in_order_of_their_paths_part_by_part(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "a/1.jpg", "a-b/1.jpg", "a/b/2.jpg", "B/1.jpg")
    assert list(Source(root).sizes) == ["B/1.jpg", "a/1.jpg", "a/b/2.jpg", "a-b/1.jpg"]


def test_the_listing_of_a_large_folder_is_kept_until_a_folder_or_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.source.KEPT", 4)
    elsewhere = make(tmp_path / "elsewhere", "1.jpg", text="image")
    root = make(tmp_path / "data", "a/1.jpg", "a-b/1.jpg", "a/\N{PILE OF POO}.jpg", "b/1.jpg")
    (root / "c").symlink_to(elsewhere)
    walked: list[Source] = []
    walk = Source._walk

    def walking(self: Source) -> dict[str, tuple[int, int]]:
        walked.append(self)
        return walk(self)

    monkeypatch.setattr(Source, "_walk", walking)

    def listed(times: int) -> Source:
        walked.clear()
        kept, whole = Source(root, kept_in=tmp_path / "cache"), Source(root)
        assert len(walked) == times + 1
        assert list(kept.sizes.items()) == list(whole.sizes.items())
        assert (kept.changed, kept.folders, kept.notes) == (whole.changed, whole.folders, whole.notes)
        return kept

    listed(1)
    assert list(listed(0).sizes) == ["a/1.jpg", "a/\N{PILE OF POO}.jpg", "a-b/1.jpg", "b/1.jpg", "c/1.jpg"]
    for change in (
        lambda: make(root, "b/2.jpg"),
        lambda: make(elsewhere, "2.jpg"),
        lambda: (root / "b/2.jpg").unlink(),
        lambda: (root / "a-b").rename(root / "d"),
        lambda: make(root, "a/1.jpg", text="longer"),
        lambda: next((tmp_path / "cache").glob("*.json")).write_text('{"names": ['),
    ):
        change()
        assert len(listed(1).sizes) >= 5
        listed(0)
    (root / "gone").symlink_to("nowhere")
    assert listed(1).notes == listed(1).notes != []  # a link that leads nowhere may lead somewhere later


def test_the_listing_of_a_small_folder_is_not_kept(tmp_path: Path) -> None:
    Source(make(tmp_path / "data", "a/1.jpg"), kept_in=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_zip_with_slashes_of_windows(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("cat\\1.jpg"), b"image")
    source = Source(tmp_path / "data.zip")
    assert source.sizes == {"cat/1.jpg": 5}
    assert source.read("cat/1.jpg") == b"image"


def test_sources_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a folder or zip file with class folders"):
        Source(tmp_path / "none")
    (tmp_path / "broken.zip").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"broken\.zip is no folder and no whole zip file"):
        Source(tmp_path / "broken.zip")


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "a/../../evil.jpg", "/etc/evil.jpg", "C:/evil.jpg", "a/..\\..\\evil.jpg"]
)
def test_members_that_leave_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"")
    with pytest.raises(ValueError, match=f"refused: its member {re.escape(name)} leaves"):
        Source(tmp_path / "evil.zip")


def test_links_and_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = zipfile.ZipInfo("a/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match=r"its member a/link\.jpg is a link"):
        Source(tmp_path / "link.zip")
    monkeypatch.setattr("datamodules.source.LARGEST", 2**20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/bomb.jpg", bytes(2**20 + 1))
    assert (tmp_path / "bomb.zip").stat().st_size < 2000
    with pytest.raises(ValueError, match=r"its member a/bomb\.jpg is of 1048577 bytes"):
        Source(tmp_path / "bomb.zip")
