"""Files that are either whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; takes `path`'s place when the block ends without an error.

    The suffix is kept, since writers choose their format by it. Folders on the way are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """The same for a directory; one that stands at `path` is replaced once the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as a `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is an existing file; False, and no error, for text that no path can be."""
    try:
        return os.fspath(path) != "" and Path(path).is_file()
    except (OSError, ValueError, TypeError):
        return False


def is_directory(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is an existing directory; False, and no error, for text that no path can be."""
    try:
        return os.fspath(path) != "" and Path(path).is_dir()
    except (OSError, ValueError, TypeError):
        return False
