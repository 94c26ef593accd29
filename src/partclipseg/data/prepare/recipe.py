"""Write a layout by jobs: each makes the files of one photo in a `Layout` and returns an `Outcome`.

A file that a person made or changed is kept, and counts: labels are read back from it. Files are written under a
temporary name first, so that a file with its final name is whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from partclipseg.data.label_map import labels_in, numbered_table, read_label_map
from partclipseg.data.photo import photo_formats
from partclipseg.errors import PartCLIPSegError
from partclipseg.files import whole_file
from partclipseg.kept_files import KeptFiles, file_digest, is_free

PhotoMode = Literal["copy", "link"]


@dataclass(frozen=True)
class Outcome:
    """Result of one photo."""

    key: str
    split: str
    files: dict[str, Any] = field(default_factory=dict)
    """State of each file, by its path below the output folder: size in bytes, time of modification and digest; the size
    alone in journals of earlier releases. The runner fills it in; it is empty for a photo that was left out."""
    kept: list[str] = field(default_factory=list)
    """Names of the `files` that a person made or changed."""
    parts: list[int] = field(default_factory=list)
    """Part labels in its map, sorted."""
    objects: list[int] = field(default_factory=list)
    """Object labels in its map or among its instances, sorted."""
    unknown: list[str] = field(default_factory=list)
    """Raw part names, with their object, that the class list does not have."""
    size: tuple[int, int] | None = None
    """Height and width, if the layout's lists need it."""
    instances: list[dict[str, Any]] = field(default_factory=list)
    """COCO annotations without ids, if the layout has them."""
    source: str = ""
    """State of the source, see `source_state`; empty in journals of earlier releases, whose photos are taken over."""


class PrepareJob(Protocol):
    """Work of one photo, which can be sent to another process."""

    @property
    def key(self) -> str: ...

    def source(self) -> str:
        """Return the `source_state` of all that the result depends on."""
        ...

    def run(self, layout: Layout) -> Outcome:
        """Write the files of the photo into `layout`."""
        ...


class LayoutRecipe(Protocol):
    """Interface of a recipe that makes the layout of a data set."""

    name: str

    def options(self) -> dict[str, Any]:
        """Return the JSON values that change the result, by default none; a run goes on only if they are the same."""
        return {}

    def jobs(self) -> Sequence[PrepareJob]: ...

    def finish(self, lists: KeptFiles, outcomes: Sequence[Outcome]) -> None:
        """Write the layout's lists. `outcomes` are sorted by key, and those of photos that were left out are gone."""
        ...


@dataclass
class Layout:
    """Output folder, as a job writes to it: a file that a person made or changed is kept.

    An empty file counts as none.
    """

    folder: Path
    known: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Digests of the photo's files as earlier runs wrote them, by path below the folder."""
    overwrite: bool = False
    """Replace files that a person made or changed."""
    files: dict[str, Any] = field(default_factory=dict)
    """State of each of the photo's files, see `Outcome.files`."""
    kept: list[str] = field(default_factory=list)
    """Files that a person made or changed."""

    def write_map(self, labels: np.ndarray, name: str) -> None:
        """Write a label map as PNG with the array's 8 or 16 bits."""
        with self._file(name) as temporary:
            Image.fromarray(labels).save(temporary)

    def write_text(self, text: str, name: str) -> None:
        """Write UTF-8 text."""
        with self._file(name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def place_photo(self, source: Path, name: str, mode: PhotoMode) -> None:
        """Bring a photo into the layout, leaving the source alone.

        ``link`` gives the same file a second name (a hard link): no space is used, and the photos must then not be
        edited in place. It needs both folders on one disk.

        Raises:
            PartCLIPSegError: the photo cannot be read, or not be linked.
        """
        try:
            with self._file(name) as temporary:
                if mode == "link":
                    os.link(source.resolve(), temporary)
                else:
                    shutil.copyfile(source, temporary)
        except OSError as error:
            remedy = "use --photos copy" if mode == "link" else "check the file and the disk"
            target = self.folder / name
            raise PartCLIPSegError(f"{source}: cannot be brought to {target} ({error.strerror}): {remedy}") from error

    def labels(self, name: str, drawn: np.ndarray, classes: int, ignore: int) -> list[int]:
        """Return the labels in a map that was written: of `drawn`, or of the file that a person put in its place.

        Raises `DataError` if that file is no such map.
        """
        if name not in self.kept:
            return [int(label) for label in np.unique(drawn) if label != ignore]
        table = numbered_table(classes, ignore)
        height, width = drawn.shape
        return labels_in(read_label_map(self.folder / name, table, 8 * drawn.itemsize, (height, width))).tolist()

    @contextmanager
    def _file(self, name: str) -> Iterator[Path]:
        """Yield a temporary path; it takes the file's place when the block ends, unless a file of a person is there."""
        path = self.folder / name
        with suppress(_KeptError), whole_file(path) as temporary:
            yield temporary
            written = file_digest(temporary)
            if not is_free(path, {written, *self.known.get(name, ())}, self.overwrite) and path.stat().st_size:
                self.kept.append(name)
                written = file_digest(path)
                raise _KeptError
        status = path.stat()
        self.files[name] = {"bytes": status.st_size, "modified": status.st_mtime_ns, "digest": written}


class _KeptError(Exception):
    """Raised to discard a new file."""


def photo_size(path: Path) -> tuple[int, int]:
    """Read height and width from the file's header; raises `PartCLIPSegError` if it is not a photo."""
    try:
        with Image.open(path, formats=photo_formats()) as photo:
            return photo.height, photo.width
    except Exception as error:  # damaged headers make the format readers raise almost anything
        raise PartCLIPSegError(f"{path}: not a photo ({error}): replace it") from error


def source_state(*sources: Path | str | int) -> str:
    """Return a digest of values, and of name, size and time of files; the folder that a file lies in does not count."""
    digest = blake2b(digest_size=8)
    for source in sources:
        state: Any = source
        if isinstance(source, Path):
            try:
                status = source.stat()
                state = source.name, status.st_size, status.st_mtime_ns
            except OSError:  # its job says what is wrong
                state = source.name, None
        digest.update(repr(state).encode(errors="surrogateescape"))
    return digest.hexdigest()
