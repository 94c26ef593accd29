"""Sources whose photos each have a list of part masks, as polygons or run lengths, which are painted on one map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from partclipseg.data.coco_masks import BrokenMaskError, paint_masks, why_empty
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.sample import UNLABELLED
from partclipseg.data.source import Source, SourceLabels, SourcePhoto, check_photo_size


@dataclass(frozen=True)
class PartMask:
    """Mask of one part in one photo."""

    label: int
    """Index into `Source.object_parts`."""
    segmentation: Any
    """Polygons or run lengths, as `coco.decode_mask` takes them."""
    name: str
    """Name of the mask for messages, such as ``annotation 7``."""


@dataclass(frozen=True)
class PaintedPhoto:
    """Masks of one photo and the file that they were read from."""

    masks: tuple[PartMask, ...]
    size: tuple[int | None, int | None]
    """Height and width as the file states them; None where it does not."""
    file: Path


@dataclass(frozen=True, kw_only=True, eq=False)
class PaintedSource(Source):
    """Source of photos with part masks; small masks lie on top, and an object is the union of its parts."""

    painted: dict[str, PaintedPhoto] = field(repr=False)
    """Masks of the photos, by key."""
    file: Path
    """File to name if all labels are wrong."""
    remarks: tuple[Problem, ...] = ()
    """Harmless findings of opening."""

    @property
    def label_file(self) -> Path:
        """See `Source.label_file`."""
        return self.file

    def read_labels(self, photo: SourcePhoto, size: tuple[int, int]) -> SourceLabels:
        """See `Source.read_labels`."""
        entry = self.painted[photo.key]
        check_photo_size(photo.path, entry.file, entry.size, size)
        empty: list[int] = []
        try:
            labels = [mask.label for mask in entry.masks]
            parts = paint_masks(labels, [mask.segmentation for mask in entry.masks], size, empty)
        except BrokenMaskError as error:
            problem = f"{entry.masks[error.place].name} of {photo.key}: {error.message}"
            raise DataError(Problem("annotation", entry.file, problem)) from None
        problems = []
        for mask in (entry.masks[place] for place in empty):
            problem = f"{mask.name} of {photo.key} covers no pixel: {why_empty(mask.segmentation, size)}"
            problems.append(Problem("empty", entry.file, problem))
        return SourceLabels(parts, np.full_like(parts, UNLABELLED), tuple(problems))

    def notes(self) -> Iterator[Problem]:
        """Yield the notes of `Source.notes` and what opening remarked."""
        yield from super().notes()
        yield from self.remarks
