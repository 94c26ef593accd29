"""Segments of label maps: all pixels of one class, or of one object, in one photo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from partclipseg.vocabulary import ObjectPart, Vocabulary


@dataclass(frozen=True)
class Segment:
    """All pixels of one class in one photo, or of one object in the view "objects"."""

    object: str
    """Object word; `vocabulary.ANY` for a part without an object."""
    part: str | None
    """Part word; None for a whole object."""
    index: int
    """Index of the class in `Vocabulary.classes`, or of the object in `Vocabulary.objects`."""
    score: float
    """Mean probability over the segment's pixels, 0 to 1."""
    area: int
    """Number of pixels."""
    box: tuple[int, int, int, int]
    """x, y, width, height in pixels; x and y of the upper left pixel."""
    label_map: np.ndarray | None = field(default=None, repr=False, compare=False)
    """int32 `[H, W]`: the map that the segment was found in, shared by all segments of the photo."""

    @property
    def name(self) -> str:
        """Return ``dog's ear``, ``dog`` for a whole object, or ``handle`` for a part without an object."""
        return self.object if self.part is None else ObjectPart(self.object, self.part).name

    @property
    def mask(self) -> np.ndarray:
        """Return the segment's pixels, bool `[H, W]`. Raises `ValueError` for a segment without a label map."""
        if self.label_map is None:
            raise ValueError(f"the segment {self.name} was made without a label map, so it has no mask")
        return self.label_map == self.index


def part_segments(label_map: np.ndarray, vocabulary: Vocabulary, scores: np.ndarray) -> Iterator[Segment]:
    """Yield the classes that have pixels, in label order.

    Args:
        label_map: int `[H, W]`, index into `vocabulary.classes`, background -1.
        vocabulary: the words.
        scores: float `[N_c]`, mean probability of each class.
    """
    for index, area in _present(label_map, len(vocabulary)):
        pair = vocabulary.classes[index]
        box = _box(label_map == index)
        yield Segment(pair.object, pair.part, index, float(scores[index]), area, box, label_map)


def object_segments(object_map: np.ndarray, vocabulary: Vocabulary, scores: np.ndarray) -> Iterator[Segment]:
    """Yield the objects that have pixels, in the order of `vocabulary.objects`.

    Args:
        object_map: int `[H, W]`, index into `vocabulary.objects`, background -1.
        vocabulary: the words.
        scores: float `[N_o]`, mean probability of each object.
    """
    for index, area in _present(object_map, len(vocabulary.objects)):
        box = _box(object_map == index)
        yield Segment(vocabulary.objects[index], None, index, float(scores[index]), area, box, object_map)


def object_scores(
    label_map: np.ndarray, vocabulary: Vocabulary, scores: np.ndarray, rest_scores: np.ndarray
) -> np.ndarray:
    """Return the score of each object, float32 `[N_o]`: the mean over the pixels of its parts.

    An object without any has the one of `rest_scores`, float `[N_o]`. The other arguments are those of `part_segments`.
    """
    owners, count = vocabulary.class_to_object, len(vocabulary.objects)
    areas, scores = _areas(label_map, len(vocabulary))[: len(owners)], scores[: len(owners)]
    sums, sizes = (np.bincount(owners, weights, count) for weights in (areas * scores, areas))
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), rest_scores).astype(np.float32)


def _present(labels: np.ndarray, count: int) -> Iterator[tuple[int, int]]:
    """Yield index and number of pixels of the labels that occur."""
    areas = _areas(labels, count)
    for index in np.flatnonzero(areas).tolist():
        yield index, int(areas[index])


def _areas(labels: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(labels.ravel() + 1, minlength=count + 1)[1:]


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1
