"""`PartSample`, the value type that every data set yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNLABELLED = -1
"""Index that means no label: in `part_labels` no object-part, in `object_labels` no object."""

OUTSIDE = -2
"""Index in `object_labels` of an object that the vocabulary in use does not have."""


@dataclass(frozen=True)
class PartSample:
    """A photo and its two label maps, in the indices of the vocabulary in use.

    All label values of files (255, 65535, polygons, category ids) are translated when they are read.
    """

    image: np.ndarray
    """Photo, uint8 `[H, W, 3]`, RGB."""
    part_labels: np.ndarray
    """Part labels, int32 `[H, W]`: index into `Vocabulary.object_parts`, or `UNLABELLED`."""
    object_labels: np.ndarray
    """Object labels, int32 `[H, W]`: index into `Vocabulary.objects`, `UNLABELLED` or `OUTSIDE`."""
    key: str
    """Name of the record within its data set, for reports and resuming."""
    instances: np.ndarray | None = None
    """Instance map, int32 `[H, W]`: number of the object that a pixel belongs to, from 0, or `UNLABELLED`; a pixel of
    an object may belong to no instance, as in a crowd. None where it was not asked for or the data set has none."""


def label_areas(labels: np.ndarray, count: int = 0) -> np.ndarray:
    """Count the pixels of each label from 0 on, int64 `[count]`, or more where a greater one occurs; -1 counts nowhere.

    `labels` are integers of any shape.
    """
    # One further bin, for -1: faster than selecting the other pixels.
    return np.bincount(labels.ravel() + 1, minlength=count + 1)[1:]


def objects_in(object_labels: np.ndarray) -> list[int]:
    """Return the objects in object labels, integer `[H, W]`, ascending; a model under Oracle-Obj is told these."""
    counts = np.bincount(object_labels[object_labels >= 0])
    return np.flatnonzero(counts).tolist()
