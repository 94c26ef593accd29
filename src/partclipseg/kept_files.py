"""Files of a command that is given again: it replaces its own files and keeps those that a person made or changed.

A file is the command's own if its digest was recorded before it was written. Every other file belongs to a person and
is replaced only where `overwrite` asks for it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Literal

from partclipseg.errors import PartCLIPSegError
from partclipseg.files import flush, is_disk_full, is_regular, refusal, sha256, temporary_path, whole_directory
from partclipseg.journal import Journal

WRITTEN = ".written"
"""Subfolder of the output folder with the digests of `KeptFiles`."""


def digest(content: bytes) -> str:
    """Compute the digest of some content: 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Compute the `digest` of a file's content.

    Raises `FileNotFoundError` if nothing is there, and another `OSError` for anything that is not a readable file.
    """
    is_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()


def is_free(path: Path, known: Collection[str], overwrite: bool = False) -> bool:
    """Whether `path` may be written: nothing is there, or a file of a `known` digest, or `overwrite` is set.

    Raises `OSError` if something other than a file is there, or a file that cannot be read.
    """
    try:
        found = file_digest(path)
    except FileNotFoundError:
        return True
    return overwrite or found in known


class WrittenFiles:
    """Record of the files that one command wrote to a folder: the digests of each one's contents. Thread-safe.

    A digest is recorded before its file is written, so that a file of a killed run is recognised.
    """

    def __init__(self, folder: Path, journal: Journal, damaged: Literal["refuse", "skip"] = "refuse") -> None:
        """Read the record; `damaged` and errors as for `Journal.scan`."""
        self.folder = folder
        self._journal = journal
        self._digests: dict[str, list[str]] = {}
        self._lock = Lock()
        for entry in journal.scan(damaged):
            found = entry.get("digest", entry.get("sha256"))  # the latter in records of earlier releases of `predict`
            self._digests.setdefault(str(entry.get("file")), []).append(str(found))

    def digests(self, name: str) -> list[str]:
        """Return the digests of the file `name`, which is relative to the folder, the last one last."""
        return self._digests.get(name, [])

    def names(self) -> list[str]:
        """Return the names of all files, in the order in which they were first written."""
        return list(self._digests)

    def is_own(self, path: Path) -> bool:
        """Whether a file's content is what the command wrote there."""
        try:
            known = self.digests(path.absolute().relative_to(self.folder.absolute()).as_posix())
            return bool(known) and (file_digest(path) in known or sha256(path) in known)
        except (ValueError, OSError):  # outside the folder, no file, or unreadable
            return False

    def add(self, name: str, written: str) -> None:
        """Record the digest of content that is about to be written to the file `name`.

        Raises `OSError` if the record cannot be written; the digest is then not known, so that another call records it.
        """
        with self._lock:
            if written not in self.digests(name)[-1:]:
                self._journal.path.parent.mkdir(parents=True, exist_ok=True)
                self._journal.append([{"file": name, "digest": written}])
                self._digests.setdefault(name, []).append(written)

    def keep_last(self) -> None:
        """Keep only the last digest of each file."""
        if self._digests:
            self._journal.rewrite({"file": name, "digest": found[-1]} for name, found in self._digests.items())


class KeptFiles:
    """Files of one command in its output folder.

    A file that a person changed is kept, and the new one gets another name.
    """

    def __init__(self, folder: Path, command: str, overwrite: bool = False, beside: bool = True) -> None:
        """Read the digests.

        Args:
            folder: the output folder.
            command: name of the record of digests.
            overwrite: replace files of people.
            beside: write the new content beside a file of a person; if not, it is not written at all.

        Raises `PartCLIPSegError` if the record is damaged or cannot be read.
        """
        self.folder = folder
        self.overwrite = overwrite
        self.kept: list[tuple[str, str | None]] = []
        """Files that a person made or changed, each with the new file written for it, or None if nothing is new."""
        self.failed: list[tuple[str, str]] = []
        """Files that could not be written, each with the reason."""
        self._beside = beside
        journal = Journal(
            folder / WRITTEN / f"{command}.jsonl",
            "delete it; files whose content would change are then kept, as those of a person",
        )
        try:
            self._written = WrittenFiles(folder, journal)
        except OSError as error:
            raise PartCLIPSegError(refusal(error, journal.path)) from error

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Yield a temporary path to write the file `name` to, which is relative to the output folder."""
        path = self.folder / name
        temporary = temporary_path(self.folder / path.name)  # the file's own folder may be missing
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
        """Write UTF-8 text to the file `name`; file names that are not valid Unicode are escaped."""
        self.pieces(name, [text])

    def pieces(self, name: str, texts: Iterable[str]) -> None:
        """Write pieces of UTF-8 text to the file `name`, one by one."""
        with self.write(name) as temporary, temporary.open("wb") as file:
            file.writelines(text.encode("utf-8", "backslashreplace") for text in texts)

    def bytes(self, name: str, content: bytes) -> None:
        """Write the file `name`."""
        with self.write(name) as temporary:
            temporary.write_bytes(content)

    @contextmanager
    def directory(self, name: str) -> Iterator[Path]:
        """Yield a temporary folder; it takes the place of the folder `name` when the block ends without an error.

        A folder that a person changed is kept: where it is, if its new content is what was written last, else under
        another name. One that lacks files, and is otherwise as it will be, is made whole. The folder `name` exists at
        every moment.
        """
        path = self.folder / name
        with suppress(_NothingNewError), whole_directory(path, durable=True) as unfinished:
            yield unfinished
            written, known = _folder_digest(unfinished), self._written.digests(f"{name}/")
            present = _folder_digest(path) if path.is_dir() else None
            if (
                present is not None
                and present not in (written, *known)
                and not self.overwrite
                and not _has_lost_files_only(path, unfinished)
            ):
                if written in known[-1:]:
                    self.kept.append((name, None))
                    raise _NothingNewError
                aside = next(place for place in _names(name, "kept") if not os.path.lexists(self.folder / place))
                shutil.copytree(path, self.folder / aside, symlinks=True, copy_function=_link_or_copy)
                self.kept.append((aside, name))
            self._written.add(f"{name}/", written)

    def remove_others(self, folder: str, names: Container[str]) -> None:
        """Remove the own files below a subfolder that are not among `names`, as left by an earlier run."""
        for name in self._written.names():
            path = self.folder / name
            if name.startswith(f"{folder}/") and name not in names and self._written.is_own(path):
                with suppress(OSError):
                    path.unlink()

    def link(self, name: str, folder: Path) -> None:
        """Make a link to a folder; keep what a person put in its place. Do nothing where links are not allowed."""
        path = self.folder / name
        try:
            path.symlink_to(folder.resolve(), target_is_directory=True)
        except FileExistsError:
            if os.path.realpath(path) != os.path.realpath(folder):  # answers for a circle of links too
                self.kept.append((name, None))
        except OSError:
            pass

    def finish(self) -> None:
        """Keep only the last digest of each file."""
        self._written.keep_last()

    def raise_failed(self) -> None:
        """Raise `PartCLIPSegError` if a file could not be written."""
        if self.failed:
            raise PartCLIPSegError(self.failed[0][1])

    def remarks(self) -> list[str]:
        """Return a sentence for each file of a person: that it is kept, and what was written in its stead."""
        return [
            f"{file} was changed by a person and is kept{f'; the new one is {beside}' if beside else ''}"
            for file, beside in self.kept
        ]

    def path_of(self, name: str) -> Path:
        """Return where the new content of the file `name` was written: beside it, if that of a person is kept."""
        return self.folder / (dict(self.kept).get(name) or name)

    def _place(self, name: str, temporary: Path) -> None:
        written, present = file_digest(temporary), None
        target = name
        for candidate in _names(name, "new", first=True):
            target = candidate
            known = self._written.digests(candidate)
            try:
                present = file_digest(self.folder / candidate)
            except (FileNotFoundError, NotADirectoryError):
                break
            if self.overwrite or present == written or present in known:
                break
            if not self._beside or (known and written == known[-1]):  # the person changed a file with this content
                self.kept.append((name, None))
                return
        if target != name:
            self.kept.append((name, target))
        self._written.add(target, written)
        if present == written:  # a link that a person put in its place stays
            return
        flush(temporary)
        (self.folder / target).parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(self.folder / target)
        flush((self.folder / target).parent)


class _NothingNewError(Exception):
    """Raised to discard a new folder."""


def _names(name: str, word: str, first: bool = False) -> Iterator[str]:
    """Yield ``a.new.json``, ``a.new-2.json`` and so on if the word is *new*; with `first` the name itself first."""
    path = Path(name)
    if first:
        yield name
    yield path.with_name(f"{path.stem}.{word}{path.suffix}").as_posix()
    number = 2
    while True:
        yield path.with_name(f"{path.stem}.{word}-{number}{path.suffix}").as_posix()
        number += 1


def _folder_digest(folder: Path) -> str:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return digest("\n".join(f"{name} {file_digest(folder / name)}" for name in files).encode(errors="surrogateescape"))


def _has_lost_files_only(folder: Path, whole: Path) -> bool:
    """Whether every file of a folder is in the folder `whole` too, with the same content."""
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    try:
        return all(file_digest(folder / name) == file_digest(whole / name) for name in names)
    except OSError:
        return False


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
