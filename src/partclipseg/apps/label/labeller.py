"""Labelling one batch: photos in, files and records out."""

from __future__ import annotations

import errno
import logging
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from PIL import Image

from partclipseg.apps.label.job import BulkFormat, BulkJob, Record
from partclipseg.apps.label.photos import Photo
from partclipseg.data.photo import PhotoError
from partclipseg.files import whole_file, write_text
from partclipseg.inference.result import PartResult
from partclipseg.journal import json_text

if TYPE_CHECKING:
    from partclipseg.inference.segmenter import PartSegmenter

_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of the output folder that the next photo would meet as well."""


class Labeller:
    """Turns batches of photos into files and records."""

    def __init__(self, job: BulkJob, segmenter: PartSegmenter, threads: int = 1) -> None:
        """Files are written by so many `threads`."""
        self.job = job
        self.segmenter = segmenter
        self._threads = threads

    @classmethod
    def load(cls, job: BulkJob, device: str | None, threads: int) -> Labeller:
        """In a process of its own, with so many CPU threads, since others share the cores."""
        import torch

        from partclipseg.inference.segmenter import PartSegmenter

        torch.set_num_threads(threads)
        logging.disable(logging.WARNING)  # the process that started this one has said it already
        return cls(job, PartSegmenter.from_pretrained(job.model, device, job.dtype), threads)

    def __call__(self, batch: Sequence[Photo]) -> list[Record]:
        """Write the photos' own files; returns their records. Only a full or read-only disk raises, `OSError`."""
        paths = [self.job.folder / photo.path for photo in batch]
        try:
            results = self._segment(paths)
        except (RuntimeError, MemoryError):
            results = [self._segment_alone(path) for path in paths]  # to find out whose fault it is
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(self._finish, batch, results))

    def _segment(self, paths: Sequence[Path]) -> list[PartResult | Exception]:
        job = self.job
        options: dict[str, Any] = {"objects": job.objects or None, "zoom": job.zoom, "max_pixels": job.max_pixels}
        with warnings.catch_warnings():
            # Photos above the limit are reported by name; Pillow would warn about them a second time.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            stream = self.segmenter.segment_many(paths, job.vocabulary, batch_size=job.batch_size, **options)
            return [result for _, result in stream]

    def _segment_alone(self, path: Path) -> PartResult | Exception:
        try:
            return self._segment([path])[0]
        except (RuntimeError, MemoryError) as error:
            return error

    def _finish(self, photo: Photo, result: PartResult | Exception) -> Record:
        files = self.job.own_files(photo)
        if isinstance(result, PartResult):
            result = result.at_least(self.job.min_score)
            try:
                for name, path in files.items():
                    _write(self.job, name, path, photo, result)
                return _done(photo, result)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in _FATAL:
                    raise
                result = error
        for path in files.values():
            path.unlink(missing_ok=True)  # of an earlier run, when the photo could still be read
        return failed(photo, str(self.job.folder / photo.path), result)


def failed(photo: Photo, path: str, error: Exception) -> Record:
    """The record of a photo that could not be labelled."""
    text = str(error).removeprefix(f"{path}: ")
    reason = text if isinstance(error, PhotoError) else f"{type(error).__name__}: {text}"
    return {"photo": photo.path, "status": "failed", "error": reason}


def killed(job: BulkJob, photo: Photo) -> Record:
    """The record of a photo that ended its worker."""
    error = RuntimeError("the process died on this photo, perhaps for want of memory")
    return failed(photo, str(job.folder / photo.path), error)


def _write(job: BulkJob, name: BulkFormat, path: Path, photo: Photo, result: PartResult) -> None:
    if name == "png":
        with whole_file(path) as temporary:
            result.label_image().save(temporary)
    elif name == "yolo":
        write_text(path, result.to_yolo())
    elif name == "labelme":
        document = result.to_labelme(os.path.relpath(job.folder / photo.path, path.parent))
        write_text(path, json_text(document) + "\n")
    elif name == "label-studio":
        # Label Studio serves files below its document root: the folder that the photos' folder lies in, since the
        # photos' folder itself is what has to be connected as a storage, and must not be the root.
        place = quote(os.fsencode(f"{job.folder.resolve().name}/{photo.path}"))
        write_text(path, json_text(result.to_label_studio(f"/data/local-files/?d={place}")) + "\n")


def _done(photo: Photo, result: PartResult) -> Record:
    annotations = result.to_coco()["annotations"]
    segments = [
        {
            "name": segment.name,
            "object": segment.object,
            "part": segment.part,
            "index": segment.index,
            "score": annotation["score"],
            "area": segment.area,
            "box": list(segment.box),
            "rle": annotation["segmentation"],
        }
        for segment, annotation in zip(result.segments(), annotations, strict=True)
    ]
    height, width = result.size
    return {"photo": photo.path, "status": "done", "width": width, "height": height, "segments": segments}
