"""The files of one photo: their content, their author, and a journal of the files about to be written.

A file belongs to the run if the run recorded its digest before writing it. Every other file belongs to a person
and is replaced only by ``--overwrite``.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from partclipseg.apps.label.job import BulkFormat, BulkJob, ManifestRecord, OwnFile
from partclipseg.apps.label.photos import LabelPhoto
from partclipseg.files import flush, is_regular, whole_file
from partclipseg.formats.registry import data_set_formats
from partclipseg.inference.result import PartResult
from partclipseg.journal import Journal
from partclipseg.kept_files import WRITTEN


def read_own(path: Path) -> bytes:
    """Read one of a photo's own files.

    Raises `FileNotFoundError` if nothing is there, and another `OSError` for anything that is not a readable file.
    """
    is_regular(path)
    return path.read_bytes()


def draft(job: BulkJob, name: BulkFormat, photo: LabelPhoto, result: PartResult) -> bytes:
    """Return the content of the photo's own file in the format `name`."""
    return data_set_formats()[name].draft(result.labelled, job.place(name, photo))


def class_drafts(job: BulkJob, result: PartResult) -> dict[OwnFile, bytes]:
    """Return the content of each file in the photo's own folders.

    Raises `PartCLIPSegError` for a result that was made from a record, which holds no probabilities.
    """
    return {
        f"{name}/{file}": content
        for name in job.class_files
        for file, content in data_set_formats()[name].class_drafts(result.labelled)
    }


def class_files_there(job: BulkJob, photo: LabelPhoto) -> dict[OwnFile, Path]:
    """Return the files of classes that lie in the photo's own folders, also of classes that it no longer has."""
    there = {path for folder in job.own_folders(photo).values() for path in folder.glob("*")}
    if not there:
        return {}
    return {key: path for key, path in job.class_paths(photo, range(len(job.vocabulary))).items() if path in there}


def record_files(job: BulkJob, photo: LabelPhoto, record: ManifestRecord) -> dict[OwnFile, Path]:
    """Return the paths of all files that the photo of a done record has."""
    classes = (segment["index"] for segment in record["segments"])
    return {**job.own_files(photo), **job.class_paths(photo, classes)}


def write_draft(path: Path, content: bytes) -> None:
    """Write a file whole; it survives a power cut once its folder is flushed too."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
        flush(temporary)


def done_record(photo: LabelPhoto, result: PartResult) -> ManifestRecord:
    """Return the manifest's record of a labelled photo, without its files."""
    return {"photo": photo.path, "status": "done"} | (result.labelled.record | {"photo": photo.path})


class Announcements:
    """Journal of digests, flushed to disk before the files: files of a killed run are then recognised.

    Each process has its own journal below the output folder; `clear` deletes them when the manifest is complete.
    """

    def __init__(self, output: Path) -> None:
        self._journal = Journal(output / WRITTEN / f"drafts-{secrets.token_hex(8)}.jsonl")

    def add(self, entries: Iterable[tuple[LabelPhoto, Mapping[OwnFile, str]]]) -> None:
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
