"""Files that ``partclipseg predict`` writes: those of each photo, those about all photos, and what is said of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from partclipseg.apps.terminal import plain_console
from partclipseg.apps.written import FOLDER, KeptError, OwnFiles, kept_sentence
from partclipseg.counts import count_of
from partclipseg.errors import PartCLIPSegError, reason_of
from partclipseg.files import LONGEST_NAME, is_disk_full, refusal
from partclipseg.formats.format import DataSet, Format, Record, encoded_text
from partclipseg.formats.registry import single_formats
from partclipseg.inference.result import PartResult
from partclipseg.journal import Journal
from partclipseg.vocabulary import Vocabulary


@dataclass
class Failures:
    """Records what could not be done, and reports it at the end."""

    failed: list[str] = field(default_factory=list)
    """Reasons for the photos that have no results."""
    kept: list[str] = field(default_factory=list)
    """Files of somebody else that are in the place of results."""
    unwritten: list[str] = field(default_factory=list)
    """Reasons for the files about all photos that could not be written."""
    unread: str | None = None

    def write(self, files: OwnFiles, name: str, content: bytes) -> None:
        """Write a file, or note that a file of somebody else is in its place."""
        try:
            files.write(name, content)
        except KeptError as error:
            self.kept.append(str(error))

    def write_shared(self, files: OwnFiles, name: str, content: bytes) -> None:
        """Write a file about all photos, or note why the system refuses it. Raises `OSError` for a full disk."""
        try:
            self.write(files, name, content)
        except OSError as error:
            if is_disk_full(error):
                raise
            self.unwritten.append(refusal(error, files.folder / name))

    def tell(self, count: int) -> None:
        """Report the failures among `count` photos on standard error."""
        errors = plain_console(stderr=True)
        if self.failed:
            errors.print(f"{len(self.failed):,} of {count_of(count, 'photo')} could not be segmented:")
            for message in self.failed:
                errors.print(f"  {message}")
        if self.unwritten:
            errors.print("files about all photos that could not be written:")
            for message in self.unwritten:
                errors.print(f"  {message}")
        if self.kept:
            errors.print(kept_sentence(self.kept))
        if self.unread:
            errors.print(self.unread)


class Collection:
    """Records of the photos, spooled to disk, for the files about all photos. Thread-safe."""

    def __init__(self, path: Path, wanted: bool) -> None:
        path.unlink(missing_ok=True)  # left by a killed run
        self.vocabulary: Vocabulary | None = None
        """Vocabulary of the photos; None before the first one."""
        self._wanted = wanted
        self._journal = Journal(path)
        self._lock = Lock()

    def add(self, number: int, result: PartResult) -> None:
        """Keep the record of a photo, under its index among all photos."""
        if self._wanted:
            record = result.labelled.record
            with self._lock:
                self._journal.append([{"number": number, "record": record}])
        self.vocabulary = result.vocabulary

    def records(self) -> list[tuple[int, Record]]:
        """Return the records with the indices of their photos."""
        entries = self._journal.read(damaged="skip")
        return sorted(((entry["number"], entry["record"]) for entry in entries), key=lambda entry: entry[0])


@contextmanager
def collected(
    files: OwnFiles, formats: Mapping[str, Format], stems: Mapping[str, str], failures: Failures
) -> Iterator[Collection]:
    """Collect records; write the files about all photos when the block ends, also after an error.

    `stems` maps the path of each photo to the name of its results.
    """
    path = files.folder / FOLDER / "annotations.jsonl"
    kinds = list(formats.values())
    collection = Collection(path, any(kind.is_collected for kind in kinds))

    def write() -> None:
        if collection.vocabulary is not None:
            data_set = DataSet(
                collection.vocabulary, Path(), collection.records(), stems.__getitem__, lambda *_: iter(())
            )
            for kind in kinds:
                for name, text in kind.shared(data_set.vocabulary) if kind.shared else ():
                    failures.write_shared(files, name, text.encode())
                for name, content in kind.collect(data_set) if kind.collect and kind.is_collected else ():
                    if not isinstance(content, Path):  # not a link to the photos: they may be in several folders
                        encoded = content if isinstance(content, bytes) else encoded_text("".join(content))
                        failures.write_shared(files, name, encoded)
        path.unlink(missing_ok=True)

    try:
        yield collection
    except BaseException:
        with suppress(OSError):  # a full disk was reported already
            write()
        raise
    write()


class PhotoFiles:
    """Writes the files of each photo, and keeps what the files about all photos need. Thread-safe."""

    def __init__(
        self,
        files: OwnFiles,
        formats: Mapping[str, Format],
        failures: Failures,
        collection: Collection,
        min_score: float,
    ) -> None:
        """Make the writer; parts below `min_score` become background."""
        self._files, self._formats, self._failures = files, formats, failures
        self._collection, self._min_score = collection, min_score

    def finish(self, number: int, result: Any, stem: str) -> Any:
        """Write the files of the photo of this number; return its result, or a sentence why there is none.

        A `result` other than a `PartResult` is the reason. Raises `PartCLIPSegError` if the disk is full: the next
        photo would fail likewise.
        """
        if not isinstance(result, PartResult):
            return str(result)
        try:
            result = result.at_least(self._min_score)
            self._write(result, stem)
            self._collection.add(number, result)
        except OSError as error:
            reason = refusal(error, self._files.folder)
            if is_disk_full(error):
                raise PartCLIPSegError(reason) from error
            return f"{result.name}: {reason}"
        except Exception as error:  # report the failure, go on with the others
            return f"{result.name}: {reason_of(error)}"
        return result

    def _write(self, result: PartResult, stem: str) -> None:
        """Write what can be written; raise the first error of a file or of a format that cannot show the photo.

        That of a full disk is raised at once.
        """
        refused: Exception | None = None
        for name, kind in self._formats.items():
            if kind.is_collected:
                continue
            try:
                made = result.files([name], stem, (self._files.folder / stem).parent)
            except PartCLIPSegError as error:  # such as more instances than it can number
                refused = refused or error
                continue
            for file, content in made.items():
                try:
                    self._failures.write(self._files, file, content)
                except OSError as error:
                    if is_disk_full(error):
                        raise
                    refused = refused or error  # one file in the way is no reason to leave others out
            if kind.make_many is not None:
                self._files.remove_others(f"{stem}{kind.suffix}", made)
        if refused is not None:
            raise refused


def output_stems(photos: Sequence[Path]) -> list[str]:
    """Return a unique name for the results of each photo: its stem if the stems are unique.

    Otherwise the photos' folders are mirrored below the output folder, and photos whose names are still equal
    (``a.jpg`` and ``a.png``) keep their suffixes. Capitals do not count, since some file systems ignore them. A name
    too long for its results is shortened and gets a digest of the whole.
    """
    stems = [_without_suffix(photo).name for photo in photos]
    if not _all_differ(stems):
        absolute = [os.path.abspath(photo) for photo in photos]  # noqa: PTH100  (resolve would follow links)
        root = os.path.commonpath([os.path.dirname(path) for path in absolute])  # noqa: PTH120
        relative = [Path(path).relative_to(root) for path in absolute]
        stems = [str(_without_suffix(path)) for path in relative]
        if not _all_differ(stems):
            stems = [str(path) for path in relative]
    return [str(Path(stem).with_name(_short_name(Path(stem).name))) for stem in stems]


def _without_suffix(path: Path) -> Path:
    """Return the path without its suffix, unless nothing but dots would be left, as of ``..jpg``."""
    return path.with_name(path.stem) if path.stem.strip(".") else path


def _short_name(name: str) -> str:
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST_NAME - max(len(kind.suffix) for kind in single_formats().values()):
        return name
    return f"{encoded[:60].decode(errors='ignore')}-{hashlib.sha256(encoded).hexdigest()[:12]}"


def _all_differ(names: Sequence[str]) -> bool:
    return len({name.casefold() for name in names}) == len(names)
