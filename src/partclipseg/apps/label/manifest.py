"""``manifest.jsonl``: the state of each photo, used to continue a run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from partclipseg.apps.label.drafts import Announcements, record_files
from partclipseg.apps.label.job import BulkJob, ManifestRecord, OwnFile
from partclipseg.apps.label.photos import LabelPhoto
from partclipseg.apps.label.records import is_record
from partclipseg.errors import PartCLIPSegError
from partclipseg.formats.registry import data_set_formats
from partclipseg.journal import Journal, json_text
from partclipseg.kept_files import digest, is_free
from partclipseg.machine import usable_cores

_REMEDY = "delete that line, or the whole file; its photos are labelled again, and files that a person changed are kept"


class Manifest:
    """Manifest with a line for each photo: appended to after each batch, sorted by photo at the end.

    It holds everything known about a photo; of several lines for one photo the last counts. Its time of modification is
    when the last run that wrote to it began: only photos that are newer may have changed.
    """

    def __init__(self, path: Path, classes: int) -> None:
        """Read an existing manifest, for a vocabulary of `classes` classes.

        Raises `PartCLIPSegError` naming the line and the remedy if the file is damaged.
        """
        self._journal = Journal(path, _REMEDY)
        self._begun = time.time_ns()
        self._before = path.stat().st_mtime_ns if path.is_file() else 0
        self._contents: dict[str, str] = {}
        self._lines: dict[str, str] = {}
        self._done: set[str] = set()
        self._files: dict[str, dict[str, str]] = {}
        self._known: dict[str, set[str]] = {}
        for number, record in enumerate(self._journal.scan(), start=1):
            if not is_record(record, classes):
                raise PartCLIPSegError(f"{path} is damaged at line {number}: {_REMEDY}")
            self._take(record)
        for photo, digests in Announcements.read(path.parent):
            self._known.setdefault(photo, set()).update(digests)

    def _take(self, record: ManifestRecord) -> None:
        photo = record["photo"]
        self._lines[photo] = json_text(record)
        (self._done.add if record["status"] == "done" else self._done.discard)(photo)
        self._files[photo] = record.get("files", {})
        self._contents[photo] = record.get("content", "")
        self._known.setdefault(photo, set()).update(self._files[photo].values())

    def is_done(self, photo: LabelPhoto) -> bool:
        """Whether the photo is labelled."""
        return photo.path in self._done

    def files(self, photo: LabelPhoto) -> dict[str, str]:
        """Return the last digest of each file of the photo, by format."""
        return self._files.get(photo.path, {})

    def known(self, photo: LabelPhoto) -> set[str]:
        """Return digests of all files that this run or an earlier one wrote for the photo."""
        return self._known.get(photo.path, set())

    def has_changed(self, photo: LabelPhoto, path: Path) -> bool:
        """Whether the photo at `path` is another than the one that was labelled; False where that is not known.

        Raises `OSError` if it cannot be read.
        """
        content, status = self._contents.get(photo.path), path.stat()
        if not content or max(status.st_mtime_ns, status.st_ctime_ns) < self._before:
            return False
        return digest(path.read_bytes()) != content

    def append(self, records: Iterable[ManifestRecord]) -> None:
        """Append the records of a batch and flush them to disk."""
        records = list(records)
        self._journal.append(records)
        self._date()
        for record in records:
            self._take(record)

    def finish(self, photos: Iterable[LabelPhoto]) -> None:
        """Rewrite the file: a line for each of `photos`, in their order."""
        self._lines = {photo.path: self._lines[photo.path] for photo in photos}
        self._journal.rewrite(self)
        self._date()
        Announcements.clear(self._journal.path.parent)

    def _date(self) -> None:
        with suppress(OSError):  # at worst a photo that changes during the run is not noticed
            os.utime(self._journal.path, ns=(self._begun, self._begun))

    def record(self, photo: LabelPhoto) -> ManifestRecord:
        """Return the record of one photo."""
        return json.loads(self._lines[photo.path])

    def __iter__(self) -> Iterator[ManifestRecord]:
        return map(json.loads, self._lines.values())


def changed_photos(job: BulkJob, photos: Iterable[LabelPhoto], manifest: Manifest) -> list[LabelPhoto]:
    """Return the labelled photos whose content has changed since, or that cannot be read any more."""

    def has_changed(photo: LabelPhoto) -> bool:
        if not manifest.is_done(photo):
            return False
        try:
            return manifest.has_changed(photo, job.folder / photo.path)
        except OSError:
            return True

    photos = list(photos)
    with ThreadPoolExecutor(usable_cores()) as pool:
        return [photo for photo, changed in zip(photos, pool.map(has_changed, photos), strict=True) if changed]


def open_batches(
    job: BulkJob, photos: Sequence[LabelPhoto], manifest: Manifest, changed: Iterable[LabelPhoto] = ()
) -> list[list[LabelPhoto]]:
    """Return the batches with a photo that is not done, is `changed`, or lacks a file. Failed photos are tried again.

    With `job.overwrite`, batches with a file that belongs to a person are returned too.
    """
    again = {photo.path for photo in changed}
    batches = [list(photos[i : i + job.batch_size]) for i in range(0, len(photos), job.batch_size)]

    def is_done(photo: LabelPhoto) -> bool:
        if not manifest.is_done(photo) or photo.path in again:
            return False
        try:
            return all(
                path.is_file() and (not job.overwrite or is_free(path, manifest.known(photo)))
                for path in _files(job, photo, manifest).values()
            )
        except OSError:
            return False

    return [
        [photo._replace(known=tuple(sorted(manifest.known(photo)))) for photo in batch]
        for batch in batches
        if not all(map(is_done, batch))
    ]


def _files(job: BulkJob, photo: LabelPhoto, manifest: Manifest) -> dict[OwnFile, Path]:
    """Return the paths of all files of a photo; of one that is not done those that do not depend on its parts."""
    if not job.class_files or not manifest.is_done(photo):
        return job.own_files(photo)
    return record_files(job, photo, manifest.record(photo))


def deleted_files(job: BulkJob, photos: Iterable[LabelPhoto], manifest: Manifest) -> list[Path]:
    """Return the files that were written and have been deleted; they are made again."""
    return [
        path
        for photo in photos
        for name, path in _files(job, photo, manifest).items()
        if name in manifest.files(photo) and not path.exists() and not path.is_symlink()
    ]


def left_files(job: BulkJob, photos: Iterable[LabelPhoto]) -> list[str]:
    """Return the files of photos that are gone or renamed, relative to the output folder, sorted.

    They are told by their place alone, since a person may have corrected them.
    """
    photos = list(photos)
    current = {path for photo in photos for path in job.own_files(photo).values()}
    folders = {path: name for photo in photos for name, path in job.own_folders(photo).items()}
    places = {(kind.folder, kind.extension) for name, kind in data_set_formats().items() if name in job.formats}
    found = {
        path
        for folder, extension in places
        if folder is not None
        for path in (job.output / folder).rglob(f"*{extension}")
        if not path.name.startswith(".") and (path.is_symlink() or not path.is_dir())
    }
    return sorted(
        path.relative_to(job.output).as_posix()
        for path in found - current
        if path.parent not in folders or path.name not in job.class_files[folders[path.parent]]
    )
