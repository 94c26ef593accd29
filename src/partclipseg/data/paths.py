"""Find files by the names that annotation files give, and list folders."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote

from partclipseg.data.problem import DataError, Problem
from partclipseg.data.values import quoted
from partclipseg.files import is_file


def inside(folder: Path, name: str, source: Path) -> Path:
    """Return `folder / name`, where `name` was read from the file `source` and must not lead out of the folder.

    Only the written name counts. Links are followed wherever they lead: hub caches and DVC keep the files of a
    folder elsewhere.

    Raises:
        DataError: (kind ``path``) an empty or absolute name, or one with ``..``, a drive letter or a control character.
    """
    parts = name.replace("\\", "/").split("/")
    if not name.strip() or all(part in ("", ".") for part in parts):
        raise _refused(source, name, "it names no file: write the file's name")
    if re.search(r"[\x00-\x1f]", name):
        raise _refused(source, name, "it holds a control character: write the file's name")
    if name.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:", name) or ".." in parts:
        remedy = "write it relative to the folder of the photos, without '..'"
        raise _refused(source, name, f"it leads out of {folder}: {remedy}")
    return folder.joinpath(*parts)


def _refused(source: Path, name: str, reason: str) -> DataError:
    return DataError(Problem("path", source, f"the photo path {quoted(name)} is refused because {reason}"))


class LookAlikes:
    """Finder of files whose names differ from a wanted one only in the spelling that tools tend to change.

    That is Unicode normalisation (macOS decomposes letters with accents), capitals, and percent-encoding. Each folder
    is listed once.
    """

    def __init__(self) -> None:
        self._listings: dict[Path, dict[str, str]] = {}

    def find(self, folder: Path, name: str) -> Path | None:
        """Find the file below `folder` that was probably meant by the relative path `name`."""
        path = folder
        for part in alike(name).split("/"):
            if part in ("", "."):
                continue
            found = self._listing(path).get(part)
            if found is None:
                return None
            path = path / found
        return path if is_file(path) else None

    def _listing(self, folder: Path) -> dict[str, str]:
        if folder not in self._listings:
            try:
                names = sorted(os.listdir(folder))  # noqa: PTH208 - names alone, of a folder of many photos
            except OSError:
                names = []
            self._listings[folder] = {alike(name): name for name in names}
        return self._listings[folder]


def alike(name: str) -> str:
    """Return the form that all spellings of a file name share: see `LookAlikes`."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", unquote(name)).casefold()).replace("\\", "/")


def spelling(wanted: str, found: str) -> str:
    """Say how two names that are `alike` differ."""
    if unicodedata.normalize("NFC", wanted) == unicodedata.normalize("NFC", found):
        return "in the Unicode normal form of its letters (NFC or NFD)"
    if unquote(wanted) == unquote(found):
        return "in percent-encoding"
    return "in capitals" if wanted.casefold() == found.casefold() else "in spelling"


def files_by_stem(folder: Path, suffixes: frozenset[str], defects: list[Problem] | None = None) -> dict[str, Path]:
    """List the folder's files with one of the lower-case `suffixes`, sorted by name; hidden ones are left out.

    A folder that is not there holds no files. Of files with the same stem the last counts, and each of the others is
    added to `defects`.
    """
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    found: dict[str, Path] = {}
    for path in (folder / name for name in names):
        if path.suffix.lower() not in suffixes:
            continue
        if defects is not None and path.stem in found:
            message = f"{path.name} beside it has the same name but for the suffix: keep one of the two"
            defects.append(Problem("repeated", found[path.stem], message))
        found[path.stem] = path
    return found


def stray_files(folder: Path) -> list[Path]:
    """List the ``._*`` companions that archives made on macOS leave in a folder."""
    return sorted(folder.glob("._*")) if folder.is_dir() else []
