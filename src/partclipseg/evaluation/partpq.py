"""PartPQ: panoptic quality whose segments are compared part by part, so that a part counts only for its owner.

de Geus, Meletis, Lu, Wen, Dubbelman, *Part-aware Panoptic Segmentation*, CVPR 2021.

    counts = PartPQ([PanopticClass("dog", parts=True), PanopticClass("background", thing=False)])
    counts.update(truth, prediction, key="photo 1")
    counts.compute().all.pq

A predicted segment is matched with the true one that it shares more than half of their union with. A matched segment
of a class with parts contributes the mean over its part labels of intersection over union, the surroundings of the
segment being one label of them; one of a class without parts contributes its own intersection over union.

Two properties of this score surprise: the surroundings have an IoU near 1 and lift every segment, and nothing that is
predicted on void counts as wrong. Where the background is known, make it a class: see `docs/protocols.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.scores import without_nan
from partclipseg.evaluation.state import scored_twice

NOTHING = -1
"""Class of void in the truth and of no prediction; number of no instance; part of no part."""

BACKGROUND = "background"
"""Name of the class of all that is no object, where the labels cover every object."""

UNKNOWN_PART = -2
"""Part of a predicted pixel whose part is left open: it is a wrong pixel, but no label that a mean includes."""


class PanopticClass(NamedTuple):
    """One evaluated class."""

    name: str
    parts: bool = False
    """Whether its segments are compared part by part."""
    thing: bool = True
    """Whether it has instances; pixels of a thing without an instance are a crowd."""


class PanopticMaps(NamedTuple):
    """Class, instance and part of every pixel, integers `[H, W]` each."""

    classes: np.ndarray
    """Index of the class, or `NOTHING`: void in the truth, where nothing counts."""
    instances: np.ndarray
    """Number of the instance, from 0, or `NOTHING`: in the truth a crowd of a thing, and number 0 of what is none."""
    parts: np.ndarray
    """Index of the part within its class, `NOTHING`, or `UNKNOWN_PART`, which is read in predictions alone."""


@dataclass(frozen=True)
class QualityScores:
    """Scores in percent; NaN where no class defines them."""

    pq: float
    """Part-aware panoptic quality: the sum of contributions over tp + fp / 2 + fn / 2."""
    sq: float
    """Segmentation quality: the mean contribution of matched segments."""
    rq: float
    """Recognition quality: tp over tp + fp / 2 + fn / 2."""
    classes: int
    """Number of classes that occur in the truth or the predictions."""


@dataclass(frozen=True)
class ClassQuality:
    """Scores of one class in percent, NaN for one that does not occur, and its numbers of segments."""

    name: str
    parts: bool
    pq: float
    sq: float
    rq: float
    tp: int
    """Matched segments."""
    fp: int
    """Predicted segments without a partner."""
    fn: int
    """True segments without a partner."""


@dataclass(frozen=True)
class PartPQScores:
    """PartPQ of a data set: means over the classes that occur, and every class."""

    photos: int
    all: QualityScores
    with_parts: QualityScores
    without_parts: QualityScores
    classes: tuple[ClassQuality, ...]

    @property
    def has_truth(self) -> bool:
        """Whether any object is to be found, beside crowds and background; without one no score means anything."""
        return any(item.tp + item.fn for item in self.classes if item.name != BACKGROUND)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with None in place of NaN."""
        return without_nan(asdict(self))


class PartPQ:
    """Counts of matched segments by class, stored per photo, so that no photo is counted twice.

    Args:
        classes: the evaluated classes, in the order of the indices of the maps.

    Raises:
        UsageError: no class, or two of one name.
    """

    def __init__(self, classes: Sequence[PanopticClass]) -> None:
        if not classes or len({item.name for item in classes}) < len(classes):
            raise UsageError("PartPQ needs at least one class, and names that differ: rename one of two that agree")
        self.classes = tuple(classes)
        self._records: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        """Return the number of photos counted."""
        return len(self._records)

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def update(self, truth: PanopticMaps, prediction: PanopticMaps, key: str) -> bool:
        """Count one photo.

        Args:
            truth, prediction: maps of one size.
            key: name of the photo.

        Returns:
            False, and nothing is counted, if the key was counted before.

        Raises:
            PartCLIPSegError: maps of different sizes, or a class that is not in the list.
        """
        if key in self:
            return False
        self._records[key] = count_segments(truth, prediction, self.classes)
        return True

    def record(self, key: str) -> np.ndarray:
        """Return tp, fp, fn and the sum of contributions of each class in one photo, float64 `[C, 4]`."""
        return self._records[key].copy()

    def running(self) -> float:
        """Return PartPQ in percent of the photos counted so far, for a progress display; NaN before the first."""
        return self.compute().all.pq

    def compute(self) -> PartPQScores:
        """Compute the scores of the photos counted so far."""
        zero = np.zeros((len(self.classes), 4))
        # The order of the sum is fixed, so that the last digit does not depend on the processes.
        totals = sum((self._records[key] for key in sorted(self._records)), zero)
        classes = tuple(_class_quality(item, *row) for item, row in zip(self.classes, totals.tolist(), strict=True))
        occurring = [item for item in classes if item.tp + item.fp + item.fn]
        return PartPQScores(
            photos=len(self),
            all=_mean(occurring),
            with_parts=_mean([item for item in occurring if item.parts]),
            without_parts=_mean([item for item in occurring if not item.parts]),
            classes=classes,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all counts, as tensors and plain values for `torch.save`."""
        empty = np.empty((0, len(self.classes), 4))
        counts = np.concatenate([empty, *(record[None] for record in self._records.values())])
        return {
            "classes": [list(item) for item in self.classes],
            "keys": list(self._records),
            "counts": torch.from_numpy(counts),
        }

    def merge_state_dict(self, state: Mapping[str, Any]) -> None:
        """Add the photos of another instance's `state_dict` that are not counted here yet.

        Raises `PartCLIPSegError` if its classes differ, or if a photo has other counts there.
        """
        if state["classes"] != [list(item) for item in self.classes]:
            raise PartCLIPSegError("the scores to merge were made with other classes: merge scores of one evaluation")
        for key, record in zip(state["keys"], state["counts"].numpy(), strict=True):
            if key in self and not np.array_equal(self._records[key], record):
                raise scored_twice(f"photo {key!r}")
            self._records[key] = record


def count_segments(truth: PanopticMaps, prediction: PanopticMaps, classes: Sequence[PanopticClass]) -> np.ndarray:
    """Count the segments of one photo: tp, fp, fn and the sum of contributions of each class, float64 `[C, 4]`.

    Raises:
        PartCLIPSegError: maps of different sizes, or a class that is not in the list.
    """
    _check(truth, prediction, len(classes))
    with_parts = np.array([item.parts for item in classes])
    # 1. Void, crowds, and the true segments that remain.
    void = truth.classes == NOTHING
    things = np.array([*(item.thing for item in classes), False])[truth.classes]  # void is -1: the last entry
    unnumbered = truth.instances < 0
    crowd = np.where(things & unnumbered, truth.classes, NOTHING)
    truth = truth._replace(instances=np.where(unnumbered, 0, truth.instances))  # crowds are no segments: see `owned`
    owned = ~void & (crowd == NOTHING)
    true_map, true_classes = _segments(truth, owned)
    known = np.bincount(true_map[owned], truth.parts[owned] >= 0, len(true_classes)) > 0
    unscored = with_parts[true_classes] & ~known
    if unscored.any():
        # Without any part label a segment of a class with parts cannot be scored: it joins the crowd.
        dropped = owned & np.append(unscored, False)[true_map]
        crowd[dropped] = truth.classes[dropped]
        owned &= ~dropped
        true_map, true_classes = _segments(truth, owned)
    # 2. Overlaps of all pairs of segments.
    found_map, found_classes = _segments(prediction, prediction.classes >= 0)
    shared = _joint(true_map, found_map, len(true_classes), len(found_classes))
    true_areas = np.bincount(true_map[owned], minlength=len(true_classes))
    found_areas = np.bincount(found_map[found_map >= 0], minlength=len(found_classes))
    on_void = np.bincount(found_map[void & (found_map >= 0)], minlength=len(found_classes))
    crowded = (found_map >= 0) & (crowd >= 0) & (crowd == prediction.classes)
    on_crowd = np.bincount(found_map[crowded], minlength=len(found_classes))
    union = true_areas[:, None] + found_areas[None] - shared - on_void[None]
    iou = np.where(true_classes[:, None] == found_classes[None], shared / np.maximum(union, 1), 0.0)
    # 3. Matches: above one half a segment has at most one partner.
    counts = np.zeros((len(classes), 4))
    matched = np.zeros(len(found_classes), dtype=bool)
    for segment, partner in zip(*np.nonzero(iou > 0.5), strict=True):
        label = true_classes[segment]
        contribution = float(iou[segment, partner])
        if with_parts[label]:
            inside = true_map == segment
            scored = ~(void | (crowd == label) | (inside & (truth.parts < 0)))
            contribution = part_iou(
                np.where(inside, truth.parts, NOTHING)[scored],
                np.where(found_map == partner, prediction.parts, NOTHING)[scored],
            )
        counts[label] += np.array((1, 0, 0, contribution))
        matched[partner] = True
    # 4. The others. A prediction that lies on void and crowd for the most part is no error.
    missed = np.bincount(true_classes, minlength=len(classes)) - counts[:, 0]
    wrong = ~matched & ((on_void + on_crowd) / np.maximum(found_areas, 1) <= 0.5)
    counts[:, 1] = np.bincount(found_classes[wrong], minlength=len(classes))
    counts[:, 2] = missed
    return counts


def part_iou(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the mean IoU over the labels of either, integers of one shape with values from `UNKNOWN_PART` up.

    `NOTHING`, which stands for the surroundings, is one of the labels; `UNKNOWN_PART` is none.
    """
    size = int(max(truth.max(initial=NOTHING), prediction.max(initial=NOTHING))) + 3
    table = np.bincount((truth + 2) * size + prediction + 2, minlength=size * size).reshape(size, size)
    same = np.diagonal(table)
    union = table.sum(0) + table.sum(1) - same
    occurring = union > 0
    occurring[0] = False  # UNKNOWN_PART
    return float(np.mean(same[occurring] / union[occurring]))


def _segments(maps: PanopticMaps, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the (class, instance) pairs at the pixels `where`: int64 `[H, W]` with -1 elsewhere, and their classes."""
    numbers = np.full(where.shape, -1, dtype=np.int64)
    pairs = np.stack((maps.classes[where], maps.instances[where]), axis=1)
    if not len(pairs):
        return numbers, np.zeros(0, dtype=np.int64)
    low = int(pairs[:, 1].min())
    span = int(pairs[:, 1].max()) - low + 1
    found, inverse = np.unique(pairs[:, 0].astype(np.int64) * span + pairs[:, 1] - low, return_inverse=True)
    numbers[where] = inverse
    return numbers, found // span


def _joint(first: np.ndarray, second: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Count the pixels of each pair of segments, int64 `[rows, columns]`."""
    both = (first >= 0) & (second >= 0)
    return np.bincount(first[both] * columns + second[both], minlength=rows * columns).reshape(rows, columns)


def _check(truth: PanopticMaps, prediction: PanopticMaps, classes: int) -> None:
    for what, maps in (("truth", truth), ("prediction", prediction)):
        if len({np.shape(values) for values in (*maps, truth.classes)}) > 1:
            shapes = ", ".join(str(list(np.shape(values))) for values in maps)
            raise PartCLIPSegError(
                f"the maps of the {what} have the sizes {shapes}, the truth {list(np.shape(truth.classes))}: bring "
                "them to the size of the photo"
            )
        low, high = int(maps.classes.min(initial=NOTHING)), int(maps.classes.max(initial=NOTHING))
        if low < NOTHING or high >= classes:
            wrong = low if low < NOTHING else high
            raise PartCLIPSegError(
                f"the {what} has the class {wrong}; there are the classes 0 to {classes - 1}, and -1 means none"
            )
        low = int(maps.parts.min(initial=NOTHING))
        if low < (UNKNOWN_PART if what == "prediction" else NOTHING):
            raise PartCLIPSegError(f"the {what} has the part {low}: parts are counted from 0, and -1 means none")


def _class_quality(item: PanopticClass, tp: float, fp: float, fn: float, total: float) -> ClassQuality:
    segments = tp + fp / 2 + fn / 2
    pq, sq, rq = float("nan"), float("nan"), float("nan")
    if segments:
        pq, sq, rq = 100 * total / segments, 100 * total / tp if tp else 0.0, 100 * tp / segments
    return ClassQuality(item.name, item.parts, pq, sq, rq, int(tp), int(fp), int(fn))


def _mean(classes: Sequence[ClassQuality]) -> QualityScores:
    if not classes:
        return QualityScores(float("nan"), float("nan"), float("nan"), 0)
    means = (float(np.mean([getattr(item, name) for item in classes])) for name in ("pq", "sq", "rq"))
    return QualityScores(*means, classes=len(classes))
