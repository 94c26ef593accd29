"""Segments of label maps: all pixels of one class, or of one object, in one photo."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from partclipseg.data.runs import LabelRuns, label_runs, run_starts
from partclipseg.data.sample import label_areas
from partclipseg.vocabulary import ANY, ObjectPart, Vocabulary


@dataclass(frozen=True)
class Instance:
    """One object of a photo, such as one of three dogs."""

    number: int
    """Number of the object, from 1: its place in `PartResult.instances`; files call it so."""
    object: str
    """Object word."""
    index: int
    """Index into `Vocabulary.objects`."""
    score: float
    """Score of the source that found it, 0 to 1; for ``components`` the mean probability of the region."""
    area: int
    """Number of pixels that it owns; 0 for an object in which no pixel was found."""
    box: tuple[int, int, int, int]
    """x, y, width, height of these pixels; zeros without any."""
    found: tuple[float, float, float, float]
    """x, y, width, height of the box that it was found by, in pixels."""
    source: str
    """Source: ``components``, ``detector`` or ``given``; with ``and outline`` where its outline was drawn."""


@dataclass(frozen=True, eq=False)
class Owners:
    """The objects of a photo and the pixels that each of them owns."""

    instance_map: np.ndarray
    """int32 `[H, W]`: index into `instances`, -1 none."""
    instances: tuple[Instance, ...]
    scores: np.ndarray
    """float32 `[n + 1, N_c]`: mean probability of each class over its pixels of each instance; last, without owner."""
    rest_scores: np.ndarray
    """float32 `[n + 1, N_o]`: the same over the pixels of each object that belong to none of its parts."""

    @property
    def found(self) -> tuple[Instance, ...]:
        """Return the instances that own a pixel."""
        return tuple(instance for instance in self.instances if instance.area)


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
    runs: LabelRuns | None = field(default=None, repr=False, compare=False)
    """The pixels; None for a segment that was made without them."""
    instance: int | None = None
    """Number of the `Instance` whose part it is, from 1; None without an owner, or if no instances were asked for."""

    @property
    def name(self) -> str:
        """Return ``dog's ear``, ``dog`` for a whole object, or ``handle`` for a part without an object."""
        return self.object if self.part is None else ObjectPart(self.object, self.part).name

    @property
    def title(self) -> str:
        """Return the name with the owner's number: ``dog 2's ear``, ``dog 2``; the name alone without an owner."""
        if self.instance is None:
            return self.name
        if self.object == ANY:
            return f"{self.name} ({self.instance})"
        owner = f"{self.object} {self.instance}"
        return owner if self.part is None else ObjectPart(owner, self.part).name

    @property
    def mask(self) -> np.ndarray:
        """Return the segment's pixels, bool `[H, W]`. Raises `ValueError` for one that was made without them."""
        return self._known_runs.mask

    @property
    def rle(self) -> dict[str, Any]:
        """Return the pixels as run lengths of COCO for JSON. Raises `ValueError` as `mask` does."""
        return self._known_runs.rle

    @property
    def _known_runs(self) -> LabelRuns:
        if self.runs is None:
            raise ValueError(f"the segment {self.name} was made without its pixels, so it has no mask")
        return self.runs


def part_segments(
    label_map: np.ndarray, vocabulary: Vocabulary, scores: np.ndarray, owners: Owners | None = None
) -> Iterator[Segment]:
    """Yield the classes that have pixels, in label order; with `owners` those of each instance, ownerless ones last.

    Args:
        label_map: int `[H, W]`, index into `vocabulary.classes`, background -1.
        vocabulary: the words.
        scores: float `[N_c]`, mean probability of each class.
        owners: the instances, if they were asked for; their scores are then used.
    """
    names = [(pair.object, pair.part) for pair in vocabulary.classes]
    yield from _segments(label_map, names, scores, owners, None if owners is None else owners.scores)


def rest_segments(
    rest_map: np.ndarray, vocabulary: Vocabulary, scores: np.ndarray, owners: Owners | None = None
) -> Iterator[Segment]:
    """Yield the pixels of each object, or with `owners` of each instance, that belong to none of its parts.

    Args:
        rest_map: int `[H, W]`, index into `vocabulary.objects` where an object has no part, else -1.
        vocabulary: the words.
        scores: float `[N_o]`, mean probability of the best part there.
        owners: as in `part_segments`.
    """
    names = [(word, None) for word in vocabulary.objects]
    yield from _segments(rest_map, names, scores, owners, None if owners is None else owners.rest_scores)


def object_segments(
    object_map: np.ndarray, vocabulary: Vocabulary, scores: np.ndarray, owners: Owners | None = None
) -> Iterator[Segment]:
    """Yield the objects that have pixels, in the order of `vocabulary.objects`.

    With `owners` there is a segment for each instance, and after them one for each object's pixels without an owner.

    Args:
        object_map: int `[H, W]`, index into `vocabulary.objects`, background -1.
        vocabulary: the words.
        scores: float `[N_o]`, mean probability of each object, or `[n + 1, N_o]` with `owners`.
        owners: the instances, if they were asked for.
    """
    names = [(word, None) for word in vocabulary.objects]
    yield from _segments(object_map, names, scores, owners, None if owners is None else scores)


def _segments(
    labels: np.ndarray,
    names: Sequence[tuple[str, str | None]],
    scores: np.ndarray,
    owners: Owners | None,
    owned_scores: np.ndarray | None,
) -> Iterator[Segment]:
    count, last = len(names), 0 if owners is None else len(owners.instances)
    keys = labels if owners is None else owned_labels(labels, owners.instance_map, last, count)
    for runs in label_runs(keys):
        row, index = divmod(runs.label, count)
        if owned_scores is None:
            number, score = None, float(scores[index])
        else:
            number, score = None if row == last else row + 1, float(owned_scores[row, index])
        yield Segment(*names[index], index, score, runs.area, runs.box, runs, number)


def owned_labels(labels: np.ndarray, instance_map: np.ndarray, instances: int, count: int) -> np.ndarray:
    """Return one label for each pair of instance and label, int64 `[H, W]`: row · `count` + label, and -1.

    The row is the index of the instance, and `instances` for pixels without an owner.
    """
    rows = np.where(instance_map < 0, instances, instance_map).astype(np.int64)
    return np.where(labels < 0, -1, rows * count + labels)


def mean_scores(values: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return the mean of `values [H, W]` over the pixels of each label, float32 `[count]`; 0 for labels without any."""
    # NumPy instead of PyTorch: results are made in threads, and each would use PyTorch's own threads as well.
    # Sums over runs first: adding pixel by pixel to the same few sums would wait for each addition.
    flat = labels.ravel()
    starts = run_starts(flat)
    found, lengths = flat[starts] + 1, np.diff(starts, append=len(flat))  # background first
    sums = np.add.reduceat(np.ravel(values), starts, dtype=np.float64)
    areas, sums = (np.bincount(found, weights, count + 1)[1:] for weights in (lengths, sums))
    return (sums / np.maximum(areas, 1)).astype(np.float32)


def object_scores(
    label_map: np.ndarray, vocabulary: Vocabulary, scores: np.ndarray, rest_scores: np.ndarray
) -> np.ndarray:
    """Return the score of each object, float32 `[N_o]`: the mean over the pixels of its parts.

    An object without any has the one of `rest_scores`, float `[N_o]`. The other arguments are those of `part_segments`.
    """
    owners, count = vocabulary.class_to_object, len(vocabulary.objects)
    areas, scores = label_areas(label_map, len(vocabulary))[: len(owners)], scores[: len(owners)]
    sums, sizes = (np.bincount(owners, weights, count) for weights in (areas * scores, areas))
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), rest_scores).astype(np.float32)


def owned_object_scores(label_map: np.ndarray, vocabulary: Vocabulary, owners: Owners) -> np.ndarray:
    """Return the score of each object of each instance, float32 `[n + 1, N_o]`, as `object_scores`."""
    rows = [np.where(owners.instance_map == row, label_map, -1) for row in (*range(len(owners.instances)), -1)]
    return np.stack(
        [
            object_scores(labels, vocabulary, scores, rest)
            for labels, scores, rest in zip(rows, owners.scores, owners.rest_scores, strict=True)
        ]
    )


def counted(instances: Iterable[Instance], instance_map: np.ndarray) -> tuple[Instance, ...]:
    """Return the instances with area and box of the pixels that `instance_map`, int `[H, W]`, gives them."""
    found = {runs.label: (runs.area, runs.box) for runs in label_runs(instance_map)}
    nothing = 0, (0, 0, 0, 0)
    return tuple(
        replace(instance, area=area, box=box)
        for place, instance in enumerate(instances)
        for area, box in [found.get(place, nothing)]
    )
