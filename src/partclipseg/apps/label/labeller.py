"""Labelling one batch: photos in, files and records out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from partclipseg.apps.instance_options import LoadedInstances
from partclipseg.apps.label.drafts import (
    Announcements,
    class_drafts,
    class_files_there,
    done_record,
    draft,
    record_files,
    write_draft,
)
from partclipseg.apps.label.job import BulkJob, ManifestRecord, OwnFile
from partclipseg.apps.label.photos import LabelPhoto
from partclipseg.data import pixels
from partclipseg.data.pixels import printable_name
from partclipseg.errors import reason_of
from partclipseg.files import flush, is_disk_full, refusal
from partclipseg.inference.result import PartResult
from partclipseg.kept_files import digest, is_free

if TYPE_CHECKING:
    from partclipseg.inference.segmenter import PartSegmenter

WRITERS = 8
"""Number of threads that write the files of a batch: each waits for the disk, and the disk serves them together."""


class Remarks(logging.Filter):
    """Logging filter that collects the photo reader's warnings by photo and keeps them out of the log."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, str] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the message by the photo's name, which is its first argument."""
        if isinstance(record.args, tuple) and record.args:
            name = str(record.args[0])
            self._said[name] = record.getMessage().removeprefix(f"{name}: ")
        return False

    def take(self, path: Path) -> str | None:
        """Return and forget the warning about a photo."""
        return self._said.pop(printable_name(str(path)), None)


@contextmanager
def remarks() -> Iterator[Remarks]:
    """Collect the photo reader's warnings until the block ends."""
    logger, collected = logging.getLogger(pixels.__name__), Remarks()
    logger.addFilter(collected)
    try:
        yield collected
    finally:
        logger.removeFilter(collected)


class _Drafts(NamedTuple):
    """Files of one photo before they are written."""

    photo: LabelPhoto
    record: ManifestRecord
    contents: Mapping[OwnFile, bytes]


class Labeller:
    """Labels batches of photos and writes their files."""

    def __init__(
        self, job: BulkJob, segmenter: PartSegmenter, instances: LoadedInstances, threads: int = 1
    ) -> None:
        """Use `threads` threads to make files; `instances` is what `job.find` names, loaded."""
        self.job = job
        self.segmenter = segmenter
        self._instances = instances
        self._threads = threads
        self._announcements = Announcements(job.output)

    @classmethod
    def load(cls, job: BulkJob, device: str | None, threads: int) -> Labeller:
        """Load the model in a worker process with `threads` CPU threads, since the workers share the cores."""
        import torch

        from partclipseg.inference.segmenter import PartSegmenter

        torch.set_num_threads(threads)
        # The main process has already printed the warnings. Without a handler Python would print them again.
        logging.getLogger("partclipseg").propagate = False
        for name in ("partclipseg", None):
            logging.getLogger(name).addHandler(logging.NullHandler())
        instances = job.find.load(device)
        segmenter = PartSegmenter.from_pretrained(job.model, device, job.dtype, prompting=job.prompting)
        return cls(job, segmenter, instances, threads)

    def __call__(self, batch: Sequence[LabelPhoto]) -> list[ManifestRecord]:
        """Label a batch, write the photos' own files, and return the records, all flushed to disk.

        Files that belong to a person are left as they are. Raises `OSError` only for errors that would also affect the
        next photo: a full or read-only disk, or a journal that cannot be written.
        """
        paths = [self.job.folder / photo.path for photo in batch]
        with remarks() as said:
            try:
                results = self._segment(paths)
            except Exception:
                results = [self._segment_alone(path) for path in paths]  # to find the photo that causes the error
        warned = [said.take(path) for path in paths]
        with ThreadPoolExecutor(self._threads) as pool:
            drafts = list(pool.map(self._draft, batch, results, warned))
            self._announcements.add(
                (photo, {name: digest(content) for name, content in contents.items()}) for photo, _, contents in drafts
            )
        with ThreadPoolExecutor(WRITERS) as writers:
            records = list(writers.map(self._write, drafts))
        places = {path.parent for photo in batch for path in self.job.own_files(photo).values()}
        for folder in places.union(*(self.job.own_folders(photo).values() for photo in batch)):
            with suppress(FileNotFoundError, NotADirectoryError):  # where no photo could be written
                flush(folder)
        return records

    def _segment(self, paths: Sequence[Path]) -> list[PartResult | Exception]:
        options = self.job.segment_options(self._instances)
        with warnings.catch_warnings():
            # Photos above the limit are reported by name; Pillow would warn about them a second time.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            stream = self.segmenter.segment_many(paths, self.job.vocabulary, **options)
            return [result for _, result in stream]

    def _segment_alone(self, path: Path) -> PartResult | Exception:
        try:
            return self._segment([path])[0]
        except Exception as error:
            return error

    def _draft(self, photo: LabelPhoto, result: PartResult | Exception, warning: str | None) -> _Drafts:
        if isinstance(result, PartResult):
            try:
                result = result.at_least(self.job.min_score)
                contents: dict[OwnFile, bytes] = {}
                for name in self.job.own_files(photo):
                    contents[name] = draft(self.job, name, photo, result)
                contents |= class_drafts(self.job, result)
                record = done_record(photo, result) | {"content": digest((self.job.folder / photo.path).read_bytes())}
                return _Drafts(photo, record | {"warning": warning} if warning else record, contents)
            except Exception as error:
                result = error
        return _Drafts(photo, failed(photo, str(self.job.folder / photo.path), result), {})

    def _write(self, drafts: _Drafts) -> ManifestRecord:
        """Write the files that do not belong to a person; the record holds their digests."""
        photo, record, contents = drafts
        digests = {name: digest(content) for name, content in contents.items()}
        known = {*photo.known, *digests.values()}
        made: Mapping[OwnFile, Path] = {}
        if record["status"] == "done":
            made = record_files(self.job, photo, record)
            try:
                free = [name for name in contents if is_free(made[name], known, self.job.overwrite)]
                for name in free:
                    write_draft(made[name], contents[name])
                record = record | {"files": {name: digests[name] for name in free}}
            except OSError as error:
                if is_disk_full(error):
                    raise
                record, made = failed(photo, str(self.job.folder / photo.path), error), {}
        # Left by an earlier run that could read the photo, or found other parts in it.
        for name, path in {**self.job.own_files(photo), **class_files_there(self.job, photo)}.items():
            with suppress(OSError):
                if name not in made and is_free(path, known):
                    path.unlink(missing_ok=True)
        return record


def failed(photo: LabelPhoto, path: str, error: Exception) -> ManifestRecord:
    """Return the record of a photo that could not be labelled."""
    reason = refusal(error, path) if isinstance(error, OSError) else reason_of(error).removeprefix(f"{path}: ")
    return {"photo": photo.path, "status": "failed", "error": reason}


def killed(job: BulkJob, photo: LabelPhoto) -> ManifestRecord:
    """Return the record of a photo that ended its worker process."""
    error = RuntimeError("the process died on this photo, perhaps for want of memory")
    return failed(photo, str(job.folder / photo.path), error)
