"""Compute digests of a data set, to find out whether saved work was made from the same data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partclipseg.data.source import FileDataset, SampleRecord, Source, SourcePhoto
from partclipseg.files import sha256
from partclipseg.machine import usable_cores

_PLACES = frozenset({"root", "split", "photos", "folders", "defects"})
"""Fields of a source that locate its files; they do not affect the content."""


def fingerprint(dataset: object, records: Iterable[SampleRecord] | None = None, verify: bool = False) -> dict[str, str]:
    """Compute digests of the annotations and of the photos of an opened data set.

    ``annotations`` covers the class list, everything read from annotation files, and the bytes of the label pictures.
    ``photos`` covers the size and the modification time of each photo, or its bytes with `verify`. Where the data set
    lies does not matter.

    Args:
        dataset: a `FileDataset`; anything else has no files, and gives an empty dictionary.
        records: the records whose photos and label pictures count; all of them by default.
        verify: read the photos.

    Raises:
        OSError: a file cannot be read.
    """
    if not isinstance(dataset, FileDataset):
        return {}
    photos: dict[tuple[str, str], tuple[Source, SourcePhoto]] = {}
    for record in dataset.records if records is None else records:
        photos.setdefault((record.source.split, record.photo.key), (record.source, record.photo))
    sources = {source.split: source for source in (record.source for record in dataset.records)}
    annotations, pictures = hashlib.sha256(), hashlib.sha256()
    for split, source in sorted(sources.items()):
        annotations.update(f"{split}\n".encode())
        for line in _content(source):
            annotations.update(line)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for digest in pool.map(_labels_digest, photos.values()):
            annotations.update(digest)
        look = sha256 if verify else _size_and_time
        found = pool.map(look, (photo.path for _, photo in photos.values()))
        for (split, key), state in zip(photos, found, strict=True):
            pictures.update(f"{split}/{key}: {state}\n".encode("utf-8", "surrogatepass"))
    kind = "content" if verify else "size and time"
    return {"annotations": annotations.hexdigest()[:16], "photos": f"{kind} {pictures.hexdigest()[:16]}"}


def changed_data(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say which entries of two fingerprints differ, such as "the annotations and the photos"; empty if none."""
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    return " and ".join(f"the {name}" for name in names)


def _content(source: Source) -> Iterable[bytes]:
    """Yield what a source has read from class lists and annotation files, in pieces."""
    for field in fields(source):
        if field.name not in _PLACES:
            yield f"\n{field.name}: ".encode()
            value = getattr(source, field.name)
            if isinstance(value, Mapping):
                for item in value.items():
                    yield _text(item)
            else:
                yield _text(value)


def _text(value: Any) -> bytes:
    return json.dumps(value, default=_plain).encode("utf-8", "surrogatepass")


def _plain(value: Any) -> Any:
    """Return the JSON form of a value that JSON does not know."""
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, Path):
        return ""  # the location of a file does not count
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    return repr(value)


def _labels_digest(found: tuple[Source, SourcePhoto]) -> bytes:
    source, photo = found
    digests = [f"{photo.key}\n"]
    for folder in source.folders[1:]:  # the folders of the label pictures
        path = folder / f"{photo.key}.png"
        digests.append(sha256(path) if path.is_file() else "none")
    return "\n".join(digests).encode("utf-8", "surrogatepass")


def _size_and_time(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
