"""Archives of unknown origin: what leads out is refused, and then nothing at all is unpacked."""

from __future__ import annotations

import io
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from partclipseg.data.prepare.archive import is_archive, unpack
from partclipseg.data.prepare.source import find, open_sources
from partclipseg.errors import PartCLIPSegError, UsageError

GOOD = {"raw/a.txt": b"one", "raw/deep/b.txt": b"two", "raw/._a.txt": b"mac", "__MACOSX/raw/a.txt": b"mac"}


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def files(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    found.pop(".unpacked-from.json", None)  # the record of the archive
    return found


def good_archive(folder: Path, suffix: str) -> Path:
    path = folder / f"good{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("raw")
            for name, content in GOOD.items():
                archive.writestr(name, content)
        return path
    modes = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
    folder_entry = (member("raw", tarfile.DIRTYPE), b"")
    return tar(path, folder_entry, *((member(n), c) for n, c in GOOD.items()), mode=modes[suffix])


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"])
def test_an_archive_is_unpacked_once_and_without_companions(tmp_path, suffix):
    archive = good_archive(tmp_path, suffix)
    assert is_archive(archive)
    unpack(archive, tmp_path / "target")
    assert files(tmp_path / "target") == {"raw/a.txt": b"one", "raw/deep/b.txt": b"two"}
    (tmp_path / "target/raw/a.txt").write_text("kept")
    unpack(archive, tmp_path / "target")
    assert (tmp_path / "target/raw/a.txt").read_text() == "kept"


BAD_NAMES = ["../out.txt", "a/../../out.txt", "/out.txt", "..", "C:\\out.txt", "..\\out.txt", "\\out.txt"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_tar_members_that_lead_out_are_refused(tmp_path, name, kind):
    bad = member(name, tarfile.REGTYPE if kind == "file" else tarfile.DIRTYPE)
    archive = tar(tmp_path / "bad.tar.gz", (member("first.txt"), b"x"), (bad, b"x"))
    assert_refused(archive, tmp_path, "leads out")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_zip_members_that_lead_out_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("first.txt", b"x")
        archive.writestr(zipfile.ZipInfo(name), b"x")
    assert_refused(tmp_path / "bad.zip", tmp_path, "leads out")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "first.txt"),
        (tarfile.LNKTYPE, "first.txt"),
        (tarfile.LNKTYPE, "../../first.txt"),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_tar_links_and_devices_are_refused(tmp_path, kind, target):
    archive = tar(tmp_path / "bad.tar", (member("first.txt"), b"x"), (member("second", kind, target), b""), mode="w")
    assert_refused(archive, tmp_path, "link or a device")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_zip_links_and_devices_are_refused(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("first.txt", b"x")
        info = zipfile.ZipInfo("second")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, b"/etc/passwd")
    assert_refused(tmp_path / "bad.zip", tmp_path, "link or a device")


def assert_refused(archive: Path, folder: Path, words: str) -> None:
    with pytest.raises(PartCLIPSegError, match=words) as caught:
        unpack(archive, folder / "deep/target")
    assert archive.name in str(caught.value)
    # Nothing is left, neither in the target nor beside it.
    assert files(folder) == {archive.name: archive.read_bytes()}


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize(("limits", "words"), [({"max_files": 1}, "1 file:"), ({"max_bytes": 5}, "5 bytes")])
def test_archives_beyond_the_limits_are_refused(tmp_path, suffix, limits, words):
    archive = good_archive(tmp_path, suffix)
    with pytest.raises(PartCLIPSegError, match=words):
        unpack(archive, tmp_path / "target", **limits)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("suffix", "length"),
    # Of the plain .tar: within a header, within a file's content, and at the borders of both.
    [(".zip", 90), (".tar.gz", 90), (".tar.xz", 90), *((".tar", n) for n in (300, 512, 600, 1024, 1030, 1536, 2600))],
)
def test_a_damaged_archive_is_named(tmp_path, suffix, length):
    archive = good_archive(tmp_path, suffix)
    archive.write_bytes(archive.read_bytes()[:length])
    with pytest.raises(PartCLIPSegError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_leftovers_of_a_killed_run_go_away(tmp_path):
    leftover = tmp_path / ".partclipseg-99999999-0123abcd.tmp"
    leftover.mkdir()
    unpack(good_archive(tmp_path, ".zip"), tmp_path / "target")
    assert not leftover.exists()


# -- sources ------------------------------------------------------------------------------------------------------


def changed(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("raw/c.txt", b"three")


def another(archive: Path, target: Path) -> None:
    archive.unlink()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("raw/a.txt", b"other")


def a_persons(archive: Path, target: Path) -> None:
    shutil.rmtree(target)
    target.mkdir()
    (target / "a.txt").write_text("mine")


def emptied(archive: Path, target: Path) -> None:
    shutil.rmtree(target)
    target.mkdir()


def a_file(archive: Path, target: Path) -> None:
    shutil.rmtree(target)
    target.write_text("mine")


def a_dangling_link(archive: Path, target: Path) -> None:
    shutil.rmtree(target)
    target.symlink_to("nowhere")


def damaged_record(archive: Path, target: Path) -> None:
    (target / ".unpacked-from.json").write_text("[")


@pytest.mark.parametrize(
    "change", [changed, another, a_persons, emptied, a_file, a_dangling_link, damaged_record], ids=lambda f: f.__name__
)
def test_what_was_not_unpacked_from_the_archive_as_it_is_now_is_neither_used_nor_replaced(
    tmp_path: Path, change: Callable[[Path, Path], None]
) -> None:
    archive, target = good_archive(tmp_path, ".zip"), tmp_path / "target"
    unpack(archive, target)
    change(archive, target)
    before = files(tmp_path)
    with pytest.raises(PartCLIPSegError, match=r"target was not unpacked from .*good.zip as it is now: .*delete"):
        unpack(archive, target)
    assert files(tmp_path) == before


def test_two_archives_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name, suffix in (("one", ".zip"), ("two", ".tar")):
        (tmp_path / name).mkdir()
        good_archive(tmp_path / name, suffix).rename(tmp_path / name / "same.zip")
    with pytest.raises(PartCLIPSegError, match="of another archive of the same name, rename one of the two"):
        open_sources([tmp_path / "one/same.zip", tmp_path / "two/same.zip"], tmp_path / "out")


def test_sources_are_folders_and_archives_unpacked_beside_the_output(tmp_path):
    (tmp_path / "folder").mkdir()
    archive = good_archive(tmp_path, ".zip")
    folders = open_sources([tmp_path / "folder", archive], tmp_path / "out")
    assert folders == [tmp_path / "folder", tmp_path / "out.unpacked/good.zip"]
    assert [p.name for p in find(folders, ".txt")] == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("source", "output", "words"),
    [
        ("missing", "out", "does not exist"),
        ("file.bin", "out", "not a folder or an archive"),
        ("folder", "folder/out", "lie in each other"),
        ("folder", "folder", "lie in each other"),
        ("folder/inner", "folder", "lie in each other"),
    ],
)
def test_impossible_sources_are_refused(tmp_path, source, output, words):
    (tmp_path / "folder/inner").mkdir(parents=True)
    (tmp_path / "file.bin").write_bytes(b"")
    with pytest.raises(UsageError, match=words):
        open_sources([tmp_path / source], tmp_path / output)


def test_no_source_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="--source"):
        open_sources([], tmp_path / "out")
