"""Claim output folders, and describe failed writes of any library in one sentence.

PyTorch raises a RuntimeError on a full disk, safetensors a SafetensorError, tokenizers a plain Exception.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from partclipseg.errors import PartCLIPSegError, UsageError, first_line
from partclipseg.files import locked, refusal, remove_temporary, temporary_path

_ROOM = 1 << 20
"""Free bytes below which a failed write is attributed to a full disk, if the library gives no reason."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise `PartCLIPSegError` with path, reason and remedy where the block fails to write `path`.

    The block should do nothing but write: every exception in it counts as a failure to write.
    """
    try:
        yield
    except (PartCLIPSegError, ImportError):
        raise
    except Exception as error:
        raise PartCLIPSegError(refusal(_system_error(error, path), path)) from error


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Create a folder if needed, lock it against other runs, and delete partial files of killed runs.

    Raises `PartCLIPSegError` if another run is writing there, or the folder cannot be made or written to.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        remove_temporary(folder, recursive=False)
        check_writable(folder)
        yield


def check_new_file(path: Path) -> None:
    """Check before long work that its result can be written to the new file `path`; nothing is left behind.

    Raises `UsageError` if anything is there, be it a link that leads nowhere, and `PartCLIPSegError` where no file can
    be made.
    """
    with writing(path):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            check_writable(next(folder for folder in path.absolute().parents if os.path.lexists(folder)))
        else:
            raise UsageError(f"{path} exists already: name another file, or remove it first")


def check_writable(folder: Path) -> None:
    """Raise `PartCLIPSegError` if no file can be made in an existing folder."""
    with writing(folder):
        trial = temporary_path(folder / "trial")
        trial.touch()
        trial.unlink()


def _system_error(error: Exception, path: Path) -> OSError:
    """Return the system's error, without the name of a temporary file."""
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, error.strerror)
    if isinstance(error.__context__, OSError) and error.__context__.errno is not None:
        return OSError(error.__context__.errno, error.__context__.strerror)
    if number := re.search(r"\(os error (\d+)\)", str(error)):  # libraries written in Rust
        return OSError(int(number[1]), os.strerror(int(number[1])))
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not os.access(folder, os.W_OK):
        return OSError(errno.EACCES, os.strerror(errno.EACCES))
    if shutil.disk_usage(folder).free < _ROOM:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return OSError(first_line(error))
