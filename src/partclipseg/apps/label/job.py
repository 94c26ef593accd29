"""What is to be labelled, and into which files.

A batch is the unit of work and always holds the same photos, so that a run which was stopped and taken up again
makes the same files to the byte: arithmetic may differ in its last digits between batches of different make-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partclipseg.apps.label.photos import Photo
from partclipseg.formats.format import Place
from partclipseg.formats.registry import data_set_formats
from partclipseg.vocabulary import Vocabulary

BulkFormat = str
"""Name of one of `data_set_formats`."""

MANIFEST, OPTIONS, WRITTEN = "manifest.jsonl", "options.json", ".written"
"""The state of a run, in the output folder: lines of photos, options, and a folder of digests of other files."""

Batch = list[Photo]

Record = dict[str, Any]
"""A line of the manifest: photo, status, and either error or width, height, segments with RLE masks, and files.

`files` has the digest of each file of the photo as it was written; `corrected` the format of a person's file that it
was then written anew from; `warning` what the photo reader said of it, such as that it is nearly black.
"""


@dataclass(frozen=True)
class BulkJob:
    """What is to be done; workers on other machines get it as it is."""

    folder: Path
    output: Path
    vocabulary: Vocabulary
    formats: tuple[BulkFormat, ...]
    model: str | None = None
    objects: tuple[str, ...] = ()
    zoom: bool = False
    min_score: float = 0.0
    dtype: str = "float32"
    batch_size: int = 8
    max_pixels: int = 80_000_000
    overwrite: bool = False
    """Replace files that a person made or changed."""

    def own_files(self, photo: Photo) -> dict[BulkFormat, Path]:
        """Path of the photo's own file in each format that has one."""
        return {
            name: self.output / kind.folder / f"{photo.stem}{kind.extension}"
            for name, kind in data_set_formats().items()
            if kind.folder is not None and name in self.formats
        }

    def place(self, name: BulkFormat, photo: Photo) -> Place:
        """Where the photo's own file in the format `name` lies."""
        return Place(self.own_files(photo)[name].parent, self.folder / photo.path, self.folder)

    def options(self, weights: str) -> dict[str, Any]:
        """All that the results depend on; `weights` is a fingerprint of the model's."""
        return {
            "folder": str(self.folder.resolve()),
            "model": self.model or "the built-in model",
            "weights": weights,
            "vocabulary": list(self.vocabulary.names),
            "objects": list(self.objects),
            "zoom": self.zoom,
            "min_score": self.min_score,
            "formats": list(self.formats),
            "dtype": self.dtype,
            "batch_size": self.batch_size,
            "max_pixels": self.max_pixels,
        }
