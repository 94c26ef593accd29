"""The files of one photo: their content, their author, and a journal of the files about to be written.

A file belongs to the run if the run recorded its digest before writing it. Every other file belongs to a person
and is replaced only by ``--overwrite``.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np

from partclipseg.apps.label.job import WRITTEN, BulkFormat, BulkJob, ManifestRecord
from partclipseg.apps.label.photos import LabelPhoto
from partclipseg.data.coco import paint
from partclipseg.errors import PartCLIPSegError
from partclipseg.files import flush, is_regular, whole_file
from partclipseg.formats.registry import data_set_formats
from partclipseg.inference.result import PartResult
from partclipseg.journal import Journal


def digest(content: bytes) -> str:
    """Compute the digest of some content: 32 hexadecimal digits."""
    return blake2b(content, digest_size=16).hexdigest()


def is_free(path: Path, known: Collection[str], overwrite: bool = False) -> bool:
    """Whether `path` may be written: nothing is there, or a file of a `known` digest, or `overwrite` is set.

    Raises `OSError` if something other than a file is there, or a file that cannot be read.
    """
    try:
        content = read_own(path)
    except FileNotFoundError:
        return True
    return overwrite or digest(content) in known


def read_own(path: Path) -> bytes:
    """Read one of a photo's own files.

    Raises `FileNotFoundError` if nothing is there, and another `OSError` for anything that is not a readable file.
    """
    is_regular(path)
    return path.read_bytes()


def draft(job: BulkJob, name: BulkFormat, photo: LabelPhoto, result: PartResult) -> bytes:
    """Return the content of the photo's own file in the format `name`."""
    return data_set_formats()[name].draft(result.labelled, job.place(name, photo))


def write_draft(path: Path, content: bytes) -> None:
    """Write a file whole; it survives a power cut once its folder is flushed too."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
        flush(temporary)


def done_record(photo: LabelPhoto, result: PartResult) -> ManifestRecord:
    """Return the manifest's record of a labelled photo, without its files."""
    return {"photo": photo.path, "status": "done"} | (result.labelled.record | {"photo": photo.path})


def label_map(record: ManifestRecord) -> np.ndarray:
    """Decode a done record as int32 `[H, W]`: class index, background -1. Raises `PartCLIPSegError` if damaged."""
    segments = record["segments"]
    try:
        return paint([s["index"] for s in segments], [s["rle"] for s in segments], (record["height"], record["width"]))
    except PartCLIPSegError:
        raise PartCLIPSegError(
            f"the masks of {record['photo']} in the manifest are damaged: delete its line, and the photo is labelled "
            "again"
        ) from None


def recorded_result(job: BulkJob, record: ManifestRecord) -> PartResult:
    """Return the result that a done record was made from; its drafts are identical to the byte."""
    scores = np.zeros(len(job.vocabulary), np.float32)
    for segment in record["segments"]:
        scores[segment["index"]] = segment["score"]
    return result_of_map(job, record["photo"], label_map(record), scores)


def result_of_map(job: BulkJob, name: str, labels: np.ndarray, scores: np.ndarray) -> PartResult:
    """Make a result from a label map int32 `[H, W]`, background -1, and a score for each class, float32 `[N_c]`."""
    vocabulary = job.vocabulary
    owners = np.full(len(vocabulary) + 1, -1, np.int32)  # label -1 reads the last entry
    owners[: len(vocabulary.object_parts)] = vocabulary.class_to_object
    return PartResult(labels, owners[labels], scores, vocabulary, None, name)


class Announcements:
    """Journal of digests, flushed to disk before the files: files of a killed run are then recognised.

    Each process has its own journal below the output folder; `clear` deletes them when the manifest is complete.
    """

    def __init__(self, output: Path) -> None:
        self._journal = Journal(output / WRITTEN / f"drafts-{secrets.token_hex(8)}.jsonl")

    def add(self, entries: Iterable[tuple[LabelPhoto, Mapping[BulkFormat, str]]]) -> None:
        """Record the digests of the files of each photo."""
        if lines := [{"photo": photo.path, "files": dict(files)} for photo, files in entries if files]:
            self._journal.path.parent.mkdir(parents=True, exist_ok=True)
            self._journal.append(lines)

    @staticmethod
    def read(output: Path) -> list[tuple[str, list[str]]]:
        """Return the recorded photos and their digests; damaged lines are skipped."""
        return [
            (entry["photo"], [value for value in entry["files"].values() if isinstance(value, str)])
            for path in (output / WRITTEN).glob("drafts-*.jsonl")
            for entry in Journal(path).scan("skip")
            if isinstance(entry.get("photo"), str) and isinstance(entry.get("files"), dict)
        ]

    @staticmethod
    def clear(output: Path) -> None:
        """Delete the journals of all processes."""
        for path in (output / WRITTEN).glob("drafts-*.jsonl"):
            path.unlink(missing_ok=True)
