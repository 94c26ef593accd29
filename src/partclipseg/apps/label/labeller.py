"""Labelling one batch: photos in, files and records out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from partclipseg.apps.label.drafts import Announcements, digest, done_record, draft, is_free, write_draft
from partclipseg.apps.label.job import BulkFormat, BulkJob, Record
from partclipseg.apps.label.photos import Photo
from partclipseg.data.photo import PhotoError
from partclipseg.files import flush, is_disk_full, refusal
from partclipseg.inference.result import PartResult

if TYPE_CHECKING:
    from partclipseg.inference.segmenter import PartSegmenter


class _Drafts(NamedTuple):
    """The files of one photo before they are written."""

    photo: Photo
    record: Record
    contents: Mapping[BulkFormat, bytes]


class Labeller:
    """Turns batches of photos into files and records."""

    def __init__(self, job: BulkJob, segmenter: PartSegmenter, threads: int = 1) -> None:
        """Files are written by so many `threads`."""
        self.job = job
        self.segmenter = segmenter
        self._threads = threads
        self._announcements = Announcements(job.output)

    @classmethod
    def load(cls, job: BulkJob, device: str | None, threads: int) -> Labeller:
        """In a process of its own, with so many CPU threads, since others share the cores."""
        import torch

        from partclipseg.inference.segmenter import PartSegmenter

        torch.set_num_threads(threads)
        logging.disable(logging.WARNING)  # the process that started this one has said it already
        return cls(job, PartSegmenter.from_pretrained(job.model, device, job.dtype, prompting=job.prompting), threads)

    def __call__(self, batch: Sequence[Photo]) -> list[Record]:
        """Write the photos' own files; returns their records. All is on the disk then.

        Files that belong to a person are left as they are. Raises `OSError` only where the next photo would fail
        likewise: the disk is full or read-only, or the journal of digests cannot be written.
        """
        paths = [self.job.folder / photo.path for photo in batch]
        try:
            results = self._segment(paths)
        except Exception:
            results = [self._segment_alone(path) for path in paths]  # to find out whose fault it is
        with ThreadPoolExecutor(self._threads) as pool:
            drafts = list(pool.map(self._draft, batch, results))
            self._announcements.add(
                (photo, {name: digest(content) for name, content in contents.items()}) for photo, _, contents in drafts
            )
            records = list(pool.map(self._write, drafts))
        for folder in {path.parent for photo in batch for path in self.job.own_files(photo).values()}:
            with suppress(FileNotFoundError, NotADirectoryError):  # where no photo could be written
                flush(folder)
        return records

    def _segment(self, paths: Sequence[Path]) -> list[PartResult | Exception]:
        job = self.job
        options: dict[str, Any] = {"objects": job.objects or None, "zoom": job.zoom, "max_pixels": job.max_pixels}
        options["min_part_probability"] = job.min_part_probability
        with warnings.catch_warnings():
            # Photos above the limit are reported by name; Pillow would warn about them a second time.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            stream = self.segmenter.segment_many(paths, job.vocabulary, batch_size=job.batch_size, **options)
            return [result for _, result in stream]

    def _segment_alone(self, path: Path) -> PartResult | Exception:
        try:
            return self._segment([path])[0]
        except Exception as error:
            return error

    def _draft(self, photo: Photo, result: PartResult | Exception) -> _Drafts:
        if isinstance(result, PartResult):
            try:
                result = result.at_least(self.job.min_score)
                contents: dict[BulkFormat, bytes] = {}
                for name in self.job.own_files(photo):
                    contents[name] = draft(self.job, name, photo, result)
                return _Drafts(photo, done_record(photo, result), contents)
            except Exception as error:
                result = error
        return _Drafts(photo, failed(photo, str(self.job.folder / photo.path), result), {})

    def _write(self, drafts: _Drafts) -> Record:
        """Write the files that are not a person's; the record holds the digests of those that were written."""
        photo, record, contents = drafts
        paths = self.job.own_files(photo)
        digests = {name: digest(content) for name, content in contents.items()}
        known = {*photo.known, *digests.values()}
        if record["status"] == "done":
            try:
                free: list[BulkFormat] = [name for name in contents if is_free(paths[name], known, self.job.overwrite)]
                for name in free:
                    write_draft(paths[name], contents[name])
                return record | {"files": {name: digests[name] for name in free}}
            except OSError as error:
                if is_disk_full(error):
                    raise
                record = failed(photo, str(self.job.folder / photo.path), error)
        for path in paths.values():
            with suppress(OSError):
                if is_free(path, known):
                    path.unlink(missing_ok=True)  # of an earlier run, when the photo could still be read
        return record


def failed(photo: Photo, path: str, error: Exception) -> Record:
    """The record of a photo that could not be labelled."""
    if isinstance(error, OSError):
        reason = refusal(error, path)
    else:
        text = str(error).removeprefix(f"{path}: ")
        reason = text if isinstance(error, PhotoError) else f"{type(error).__name__}: {text}"
    return {"photo": photo.path, "status": "failed", "error": reason}


def killed(job: BulkJob, photo: Photo) -> Record:
    """The record of a photo that ended its worker."""
    error = RuntimeError("the process died on this photo, perhaps for want of memory")
    return failed(photo, str(job.folder / photo.path), error)
