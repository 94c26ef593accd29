"""Files for all photos, one in each format, written when every photo has its line in the manifest."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from partclipseg.apps.label.job import WRITTEN, BulkJob, ManifestRecord
from partclipseg.apps.label.people import Results, own_contents
from partclipseg.apps.label.photos import LabelPhoto
from partclipseg.files import flush, is_disk_full, is_regular, refusal, temporary_path
from partclipseg.formats.format import DataSet, encoded_text
from partclipseg.formats.registry import data_set_formats
from partclipseg.journal import Journal


class Collections:
    """Files for all photos, in the output folder. One that a person changed is kept, and the new one gets another name.

    Digests are written to disk before the files themselves, as for the photos' own files.
    """

    def __init__(self, output: Path, overwrite: bool) -> None:
        """Read the digests. Raises `PartCLIPSegError` if they are damaged. `overwrite` replaces files of people."""
        self.output = output
        self.overwrite = overwrite
        self.kept: list[tuple[str, str | None]] = []
        """Files that a person made or changed, each with the new file written for it, or None if nothing is new."""
        self.failed: list[tuple[str, str]] = []
        """Files that could not be written, each with the reason."""
        self._journal = Journal(
            output / WRITTEN / "collections.jsonl",
            "delete it; files for all photos whose content would change are then kept, as those of a person",
        )
        self._known: dict[str, list[str]] = {}
        for entry in self._journal.scan():
            self._known.setdefault(str(entry.get("file")), []).append(str(entry.get("digest")))

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Yield a temporary path to write the file `name` to, which is relative to the output folder."""
        path = self.output / name
        temporary = temporary_path(self.output / path.name)  # the file's own folder may be missing
        try:
            yield temporary
            self._place(name, temporary)
        except OSError as error:
            if is_disk_full(error):
                raise
            if error.filename == str(temporary):
                error.filename = str(path)
            self.failed.append((name, refusal(error, path)))
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def text(self, name: str, text: str) -> None:
        """Write UTF-8 text to the file `name`."""
        with self.write(name) as temporary:
            temporary.write_bytes(encoded_text(text))

    def pieces(self, name: str, texts: Iterable[str]) -> None:
        """Write pieces of UTF-8 text to the file `name`, one by one."""
        with self.write(name) as temporary, temporary.open("wb") as file:
            file.writelines(map(encoded_text, texts))

    def bytes(self, name: str, content: bytes) -> None:
        """Write the file `name`."""
        with self.write(name) as temporary:
            temporary.write_bytes(content)

    def remove_others(self, folder: str, names: Container[str]) -> None:
        """Remove the own files below a subfolder that are not among `names`, as left by an earlier run."""
        for name in [name for name in self._known if name.startswith(f"{folder}/") and name not in names]:
            with suppress(OSError):
                if _file_digest(self.output / name) in self._known[name]:
                    (self.output / name).unlink()

    def link(self, name: str, folder: Path) -> None:
        """Make a link to a folder; keep what a person put in its place. Do nothing where links are not allowed."""
        path = self.output / name
        try:
            path.symlink_to(folder.resolve(), target_is_directory=True)
        except FileExistsError:
            if os.path.realpath(path) != os.path.realpath(folder):  # answers for a circle of links too
                self.kept.append((name, None))
        except OSError:
            pass

    def finish(self) -> None:
        """Keep only the last digest of each file."""
        self._journal.rewrite({"file": name, "digest": digests[-1]} for name, digests in self._known.items())

    def _place(self, name: str, temporary: Path) -> None:
        written, present = _file_digest(temporary), None
        target = name
        for candidate in _candidates(name):
            target = candidate
            known = self._known.get(candidate, [])
            try:
                present = _file_digest(self.output / candidate)
            except (FileNotFoundError, NotADirectoryError):
                break
            if self.overwrite or present == written or present in known:
                break
            if known and written == known[-1]:  # the person changed a file with just this content
                self.kept.append((name, None))
                return
        if target != name:
            self.kept.append((name, target))
        if written not in self._known.get(target, [])[-1:]:
            self._known.setdefault(target, []).append(written)
            self._journal.path.parent.mkdir(parents=True, exist_ok=True)
            self._journal.append([{"file": target, "digest": written}])
        if present == written:  # a link that a person put in its place stays
            return
        flush(temporary)
        (self.output / target).parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(self.output / target)
        flush((self.output / target).parent)


def _candidates(name: str) -> Iterator[str]:
    """Yield ``a.json``, ``a.new.json``, ``a.new-2.json`` and so on."""
    path = Path(name)
    yield name
    yield path.with_name(f"{path.stem}.new{path.suffix}").as_posix()
    number = 2
    while True:
        yield path.with_name(f"{path.stem}.new-{number}{path.suffix}").as_posix()
        number += 1


def _file_digest(path: Path) -> str:
    is_regular(path)
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_collections(job: BulkJob, photos: list[LabelPhoto], results: Results, collections: Collections) -> None:
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
