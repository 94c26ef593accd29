"""Digests of the files of a folder, by which tests compare folders."""

from __future__ import annotations

from pathlib import Path

from partclipseg.files import sha256


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path."""
    return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
