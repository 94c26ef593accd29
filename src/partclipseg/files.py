"""Write files and folders whole or not at all, and describe refusals of the system.

A file is written under a temporary name beside its path and renamed when it is complete. Temporary names follow one
pattern, so that files left by a killed process can be told from all others.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from partclipseg.errors import PartCLIPSegError, UsageError

LONGEST_NAME = 255
"""Maximum length of a file name in bytes on most file systems."""

_TEMPORARY = re.compile(r"\.partclipseg-(\d+)-[0-9a-f]{8}\.tmp(\..*)?", re.DOTALL)

_REMEDIES = {
    errno.ENOSPC: "make room, then give the same command again",
    errno.EDQUOT: "make room, then give the same command again",
    errno.EROFS: "name a folder that can be written to",
    errno.EACCES: "change its permissions, or name another path",
    errno.EPERM: "change its permissions, or name another path",
    errno.EISDIR: "a folder stands where a file should be: move it away, or name another path",
    errno.ENOTDIR: "a file stands where a folder should be: move it away, or name another path",
    errno.EEXIST: "a file stands where a folder should be: move it away, or name another path",
    errno.ENAMETOOLONG: "the name is too long for the file system: use a shorter one",
    errno.ENOENT: "check the path",
    errno.ENXIO: "move away what is there, or name another path",
    errno.EMFILE: "too many files are open: use fewer workers, or raise the limit (ulimit -n)",
}


@contextmanager
def whole_file(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it takes `path`'s place when the block ends without an error.

    The temporary path keeps the suffix, since writers choose their format by it. Missing folders are made. With
    `durable` the file is on the disk, safe from a power cut, when the block has ended.

    Raises `OSError` of `is_regular`: what is no file is never replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_regular(path)
    temporary = temporary_path(path)
    try:
        yield temporary
        if durable:
            flush(temporary)
        temporary.replace(path)
        if durable:
            flush(path.parent)
    except OSError as error:
        if error.filename == os.fspath(temporary):  # the temporary name would not help the reader
            error.filename = os.fspath(path)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def require_new(path: Path) -> None:
    """Raise `UsageError` if anything is at `path`, be it a link that leads nowhere."""
    if os.path.lexists(path):
        raise UsageError(f"{path} exists already: name another directory, or remove it first")


def require_folder(path: Path, option: str = "--output") -> None:
    """Raise `UsageError` where a folder is to be made and it, or one that it would lie in, is a file."""
    there = next((place for place in (path, *path.parents) if os.path.exists(place)), None)  # noqa: PTH110
    if there is not None and not is_directory(there):
        raise UsageError(f"{there} is a file, and {option} names a folder: give another name")


@contextmanager
def whole_directory(path: Path, durable: bool = False, new: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes `path`'s place when the block ends without an error.

    A folder that exists at `path`, or that a link there leads to, is exchanged for the new one in a single step where
    the system supports it (Linux), so that `path` exists at every moment. With `new` nothing is ever replaced: what is
    there, or has come there when the block ends, raises `UsageError`.
    """
    if new:
        require_new(path)
    elif path.is_symlink() and path.is_dir():
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    temporary.mkdir()
    try:
        yield temporary
        if durable:
            for written in temporary.rglob("*"):
                flush(written)
            flush(temporary)
        if new:
            _rename_to_new(temporary, path)
        elif path.is_dir() and not _exchange(temporary, path):
            old = temporary_path(path)
            path.rename(old)
            temporary.replace(path)
            temporary = old
        elif not path.is_dir():
            temporary.replace(path)
        if durable:
            flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename_to_new(folder: Path, path: Path) -> None:
    """Rename a folder to `path`; raise `UsageError` if something came there meanwhile (an empty folder is replaced)."""
    try:
        folder.rename(path)
    except OSError:
        if not os.path.lexists(path):
            raise
        raise UsageError(f"{path} was made by another program meanwhile and is kept: name another directory") from None


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Write UTF-8 text with `whole_file`."""
    with whole_file(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is an existing file; False, and no error, for text that cannot be a path."""
    try:
        return os.fspath(path) != "" and Path(path).is_file()
    except (OSError, ValueError, TypeError):
        return False


def expanded(path: str | os.PathLike[str], named_by: str = "the path") -> Path:
    """Return a path with `~` and `~user` replaced; raises `PartCLIPSegError` for the home folder of nobody.

    `named_by` begins the message.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise PartCLIPSegError(
            f"{named_by} is {os.fspath(path)}, and this system knows of no such home folder: give the path in full"
        ) from None


def is_regular(path: Path) -> bool:
    """Whether a file, or a link to one, is at `path`; False where nothing is.

    Raises `OSError` naming the path for a folder, a pipe or socket, whose reader would wait for a writer, and a link
    that leads nowhere: a person made it, and its target may be on a disk that is not mounted.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP or (error.errno == errno.ENOENT and path.is_symlink()):
            raise OSError(errno.ENXIO, "it is a link that leads nowhere", str(path)) from None
        if error.errno == errno.ENOENT:
            return False
        raise
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.ENXIO, "it is no regular file", str(path))
    return True


def is_directory(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is an existing directory; False, and no error, for text that cannot be a path."""
    try:
        return os.fspath(path) != "" and Path(path).is_dir()
    except (OSError, ValueError, TypeError):
        return False


def full_path(name: str) -> str:
    """Return an existing path in full, for other working directories; other text, as a name on the hub, as it is."""
    return os.path.abspath(name) if is_file(name) or is_directory(name) else name  # noqa: PTH100  (keeps links)


def same_path(one: object, other: object) -> bool:
    """Whether two texts are spellings of one path that exists, such as a relative and a full one."""
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    try:
        return os.path.samefile(one, other)  # noqa: PTH121
    except (OSError, ValueError):  # text that is no path
        return False


def temporary_path(path: Path) -> Path:
    """Return a new name beside `path`, with its suffix, that `remove_temporary` recognises; it is always short."""
    suffix = path.suffix if len(path.suffix) <= 16 else ""
    return path.with_name(f".partclipseg-{os.getpid()}-{secrets.token_hex(4)}.tmp{suffix}")


def remove_temporary(folder: Path, recursive: bool = True) -> None:
    """Delete the files that ended processes left in `folder`: only those that `temporary_path` named."""
    for path in list(folder.rglob("*.tmp*") if recursive else folder.glob("*.tmp*")):
        match = _TEMPORARY.fullmatch(path.name)
        if match and not _is_running(int(match[1])):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process, or not a process id
        return True
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # a system without such a table
        return True
    return state != "Z"  # that has ended, and whose parent has not taken notice yet


def flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path, seconds: float = 0) -> Iterator[None]:
    """Lock an existing folder against other runs; the lock ends with the process, even if it is killed.

    Waits at most so many `seconds` for another run to end. Raises `PartCLIPSegError` if it is still writing there. Does
    nothing where the system has no such locks.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        last = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= last:
                    raise PartCLIPSegError(
                        f"another run is writing to {folder}: wait for it, or name another folder with --output"
                    ) from None
            time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def refusal(error: OSError, path: str | os.PathLike[str] | None = None) -> str:
    """Describe an error of the system in a sentence with the path and the remedy.

    `path` is named where the error itself names none.
    """
    place = error.filename if error.filename is not None else path
    reason = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "check the path and the disk")
    if place is None:
        return f"the system refuses to read or write ({reason}): {remedy}"
    named = os.fsdecode(place) if isinstance(place, bytes | os.PathLike) else str(place)
    return f"{named} cannot be read or written ({reason}): {remedy}"


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk or a quota is full, or the file system read-only: the next file would fail likewise."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; return False if the system does not support it."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at_fdcwd, exchange = -100, 2
    return rename(at_fdcwd, os.fsencode(first), at_fdcwd, os.fsencode(second), exchange) == 0
