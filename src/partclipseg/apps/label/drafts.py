"""The files of one photo: their content, who wrote them, and a journal of what is about to be written.

A file belongs to the run if its digest is one that the run wrote down before it wrote the file. Every other file
belongs to a person and is replaced only by ``--overwrite``.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

import numpy as np

from partclipseg.apps.label.job import WRITTEN, BulkFormat, BulkJob, Record
from partclipseg.apps.label.photos import Photo
from partclipseg.data.coco import paint
from partclipseg.errors import PartCLIPSegError
from partclipseg.files import flush, whole_file
from partclipseg.inference.result import PartResult
from partclipseg.journal import Journal, json_text


def digest(content: bytes) -> str:
    """Name some content: hexadecimal, 32 digits."""
    return blake2b(content, digest_size=16).hexdigest()


def is_free(path: Path, known: Collection[str], overwrite: bool = False) -> bool:
    """Whether a file may be written to `path`: nothing is there, or a file of a `known` digest, or `overwrite` is set.

    Raises `OSError` if something other than a file is there, or a file that cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return True
    return overwrite or digest(content) in known


def draft(job: BulkJob, name: BulkFormat, photo: Photo, result: PartResult) -> bytes:
    """The content of the photo's own file in the format `name`."""
    path = job.own_files(photo)[name]
    if name == "png":
        buffer = io.BytesIO()
        result.label_image().save(buffer, format="PNG")
        return buffer.getvalue()
    if name == "yolo":
        return result.to_yolo().encode()
    if name == "labelme":
        document = result.to_labelme(os.path.relpath(job.folder / photo.path, path.parent))
    else:
        # Label Studio serves files below its document root: the folder that the photos' folder lies in, since the
        # photos' folder itself is what has to be connected as a storage, and must not be the root.
        place = quote(os.fsencode(f"{job.folder.resolve().name}/{photo.path}"))
        document = result.to_label_studio(f"/data/local-files/?d={place}")
    return (json_text(document) + "\n").encode()


def write_draft(path: Path, content: bytes) -> None:
    """Write a file whole; it is safe from a power cut once its folder is flushed too."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
        flush(temporary)


def done_record(photo: Photo, result: PartResult) -> Record:
    """The manifest's line of a photo that is labelled, without its files."""
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
        for segment, annotation in zip(result.segments(), annotations, strict=False)  # objects without a part follow
    ]
    height, width = result.size
    return {"photo": photo.path, "status": "done", "width": width, "height": height, "segments": segments}


def label_map(record: Record) -> np.ndarray:
    """int32 `[H, W]` of a done record: class indices, background -1. Raises `PartCLIPSegError` for a damaged mask."""
    segments = record["segments"]
    try:
        return paint([s["index"] for s in segments], [s["rle"] for s in segments], (record["height"], record["width"]))
    except PartCLIPSegError:
        raise PartCLIPSegError(
            f"the masks of {record['photo']} in the manifest are damaged: delete its line, and the photo is labelled "
            "again"
        ) from None


def recorded_result(job: BulkJob, record: Record) -> PartResult:
    """The result that a done record was made of; its drafts are the same to the byte."""
    scores = np.zeros(len(job.vocabulary), np.float32)
    for segment in record["segments"]:
        scores[segment["index"]] = segment["score"]
    return result_of_map(job, record["photo"], label_map(record), scores)


def result_of_map(job: BulkJob, name: str, labels: np.ndarray, scores: np.ndarray) -> PartResult:
    """A result of a label map int32 `[H, W]`, background -1, and a score for each class, float32 `[N_c]`."""
    objects = np.array([*job.vocabulary.class_to_object, -1], np.int32)[labels]
    return PartResult(labels, objects, scores, job.vocabulary, None, name)


class Announcements:
    """A journal of digests, on the disk before the files are: so the files of a killed run are known to be its own.

    Each process has a file of its own below the output folder; `clear` deletes them when the manifest has it all.
    """

    def __init__(self, output: Path) -> None:
        self._journal = Journal(output / WRITTEN / f"drafts-{secrets.token_hex(8)}.jsonl")

    def add(self, entries: Iterable[tuple[Photo, Mapping[BulkFormat, str]]]) -> None:
        """Write down the digests of the files of each photo."""
        if lines := [{"photo": photo.path, "files": dict(files)} for photo, files in entries if files]:
            self._journal.path.parent.mkdir(parents=True, exist_ok=True)
            self._journal.append(lines)

    @staticmethod
    def read(output: Path) -> list[tuple[str, list[str]]]:
        """Photos and the digests that were written down for them; damaged lines are skipped."""
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
