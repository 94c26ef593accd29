"""The directory of a fetched model: where it came from, which files are ours in it, and its removal."""

from __future__ import annotations

import datetime
import json
import os
from itertools import count
from pathlib import Path
from typing import Any

from partclipseg.errors import PartCLIPSegError
from partclipseg.files import is_directory, refusal, write_text
from partclipseg.json_file import read_json
from partclipseg.kept_files import file_digest
from partclipseg.models.hub import OPTIONAL_FILES, WEIGHTS
from partclipseg.models.released import ORIGIN, Release

_FILES = "files"
"""Key of `ORIGIN` with the digests of the files of the directory."""


def write_origin(folder: Path, release: Release, digest: str, length: int) -> None:
    """Note in a model's directory where it came from, and the digests of its files.

    Args:
        folder: the complete directory.
        release: entry of the catalogue.
        digest: SHA-256 of the file that was fetched.
        length: bytes of that file.
    """
    values = {
        "name": release.name,
        "from": release.page,
        "repository": release.repository,
        "licence of the code": release.code,
        "weights and data": release.terms,
        "sha256": digest,
        "bytes": length,
        "fetched": datetime.date.today().isoformat(),
        _FILES: {path.relative_to(folder).as_posix(): file_digest(path) for path in _files(folder)},
    }
    write_text(folder / ORIGIN, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def check_place(release: Release) -> None:
    """Raise `PartCLIPSegError` if anything but an empty folder is where a model that is not here would be written."""
    place = release.directory
    try:
        free = not os.path.lexists(place) or (is_directory(place) and not any(place.iterdir()))
    except OSError as error:
        raise PartCLIPSegError(refusal(error, place)) from error
    if not free:
        raise PartCLIPSegError(
            f"{place} is in the way and is no whole model: move it away, or give `partclipseg models --remove "
            f"{release.name}`, which keeps what no fetch wrote"
        )


def remove_directory(release: Release) -> Path | None:
    """Delete the files of a fetched model; return the new place of the files that a person made or changed, or None.

    The files of models that were fetched before digests were noted are known by their names. Raises `PartCLIPSegError`
    where the system refuses.
    """
    place = release.directory
    if not os.path.lexists(place):
        return None
    try:
        if place.is_dir() and not place.is_symlink():
            known = _known(place)
            # The notes go last, so that a removal which was stopped can be given again.
            own = [path for path in _files(place) if _is_own(path, path.relative_to(place).as_posix(), known)]
            for path in sorted(own, key=lambda path: path == place / ORIGIN):
                path.unlink(missing_ok=True)
            for folder in sorted((path for path in place.rglob("*") if path.is_dir()), reverse=True):
                if not folder.is_symlink() and not any(folder.iterdir()):
                    folder.rmdir()
            if not any(place.iterdir()):
                place.rmdir()
                return None
        names = (f"{place.name}.kept{'' if number == 1 else f'-{number}'}" for number in count(1))
        return place.rename(next(place.with_name(name) for name in names if not os.path.lexists(place.with_name(name))))
    except OSError as error:
        raise PartCLIPSegError(refusal(error, place)) from error


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _known(place: Path) -> dict[str, Any]:
    """Return the digest of each of our files; None instead of the digest if any content is ours."""
    by_name = dict.fromkeys(("config.json", *WEIGHTS, *OPTIONAL_FILES))
    try:
        noted = read_json(place / ORIGIN).get(_FILES)
    except (PartCLIPSegError, AttributeError):  # no notes, or damaged ones
        noted = None
    return {**(noted if isinstance(noted, dict) else by_name), ORIGIN: None}


def _is_own(path: Path, name: str, known: dict[str, Any]) -> bool:
    return name in known and known[name] in (None, file_digest(path))
