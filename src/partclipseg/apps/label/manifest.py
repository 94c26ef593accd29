"""``manifest.jsonl``: what has become of each photo, from which a run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from partclipseg.apps.label.job import BulkJob, Record
from partclipseg.apps.label.photos import Photo
from partclipseg.files import whole_file
from partclipseg.journal import json_text


class Manifest:
    """``manifest.jsonl``: appended to as batches are done, put into the photos' order at the end.

    It holds everything that is known of a photo; of several lines for one photo the last counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, str] = {}
        self._done: set[str] = set()
        if not path.is_file():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # the run was killed while it wrote this line
            with path.open("r+b") as file:
                file.truncate(len(whole))
        for line in whole.decode().split("\n")[:-1]:  # other line ends may stand in names
            self._take(line)

    def _take(self, line: str) -> None:
        record = json.loads(line)
        self._lines[record["photo"]] = line
        (self._done.add if record["status"] == "done" else self._done.discard)(record["photo"])

    def is_done(self, photo: Photo) -> bool:
        """Whether the photo is labelled."""
        return photo.path in self._done

    def append(self, records: Iterable[Record]) -> None:
        """Add the photos of a batch; they are on file when this returns."""
        lines = [json_text(record) for record in records]
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        for line in lines:
            self._take(line)

    def finish(self, photos: Iterable[Photo]) -> None:
        """Write the file anew: a line for each of `photos`, in their order."""
        self._lines = {photo.path: self._lines[photo.path] for photo in photos}
        with whole_file(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in self._lines.values())

    def __iter__(self) -> Iterator[Record]:
        return map(json.loads, self._lines.values())


def open_batches(job: BulkJob, photos: Sequence[Photo], manifest: Manifest) -> list[list[Photo]]:
    """The batches with a photo that is not done, or whose files are not all there. Failed photos are tried again."""
    batches = [list(photos[i : i + job.batch_size]) for i in range(0, len(photos), job.batch_size)]

    def is_done(photo: Photo) -> bool:
        return manifest.is_done(photo) and all(path.is_file() for path in job.own_files(photo).values())

    return [batch for batch in batches if not all(map(is_done, batch))]
