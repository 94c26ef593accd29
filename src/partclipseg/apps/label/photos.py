"""Finding the photos of a folder, and a name for the results of each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from partclipseg.data.photo import describe_unread, find_photos, unread_pictures
from partclipseg.errors import UsageError
from partclipseg.files import refusal
from partclipseg.formats.registry import data_set_formats

_LONGEST_NAME = 255
"""Bytes of a file's name on most file systems."""


class Photo(NamedTuple):
    """One photo of the folder."""

    path: str
    """Relative to the folder, with forward slashes: its name in every file."""
    stem: str
    """What its own files are called, without their suffix."""
    known: tuple[str, ...] = ()
    """Digests of the files that were written for it before: files with other content belong to a person."""


class FoundPhotos(NamedTuple):
    """The photos of a folder and the folders inside it."""

    photos: list[Photo]
    """Sorted by path."""
    unreadable: list[str]
    """A sentence for each folder that cannot be read; its photos are left out."""
    unread: str | None = None
    """A sentence that counts and names the pictures of kinds that nothing here reads; None without any."""


def find_all(folder: Path, output: Path) -> FoundPhotos:
    """Find the photos in `folder` and its subfolders; an `output` inside it is left out.

    Raises `UsageError` if there is no such folder, no photo in it, or if it lies in `output`.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: name one with photos")
    if _is_within(folder.resolve(), output.resolve()):
        raise UsageError(f"{folder} lies in the folder for the results, {output}: name another with --output")
    found, unreadable, others = _walk(folder, output.resolve())
    unread = describe_unread(sorted(others))
    paths = sorted(path.relative_to(folder).as_posix() for path in found)
    if not paths:
        besides = [*unreadable, *([unread] if unread else [])]
        raise UsageError(f"{folder}: no photos in this folder or those inside it" + "".join(f"; {b}" for b in besides))
    return FoundPhotos([Photo(path, stem) for path, stem in find_stems(paths).items()], unreadable, unread)


def find_stems(paths: Sequence[str]) -> dict[str, str]:
    """Name the results of each path: without suffix, unless two paths would get the same name.

    Capitals do not count, since some file systems ignore them. A name that is too long for the suffix of a result is
    cut, and a digest of the path makes it unique.
    """
    stems = {path: str(Path(path).with_suffix("")) for path in paths}
    while True:  # a.jpg that keeps its suffix may in turn be what a.jpg.jpg is without
        counts = Counter(stem.casefold() for stem in stems.values())
        shared = [path for path, stem in stems.items() if stem != path and counts[stem.casefold()] > 1]
        if not shared:
            break
        stems.update((path, path) for path in shared)
    taken = {stem.casefold() for stem in stems.values()}
    for path, stem in stems.items():
        if is_too_long(stem):
            stems[path] = _shortened(path, stem, taken)
    return stems


def is_too_long(stem: str) -> bool:
    """Whether a file system may refuse the name of a result."""
    return len(os.fsencode(Path(stem).name)) > _longest_stem()


def _longest_stem() -> int:
    """Bytes that the suffixes of all formats leave for the name of a result."""
    return _LONGEST_NAME - max(len(kind.extension) for kind in data_set_formats().values())


def _shortened(path: str, stem: str, taken: set[str]) -> str:
    number = 0
    while True:
        ending = f"-{blake2b(f'{number} {path}'.encode(errors='surrogateescape'), digest_size=8).hexdigest()}"
        kept = os.fsencode(Path(stem).name)[: _longest_stem() - len(ending)].decode(errors="ignore")
        short = str(Path(stem).with_name(kept + ending))
        if short.casefold() not in taken:
            taken.add(short.casefold())
            return short
        number += 1


def _walk(folder: Path, output: Path) -> tuple[list[Path], list[str], list[Path]]:
    """All photos below `folder`, through links too, but neither in `output` (resolved) nor back up.

    The second list names the folders that cannot be read, the third has the pictures of unread kinds.
    """
    photos: list[Path] = []
    others: list[Path] = []
    unreadable: list[str] = []
    for place, folders, _ in os.walk(folder, followlinks=True, onerror=lambda error: unreadable.append(refusal(error))):
        here = Path(place)
        targets = {}
        for name in folders:
            with suppress(OSError, RuntimeError):  # gone since, or links in a circle
                targets[name] = (here / name).resolve()
        folders[:] = sorted(
            name
            for name, target in targets.items()
            if not name.startswith(".") and not _is_within(target, output) and not _is_within(here.resolve(), target)
        )
        try:
            others += unread_pictures([here])
            photos += find_photos([here])
        except UsageError:  # no photos just here
            continue
        except OSError as error:
            unreadable.append(refusal(error, here))
    return photos, unreadable, others


def _is_within(path: Path, folder: Path) -> bool:
    return folder == path or folder in path.parents
