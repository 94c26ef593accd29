"""Append-only file of JSON objects, one a line, from which an interrupted job resumes.

    journal = Journal(folder / "manifest.jsonl")
    done = journal.read()
    journal.append([{"photo": "a.jpg", "status": "done"}])

A process that is killed during `append` leaves a torn last line, which `read` drops.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from partclipseg.errors import PartCLIPSegError
from partclipseg.files import flush, is_regular, whole_file

Entry = dict[str, Any]


class Journal:
    """Journal in one file.

    Args:
        path: the ``.jsonl`` file; made by the first `append`.
        remedy: what a person can do about a damaged file, for the message of the error.
        durable: whether entries are on the disk, safe from a power cut, when `append` returns.
    """

    def __init__(self, path: Path, remedy: str = "delete it to start again", durable: bool = True) -> None:
        self.path = path
        self.remedy = remedy
        self.durable = durable

    def read(self, damaged: Literal["refuse", "skip"] = "refuse") -> list[Entry]:
        """Return the entries in their order; none if there is no file. A torn last line is cut off the file.

        See `scan` for `damaged` and errors.
        """
        return list(self.scan(damaged))

    def scan(self, damaged: Literal["refuse", "skip"] = "refuse") -> Iterator[Entry]:
        """Yield the entries of `read` one by one, so that a long file need not be in memory.

        Raises `PartCLIPSegError` naming the file, the line and the remedy for a line that is no JSON object, unless
        `damaged` is "skip". Raises `OSError` of `is_regular`.
        """
        if not is_regular(self.path):
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            entry = _parse(line)
            if entry is not None:
                yield entry
            elif damaged == "refuse":
                raise PartCLIPSegError(f"{self.path} is damaged at line {number}: {self.remedy}")

    def begins_with(self, key: str) -> bool:
        """Whether the first entry begins with this key, so that the file is no other program's; True without entries.

        Nothing is changed, in contrast to `scan`. Raises `OSError` of `is_regular`.
        """
        if not is_regular(self.path):
            return True
        start = f'{{"{key}": '.encode()
        with self.path.open("rb") as file:
            found = file.read(len(start))
        return start.startswith(found)

    def append(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Append entries, and flush them to the disk if the journal is durable. Raises `OSError` of `is_regular`."""
        created = not is_regular(self.path)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{json_text(entry)}\n" for entry in entries)
        if self.durable:
            flush(self.path)
            if created:
                flush(self.path.parent)

    def rewrite(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Replace the file by one with these entries, atomically."""
        with whole_file(self.path, durable=True) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(f"{json_text(entry)}\n" for entry in entries)


def json_text(value: Any, indent: int | None = None) -> str:
    """Format a value as JSON in readable letters; where file names are not valid Unicode, all are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    return text


def _parse(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
