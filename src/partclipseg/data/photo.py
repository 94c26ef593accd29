"""Photos in files and folders: which there are, and which pictures cannot be read here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from glob import glob, has_magic
from pathlib import Path

from partclipseg.counts import count_of
from partclipseg.data.pixels import (
    HEIF_SUFFIXES,
    MAX_PIXELS,
    PHOTO_SUFFIXES,
    PhotoError,
    photo_formats,
    photo_suffixes,
    printable_name,
    read_photo,
    read_picture,
)
from partclipseg.errors import UsageError
from partclipseg.files import is_directory

__all__ = [
    "MAX_PIXELS",
    "PHOTO_SUFFIXES",
    "PhotoError",
    "describe_unread",
    "find_photos",
    "photo_formats",
    "photo_suffixes",
    "pictures_by_stem",
    "read_photo",
    "read_picture",
    "unread_pictures",
]

_OTHER_PICTURES = frozenset(
    f".{suffix}"
    for suffix in (
        *("3fr", "arw", "cr2", "cr3", "dng", "erf", "nef", "nrw", "orf", "pef", "raf", "raw", "rw2", "srw", "x3f"),
        *("ai", "bpg", "dcm", "dds", "eps", "exr", "fits", "hdr", "heics", "heifs", "icns", "ico", "j2k", "jpf", "jpx"),
        *("jxl", "jxr", "mpo", "pcx", "pdf", "psb", "psd", "sgi", "svg", "wdp", "xcf"),
    )
)
"""Suffixes of pictures that no installation reads, in lower case."""

_VIDEOS = frozenset(f".{suffix}" for suffix in ("3gp", "avi", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "webm", "wmv"))
"""Suffixes of videos, which lie beside the photos of a phone, in lower case."""


def find_photos(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Find the photos named by files, folders and patterns (``*``, ``?``, ``[]``, ``**``), without repeats.

    A named file is taken whatever its suffix. A folder gives the photos directly inside it, sorted, by their
    suffixes (those of HEIC where pillow-heif is, as usual, installed); a pattern likewise, over the files that match.
    Hidden files (``._*`` of archives made on macOS among them) are skipped; links that lead nowhere are not.

    Raises:
        UsageError: nothing at all is found for one of `paths`, which is named.
    """
    found: dict[Path, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_matches(os.fspath(path))))
    return list(found)


def unread_pictures(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Find the pictures that `find_photos` leaves out of folders and patterns because their format is unsupported.

    They are sorted, and found by suffix: raw camera files, PSD, SVG and others, videos, and HEIC without the package
    pillow-heif.
    """
    kinds = (HEIF_SUFFIXES | _OTHER_PICTURES | _VIDEOS) - photo_suffixes()
    found: dict[Path, None] = {}
    for given in paths:
        path = os.fspath(given)
        if is_directory(path):
            found.update(dict.fromkeys(_of_kinds(Path(path).iterdir(), kinds)))
        elif not os.path.exists(path):  # noqa: PTH110  (answers for text that no path can be)
            found.update(dict.fromkeys(_of_kinds(_matching(path), kinds)))
    return list(found)


def pictures_by_stem(folder: Path) -> dict[str, Path]:
    """List the pictures of unsupported kinds directly in a folder by their names without suffix."""
    return {path.stem: path for path in unread_pictures([folder])} if folder.is_dir() else {}


def describe_unread(pictures: Iterable[Path]) -> str | None:
    """Write a sentence that counts pictures of unread kinds by suffix, with each remedy; None without any."""
    pictures = list(pictures)
    if not pictures:
        return None
    kinds = Counter(path.suffix.lower() for path in pictures)
    heif = [kind for kind in kinds if kind in HEIF_SUFFIXES]
    videos = [kind for kind in kinds if kind in _VIDEOS]
    other = [kind for kind in kinds if kind not in HEIF_SUFFIXES | _VIDEOS]
    remedies = [f"for {', '.join(heif)} pip install pillow-heif"] if heif else []
    remedies += [f"convert {', '.join(other)} to JPEG or PNG"] if other else []
    remedies += [f"save frames of {', '.join(videos)} as JPEG or PNG"] if videos else []
    names = ", ".join(printable_name(path.name) for path in pictures[:5])
    more = f" and {len(pictures) - 5} more" if len(pictures) > 5 else ""
    count = count_of(len(pictures), "file" if videos else "picture")
    by_kind = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    return f"{count} of a kind that is not read here ({by_kind}): {names}{more}: {'; '.join(remedies)}"


def _matches(path: str) -> list[Path]:
    name = printable_name(path)
    unread = describe_unread(unread_pictures([path]))
    besides = f", but {unread}" if unread else ""
    if is_directory(path):
        if photos := _of_kinds(Path(path).iterdir(), photo_suffixes()):
            return photos
        if besides:
            raise UsageError(f"{name}: no photos in this folder{besides}")
        raise UsageError(f'{name}: no photos in this folder; for those of its subfolders write "{name}/**/*.jpg"')
    if os.path.exists(path):  # noqa: PTH110  (answers for text that no path can be)
        return [Path(path)]
    if has_magic(path):
        if photos := _of_kinds(_matching(path), photo_suffixes()):
            return photos
        raise UsageError(f"{name}: no photo matches this pattern{besides}")
    raise UsageError(f"{name}: no such file or folder: check the path")


def _matching(pattern: str) -> list[Path]:
    try:
        # Path.glob takes no absolute patterns.
        return [Path(path) for path in glob(pattern, recursive=True)]  # noqa: PTH207
    except (OSError, ValueError):  # text that no path can be
        return []


def _of_kinds(candidates: Iterable[Path], suffixes: frozenset[str]) -> list[Path]:
    return sorted(
        path
        for path in candidates
        # Links that lead nowhere and pipes are kept: their reader says what is wrong with them.
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and not path.is_dir()
    )
