"""Finding the photos of a folder, and a name for the results of each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from partclipseg.data.photo import find_photos
from partclipseg.errors import UsageError


class Photo(NamedTuple):
    """One photo of the folder."""

    path: str
    """Relative to the folder, with forward slashes: its name in every file."""
    stem: str
    """What its own files are called, without their suffix."""


Batch = list[Photo]


def find_all(folder: Path, output: Path) -> list[Photo]:
    """The photos in `folder` and its subfolders, sorted; an `output` inside it is left out.

    Raises `UsageError` if there is no such folder, no photo in it, or if it lies in `output`.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: name one with photos")
    if _is_within(folder.resolve(), output.resolve()):
        raise UsageError(f"{folder} lies in the folder for the results, {output}: name another with --output")
    paths = sorted(path.relative_to(folder).as_posix() for path in _walk(folder, output.resolve()))
    if not paths:
        raise UsageError(f"{folder}: no photos in this folder or those inside it")
    return [Photo(path, stem) for path, stem in find_stems(paths).items()]


def find_stems(paths: Sequence[str]) -> dict[str, str]:
    """Each path without its suffix, but with it where it would be another's: a.jpg and a.png keep theirs.

    Capitals do not count, since some file systems ignore them.
    """
    stems = {path: str(Path(path).with_suffix("")) for path in paths}
    while True:  # a.jpg that keeps its suffix may in turn be what a.jpg.jpg is without
        counts = Counter(stem.casefold() for stem in stems.values())
        shared = [path for path, stem in stems.items() if stem != path and counts[stem.casefold()] > 1]
        if not shared:
            return stems
        stems.update((path, path) for path in shared)


def _walk(folder: Path, output: Path) -> Iterator[Path]:
    """All photos below `folder`, through links too, but neither in `output` (resolved) nor back up."""
    for place, folders, _ in os.walk(folder, followlinks=True):
        here = Path(place)
        targets = {name: (here / name).resolve() for name in folders if not name.startswith(".")}
        folders[:] = [
            name
            for name, target in targets.items()
            if not _is_within(target, output) and not _is_within(here.resolve(), target)
        ]
        with suppress(UsageError):  # no photos just here
            yield from find_photos([here])


def _is_within(path: Path, folder: Path) -> bool:
    return folder == path or folder in path.parents
