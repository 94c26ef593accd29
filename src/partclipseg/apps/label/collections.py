"""Files for all photos, one in each format, written when every photo has its line in the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from partclipseg.apps.label.job import BulkJob, ManifestRecord
from partclipseg.apps.label.people import Results, own_contents
from partclipseg.apps.label.photos import LabelPhoto
from partclipseg.formats.format import DataSet
from partclipseg.formats.registry import data_set_formats
from partclipseg.kept_files import KeptFiles


def write_collections(job: BulkJob, photos: list[LabelPhoto], results: Results, collections: KeptFiles) -> None:
    """Write the files of all formats; the same results give the same bytes."""
    with collections.write("vocabulary.json") as temporary:
        job.vocabulary.save(temporary)
    data_set = _data_set(job, photos, results)
    for name, kind in data_set_formats().items():
        if name not in job.formats:
            continue
        for file, text in kind.shared(job.vocabulary) if kind.shared else ():
            collections.text(file, text)
        written: set[str] = set()
        for file, content in kind.collect(data_set) if kind.collect else ():
            written.add(file)
            if isinstance(content, Path):
                collections.link(file, content)
            elif isinstance(content, bytes):
                collections.bytes(file, content)
            else:
                collections.pieces(file, content)
        if kind.make_many is not None:
            collections.remove_others(name, written)


class _Done:
    """Labelled photos, numbered by their lines in the manifest: failed photos leave gaps."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def __iter__(self) -> Iterator[tuple[int, ManifestRecord]]:
        for number, record in enumerate(self._results, start=1):
            if record.pop("status") == "done":
                yield number, record


def _data_set(job: BulkJob, photos: list[LabelPhoto], results: Results) -> DataSet:
    by_path = {photo.path: photo for photo in photos}
    return DataSet(
        vocabulary=job.vocabulary,
        photos=job.folder,
        records=_Done(results),
        stem=lambda path: by_path[path].stem,
        own=lambda name, record: own_contents(job, by_path[record["photo"]], name, record, results),
    )
