"""Find people's corrections of the drafts, read them back, and use them in the results of the run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from partclipseg.apps.label.corrections import CorrectionError, correctable, read_correction
from partclipseg.apps.label.drafts import (
    Announcements,
    class_files_there,
    done_record,
    draft,
    read_own,
    record_files,
    write_draft,
)
from partclipseg.apps.label.job import BulkFormat, BulkJob, ManifestRecord, OwnFile
from partclipseg.apps.label.manifest import Manifest
from partclipseg.apps.label.photos import LabelPhoto
from partclipseg.apps.label.recorded import corrected_result, recorded_result
from partclipseg.files import flush, is_disk_full, refusal
from partclipseg.inference.result import PartResult
from partclipseg.journal import json_text
from partclipseg.kept_files import digest

_AT_ONCE = 64
"""Number of photos whose files are checked and rewritten between two writes to the manifest."""


@dataclass
class Results:
    """Records of all photos, with people's corrections in place of the drafts."""

    manifest: Manifest
    kept_files: dict[str, None] = field(default_factory=dict)
    """Files of photos that a person made or changed, relative to the output folder, in order."""
    taken: dict[str, str] = field(default_factory=dict)
    """Corrected record of each photo, as JSON."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Files of people that cannot be read back, and the reason; the draft's own result then counts."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Files that could not be rewritten, and the reason."""

    def __iter__(self) -> Iterator[ManifestRecord]:
        """Yield records in the manifest's order; ``corrected`` names the format of a corrected one."""
        for record in self.manifest:
            for key in ("files", "corrected", "content"):
                record.pop(key, None)
            corrected = self.taken.get(record["photo"])
            yield json.loads(corrected) if corrected else record

    def is_done(self, photo: LabelPhoto) -> bool:
        """Whether the photo is labelled."""
        return self.manifest.is_done(photo)


@dataclass
class _Look:
    """State of the files of one photo."""

    photo: LabelPhoto
    files: dict[OwnFile, Path]
    """Path of each file: those that are read back first, in the order of `correctable`."""
    changed: list[OwnFile] = field(default_factory=list)
    """Files that a person changed, in the order of `files`."""
    found: dict[OwnFile, str] = field(default_factory=dict)
    """Digests of the run's own files."""
    winner: BulkFormat | None = None
    result: PartResult | None = None
    """Result from the correction that counts, or from the record if a file has to be rewritten."""
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def take_in(job: BulkJob, photos: Iterable[LabelPhoto], manifest: Manifest, threads: int) -> Results:
    """Find the files that belong to people, and rewrite the photo's other files to match them.

    The manifest keeps the model's own result, so that deleting a correction restores it. Raises `OSError` only for a
    full disk.
    """
    results = Results(manifest)
    announcements = Announcements(job.output)
    photos = list(photos)
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(photos), _AT_ONCE):
            looks = list(pool.map(lambda photo: _look(job, photo, manifest), photos[start : start + _AT_ONCE]))
            for look in looks:
                _note(job, look, results)
            _renew(job, looks, results, announcements)
    return results


def _look(job: BulkJob, photo: LabelPhoto, manifest: Manifest) -> _Look:
    own = job.own_files(photo)
    readable = [name for name in correctable() if name in own]
    files = {**{name: own[name] for name in readable}, **own, **class_files_there(job, photo)}
    look = _Look(photo, files)
    record = manifest.record(photo)
    done = record["status"] == "done"
    drafts: PartResult | None = None
    for name, path in files.items():
        try:
            content = read_own(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            look.unreadable.append((path, refusal(error, path)))
            continue
        found = digest(content)
        if found in manifest.known(photo):
            look.found[name] = found
            continue
        if done and name in own and name not in manifest.files(photo):  # a file of an older release, or of a person
            drafts = drafts if drafts is not None else recorded_result(job, record)
            if content == draft(job, name, photo, drafts):
                look.found[name] = found
                continue
        look.changed.append(name)
    if not done:
        return look
    for name in readable:
        if name not in look.changed:
            continue
        try:
            labels = read_correction(name, files[name], job.vocabulary, (record["height"], record["width"]))
        except CorrectionError as error:
            look.unreadable.append((files[name], str(error)))
        except OSError as error:
            look.unreadable.append((files[name], refusal(error, files[name])))
        else:
            look.winner = name
            look.result = corrected_result(job, record, labels)
            break
    is_whole = all(name in look.found or name in look.changed for name in own)
    if look.result is None and (not is_whole or "corrected" in record):
        look.result = drafts if drafts is not None else recorded_result(job, record)
    return look


def _note(job: BulkJob, look: _Look, results: Results) -> None:
    results.kept_files.update((look.files[name].relative_to(job.output).as_posix(), None) for name in look.changed)
    results.unreadable += [(path.relative_to(job.output).as_posix(), why) for path, why in look.unreadable]
    if look.winner and look.result is not None:
        record = done_record(look.photo, look.result) | {"corrected": look.winner}
        results.taken[look.photo.path] = json_text(record)


def _renew(job: BulkJob, looks: list[_Look], results: Results, announcements: Announcements) -> None:
    """Rewrite the files that do not match the current result of their photo; files of people stay."""
    todo: list[tuple[_Look, dict[BulkFormat, bytes]]] = []
    for look in looks:
        if look.result is None:
            continue
        files = job.own_files(look.photo)
        unreadable = {path for path, _ in look.unreadable}
        drafts: dict[BulkFormat, bytes] = {}
        for name, path in files.items():
            if name not in look.changed and path not in unreadable:
                drafts[name] = draft(job, name, look.photo, look.result)
        todo.append((look, drafts))
    announcements.add((look.photo, {n: digest(content) for n, content in drafts.items()}) for look, drafts in todo)
    records = []
    folders: set[Path] = set()
    for look, drafts in todo:
        files = job.own_files(look.photo)
        written = dict(look.found)
        for name, content in drafts.items():
            if look.found.get(name) == digest(content):
                continue
            try:
                write_draft(files[name], content)
            except OSError as error:
                if is_disk_full(error):
                    raise
                results.failed.append((files[name].relative_to(job.output).as_posix(), refusal(error, files[name])))
                continue
            written[name] = digest(content)
            folders.add(files[name].parent)
        old = results.manifest.record(look.photo)
        new = {key: value for key, value in old.items() if key not in {"files", "corrected"}}
        new["files"] = {name: written[name] for name in record_files(job, look.photo, old) if name in written}
        if look.winner:
            new["corrected"] = look.winner
        if new != old:
            records.append(new)
    for folder in folders:
        with suppress(FileNotFoundError):
            flush(folder)
    if records:
        results.manifest.append(records)


def own_contents(
    job: BulkJob, photo: LabelPhoto, name: BulkFormat, record: ManifestRecord, results: Results
) -> Iterator[bytes]:
    """Yield candidate contents of a done photo's own file: from the current result, then from the record."""
    path = job.own_files(photo)[name]
    if record.get("corrected") == name or path.relative_to(job.output).as_posix() not in results.kept_files:
        try:
            content = read_own(path)
        except OSError:
            pass
        else:
            yield content
    yield draft(job, name, photo, recorded_result(job, record))
