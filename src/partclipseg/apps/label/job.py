"""What is to be labelled, and into which files.

A batch is the unit of work and always holds the same photos, so that a run which was stopped and taken up again
makes the same files to the byte: arithmetic may differ in its last digits between batches of different make-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from partclipseg.apps.label.photos import Photo
from partclipseg.models.prompting import Prompting
from partclipseg.vocabulary import Vocabulary

BulkFormat = Literal["coco", "yolo", "labelme", "png", "jsonl", "label-studio"]
BULK_FORMATS: tuple[BulkFormat, ...] = get_args(BulkFormat)

OWN_FILES: dict[BulkFormat, tuple[str, str]] = {
    "png": ("labels", ".png"),
    "labelme": ("labelme", ".json"),
    "yolo": ("yolo/labels", ".txt"),
    "label-studio": ("label_studio", ".json"),
}
"""Formats with a file for each photo: its folder and suffix. The others are made of the manifest at the end."""

MANIFEST, OPTIONS, WRITTEN = "manifest.jsonl", "options.json", ".written"
"""The state of a run, in the output folder: lines of photos, options, and a folder of digests of other files."""

Batch = list[Photo]

Record = dict[str, Any]
"""A line of the manifest: photo, status, and either error or width, height, segments with RLE masks, and files.

`files` has the digest of each file of the photo as it was written; `corrected` the format of a person's file that it
was then written anew from.
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
    min_part_probability: float = 0.0
    prompting: Prompting | None = None
    """How a plain CLIPSeg is asked."""
    dtype: str = "float32"
    batch_size: int = 8
    max_pixels: int = 80_000_000
    overwrite: bool = False
    """Replace files that a person made or changed."""

    def own_files(self, photo: Photo) -> dict[BulkFormat, Path]:
        """Path of the photo's own file in each format that has one."""
        return {
            name: self.output / folder / f"{photo.stem}{suffix}"
            for name, (folder, suffix) in OWN_FILES.items()
            if name in self.formats
        }

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
            "min_part_probability": self.min_part_probability,
            **({} if self.prompting is None else {"prompting": str(self.prompting)}),
            "formats": list(self.formats),
            "dtype": self.dtype,
            "batch_size": self.batch_size,
            "max_pixels": self.max_pixels,
        }
