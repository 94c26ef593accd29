"""Output files of a repeated command: it replaces its own files and refuses to replace others.

In contrast to `kept_files.KeptFiles`, nothing is written beside a file of somebody else, and refusals of the system are
raised.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from partclipseg.errors import PartCLIPSegError
from partclipseg.files import is_regular, whole_file
from partclipseg.journal import Journal
from partclipseg.kept_files import WrittenFiles, digest

FOLDER = ".partclipseg"
"""Subfolder of the output folder for the records."""


def make_folder(path: Path) -> None:
    """Make the folder for the results; raises `PartCLIPSegError` if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PartCLIPSegError(
            f"cannot write to {path} ({error.strerror}): name another folder with --output"
        ) from None


class KeptError(PartCLIPSegError):
    """Raised if a result would replace a file that somebody else made or changed; that file is kept."""


class OwnFiles(WrittenFiles):
    """The files that one command wrote to a folder. Thread-safe.

    Args:
        folder: the output folder; it and its record are created. Raises `OSError` if it cannot be written to.
        command: name of the record.
        overwrite: replace all files, whoever made them.
        read_only: only ask which files are its own; nothing is created.
    """

    def __init__(self, folder: Path, command: str, overwrite: bool = False, read_only: bool = False) -> None:
        self._overwrite = overwrite
        if not read_only:
            (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        journal = Journal(folder / FOLDER / f"{command}.jsonl")
        # Damaged lines are skipped: at worst a file of our own is kept.
        super().__init__(folder, journal, damaged="skip")
        if not read_only:
            journal.append([])  # to find out now whether the folder can be written to

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all; `name` is relative to the folder.

        Raises `KeptError` if a file of somebody else is there, and `OSError` naming the file.
        """
        path = self.folder / name
        if is_regular(path) and not self._overwrite and not self.is_own(path):
            raise KeptError(str(path))
        with naming(path), whole_file(path) as temporary:
            temporary.write_bytes(content)
            self.add(Path(name).as_posix(), digest(content))

    def remove_others(self, folder: str, names: Container[str]) -> None:
        """Remove the own files directly in a subfolder that are not among `names`, as left by an earlier run."""
        for path in sorted((self.folder / folder).glob("*")):
            if f"{folder}/{path.name}" not in names and self.is_own(path):
                path.unlink()


def without_results(folder: Path, photos: list[Path], root: Path) -> list[Path]:
    """Leave out of the `photos` directly in a folder those that `partclipseg predict` wrote there as results.

    Its record is looked for in the folder and in those above it up to `root`.
    """
    above = [place for place in (folder, *folder.parents) if place == root or root in place.parents]
    for place in above:
        if (place / FOLDER / "predict.jsonl").is_file():
            files = OwnFiles(place, "predict", read_only=True)
            photos = [photo for photo in photos if not files.is_own(photo)]
    return photos


def kept_sentence(paths: list[str]) -> str:
    """Return a sentence that lists the kept files and says how to get the results all the same."""
    names = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
    return (
        f"kept as they are, since they were made or changed by somebody else: {names}; name another folder with "
        "--output, or give --overwrite to replace them"
    )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make errors of the system name the final path instead of the temporary one."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
