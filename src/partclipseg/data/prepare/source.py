"""Search the raw source, folders and archives as downloaded, for files by name. The source is never written to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from partclipseg.data.prepare.archive import SUFFIXES, is_archive, unpack
from partclipseg.errors import UsageError


def open_sources(paths: Sequence[Path], output: Path) -> list[Path]:
    """Return the folders to search: those given, and archives unpacked beside `output` (into ``OUTPUT.unpacked``).

    An archive that was unpacked before is not unpacked again. Archives in an archive are unpacked beside themselves.

    Raises:
        UsageError: a path is neither folder nor archive, or the output lies in a source, or a source in the output.
        PartCLIPSegError: see `unpack`.
    """
    folders = []
    for path in paths:
        if path.is_dir():
            if _overlap(path, output):
                raise UsageError(
                    f"the source {path} and the output {output} lie in each other: choose an output elsewhere, "
                    "so that the source stays as it is"
                )
            folders.append(path)
        elif path.is_file() and is_archive(path):
            folder = output.with_name(f"{output.name}.unpacked") / path.name
            unpack(path, folder)
            for inner in list(find([folder], *SUFFIXES)):
                unpack(inner, inner.with_name(f"{inner.name}.unpacked"))
            folders.append(folder)
        else:
            what = "is not a folder or an archive (.zip, .tar.gz)" if path.exists() else "does not exist"
            raise UsageError(f"the source {path} {what}: check --source")
    if not folders:
        raise UsageError("name the folder or the archive to start from: --source PATH")
    return folders


def find(folders: Sequence[Path], *suffixes: str) -> Iterator[Path]:
    """Yield the files below the folders whose name ends in one of the lower-case suffixes, sorted within each folder.

    Hidden files and folders are left out; links to folders are not followed.
    """
    for top in folders:
        for folder, subfolders, names in os.walk(top):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                if name.lower().endswith(suffixes) and not name.startswith("."):
                    yield Path(folder, name)


def _overlap(source: Path, output: Path) -> bool:
    source, output = source.resolve(), output.resolve()
    return output.is_relative_to(source) or source.is_relative_to(output)
