"""Names that stand in annotation files, and folders full of files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from partclipseg.data.problem import DataError, Problem


def inside(folder: Path, name: str, source: Path) -> Path:
    """`folder / name`, where `name` was read from the file `source` and must not lead out of the folder.

    Raises:
        DataError: (kind ``path``) an empty or absolute name, one with ``..``, a drive letter or a control
            character, or one that a symbolic link leads out of the folder.
    """
    parts = name.replace("\\", "/").split("/")
    if (
        not name.strip()
        or name.startswith(("/", "\\", "~"))
        or re.match(r"[A-Za-z]:", name)
        or ".." in parts
        or re.search(r"[\x00-\x1f]", name)
    ):
        raise _refused(source, name, folder)
    path = folder.joinpath(*parts)
    # A link inside the folder may point anywhere; only what it points at counts.
    if not path.resolve().is_relative_to(folder.resolve()):
        raise _refused(source, name, folder)
    return path


def _refused(source: Path, name: str, folder: Path) -> DataError:
    message = (
        f"the photo path {name!r} is refused because it leads out of {folder}: write it relative to the folder "
        "of the photos, without '..' and links"
    )
    return DataError(Problem("path", source, message))


def files_by_stem(folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    """The folder's files with one of the lower-case `suffixes`, sorted by name; hidden ones are left out.

    A folder that is not there holds no files.
    """
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    paths = (folder / name for name in names)
    return {path.stem: path for path in paths if path.suffix.lower() in suffixes}


def stray_files(folder: Path) -> list[Path]:
    """The ``._*`` companions that archives made on macOS leave in a folder."""
    return sorted(folder.glob("._*")) if folder.is_dir() else []
