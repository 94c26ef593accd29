"""Find the photos of a folder, and name the results of each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from partclipseg.apps.written import without_results
from partclipseg.data.photo import describe_unread, find_photos, unread_pictures
from partclipseg.errors import UsageError
from partclipseg.files import LONGEST_NAME, refusal
from partclipseg.formats.registry import data_set_formats


class LabelPhoto(NamedTuple):
    """One photo of the folder."""

    path: str
    """Path relative to the folder, with forward slashes; it names the photo in every file."""
    stem: str
    """Name of its own files, without suffix."""
    known: tuple[str, ...] = ()
    """Digests of the files written for it before: files with other content belong to a person."""


class FoundPhotos(NamedTuple):
    """Photos of a folder and its subfolders."""

    photos: list[LabelPhoto]
    """Photos, sorted by path."""
    unreadable: list[str]
    """A sentence for each folder that cannot be read; its photos are left out."""
    unread: str | None = None
    """Sentence that counts and names the pictures of unsupported kinds; None without any."""


def find_all(folder: Path, output: Path, within: Path | None = None) -> FoundPhotos:
    """Find the photos in `folder` and its subfolders; an `output` inside it, and results of other runs, are left out.

    With `within` links that lead out of that folder are left out, and named among what cannot be read.

    Raises `UsageError` if there is no such folder, no photo in it, or if it lies in `output` or not in `within`.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file: name the folder of the photos, or give the file to partclipseg predict")
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: name one with photos")
    if within is not None and not _is_within(folder.resolve(), within.resolve()):
        raise UsageError(f"{folder} is a link that leads out of {within}: name a folder inside it")
    if _is_within(folder.resolve(), output.resolve()):
        raise UsageError(f"{folder} lies in the folder for the results, {output}: name another with --output")
    found, unreadable, others = _walk(folder, output.resolve(), within and within.resolve())
    unread = describe_unread(sorted(others))
    paths = sorted(path.relative_to(folder).as_posix() for path in found)
    if not paths:
        besides = [*unreadable, *([unread] if unread else [])]
        raise UsageError(f"{folder}: no photos in this folder or those inside it" + "".join(f"; {b}" for b in besides))
    return FoundPhotos([LabelPhoto(path, stem) for path, stem in find_stems(paths).items()], unreadable, unread)


def find_stems(paths: Sequence[str]) -> dict[str, str]:
    """Name the results of each path: without suffix, unless two paths would get the same name.

    Capitals do not count, since some file systems ignore them. A name that is too long for the suffix of a result is
    cut, and a digest of the path makes it unique.
    """
    stems = {path: str(Path(path).with_suffix("")) for path in paths}
    while True:  # a kept suffix may clash again: a.jpg and a.jpg.jpg without its own
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
    """Return the number of bytes that the suffixes of all formats leave for the name of a result."""
    return LONGEST_NAME - max(len(kind.extension) for kind in data_set_formats().values())


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


def _walk(folder: Path, output: Path, within: Path | None) -> tuple[list[Path], list[str], list[Path]]:
    """Return all photos below `folder`, following links, without cycles, `output` (resolved) and other runs' results.

    Links are followed within a folder only, if one is given (resolved). The second list names what cannot be read, the
    third the pictures of unsupported kinds.
    """
    photos: list[Path] = []
    others: list[Path] = []
    unreadable: list[str] = []

    def leads_out(path: Path, target: Path) -> bool:
        if within is None or _is_within(target, within):
            return False
        unreadable.append(f"{path} is a link that leads out of {within}")
        return True

    for place, folders, _ in os.walk(folder, followlinks=True, onerror=lambda error: unreadable.append(refusal(error))):
        here = Path(place)
        targets = {}
        for name in folders:
            with suppress(OSError, RuntimeError):  # deleted meanwhile, or a cycle of links
                targets[name] = (here / name).resolve()
        folders[:] = sorted(
            name
            for name, target in targets.items()
            if not name.startswith(".")
            and not _is_within(target, output)
            and not _is_within(here.resolve(), target)
            and not leads_out(here / name, target)
            and not _is_output(here / name)
        )
        try:
            others += unread_pictures([here])
            found = without_results(here, find_photos([here]), folder)
            photos += [one for one in found if not (one.is_symlink() and leads_out(one, Path(os.path.realpath(one))))]
        except UsageError:  # no photos directly in this folder
            continue
        except OSError as error:
            unreadable.append(refusal(error, here))
    return photos, unreadable, others


def _is_output(folder: Path) -> bool:
    """Whether a folder holds the results of a run of ``partclipseg label``."""
    from partclipseg.apps.label.job import MANIFEST, OPTIONS
    from partclipseg.kept_files import WRITTEN

    return all((folder / name).exists() for name in (MANIFEST, OPTIONS, WRITTEN))


def _is_within(path: Path, folder: Path) -> bool:
    return folder == path or folder in path.parents
