"""Unpack archives of unknown origin: no file leaves the target, no link is made, and sizes are limited."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from partclipseg.counts import count_of
from partclipseg.errors import PartCLIPSegError
from partclipseg.files import is_regular, remove_temporary, whole_directory

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Suffixes of archives, in lower case."""

MAX_FILES = 3_000_000
MAX_BYTES = 200 * 2**30
"""Default limits of `unpack`: several times the largest benchmark (ADE20K: 27,574 photos, a file for each object)."""

_ORIGIN = ".unpacked-from.json"
"""File in the unpacked folder with size and time of the archive."""


def is_archive(path: Path) -> bool:
    """Return whether the name is that of an archive that `unpack` reads."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, target: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
    """Unpack a ``.zip`` or ``.tar.*`` into the new folder `target`, completely or not at all.

    A target that is already there is complete and left unchanged; a hidden file in it tells of the archive that it
    came from. Companion files of macOS are skipped. Bytes are counted as they are written, whatever the archive states.

    Raises:
        PartCLIPSegError: a member's path is absolute or leads out of the target, a member is a link or a device,
            the limits are passed, the disk is too small, or the archive is damaged or encrypted, or `target` came
            from another archive, or from an earlier state of this one.
    """
    origin = _origin_of(archive)
    if os.path.lexists(target):
        _check_origin(archive, target, origin)
        return
    if target.parent.is_dir():
        remove_temporary(target.parent, recursive=False)
    written = files = 0
    try:
        with whole_directory(target, new=True) as folder:
            room = shutil.disk_usage(folder).free
            for name, content in _members(archive):
                if _is_companion(name):
                    continue
                path = _inside(folder, name, archive)
                path.parent.mkdir(parents=True, exist_ok=True)
                files += 1
                if files > max_files:
                    most = count_of(max_files, "file")
                    raise PartCLIPSegError(f"{archive}: holds more than {most}: unpack it by hand")
                with open(path, "wb") as file:
                    while chunk := content.read(2**20):
                        written += len(chunk)
                        if written > max_bytes:
                            raise PartCLIPSegError(
                                f"{archive}: unpacks to more than {count_of(max_bytes, 'byte')}: unpack it by hand"
                            )
                        if written > room:
                            raise PartCLIPSegError(f"{archive}: the disk of {target} is too small: free some space")
                        file.write(chunk)
            (folder / _ORIGIN).write_text(json.dumps(origin), encoding="utf-8")
    except PartCLIPSegError:
        raise
    except Exception as error:  # damaged archives make the format readers raise almost anything
        raise PartCLIPSegError(f"{archive}: cannot be unpacked ({error}): fetch it again") from error


def _origin_of(archive: Path) -> dict[str, int]:
    status = archive.stat()
    return {"bytes": status.st_size, "modified": status.st_mtime_ns}


def _check_origin(archive: Path, target: Path, origin: dict[str, int]) -> None:
    """Raise `PartCLIPSegError` unless `target` was unpacked from the archive as it is now."""
    try:
        same = is_regular(target / _ORIGIN) and json.loads((target / _ORIGIN).read_bytes()) == origin
    except (OSError, ValueError, RecursionError):
        same = False
    if not same:
        raise PartCLIPSegError(
            f"{target} was not unpacked from {archive} as it is now: if it holds a former state of it, delete {target} "
            "and give the same command again; if it is of another archive of the same name, rename one of the two"
        )


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of every regular file, in the archive's order; links and devices are errors."""
    return _zip_members(archive) if archive.name.lower().endswith(".zip") else _tar_members(archive)


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            # The upper half of the attributes is the Unix mode, where the archive was made there; 0 elsewhere.
            kind = info.external_attr >> 28
            if kind not in (0, 0o4, 0o10):
                raise _refused(archive, info.filename, "it is a link or a device")
            if info.is_dir():
                _inside(Path(), info.filename, archive)
                continue
            with zipped.open(info) as content:
                yield info.orig_filename, content


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive, "r:*") as tarred:
        while (member := tarred.next()) is not None:
            # Kept for random access, the members of a million files would fill the memory.
            tarred.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
            if member.isdir():
                _inside(Path(), member.name, archive)
                continue
            content = tarred.extractfile(member) if member.isreg() else None
            if content is None:
                raise _refused(archive, member.name, "it is a link or a device")
            yield member.name, content
        # tarfile accepts a file that is cut off between two members.
        tarred.fileobj.seek(tarred.offset)  # type: ignore[union-attr]
        if tarred.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # type: ignore[union-attr]
            raise tarfile.ReadError("it breaks off")


def _inside(folder: Path, name: str, archive: Path) -> Path:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise _refused(archive, name, "it leads out of the target folder")
    return folder.joinpath(*parts)


def _is_companion(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and (parts[-1].startswith("._") or parts[0] == "__MACOSX")


def _refused(archive: Path, name: str, reason: str) -> PartCLIPSegError:
    return PartCLIPSegError(
        f"{archive}: the member {name!r} is refused because {reason}: fetch the archive from its publisher"
    )
