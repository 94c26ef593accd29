"""Objects found in a photo, the protocol of what finds them, and suppression of those found twice."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from partclipseg.errors import UsageError

log = logging.getLogger(__name__)

MOST_OBJECTS = 32
"""Maximum number of found objects of a photo; those of the highest score are kept."""

LEAST_SIDE = 4.0
"""Minimum width and height of a found object's box within the photo, in pixels."""

SAME_WORD_IOU = 0.5
"""Greatest IoU of two found objects of one word; above it the one of lower score is dropped."""

OTHER_WORD_IOU = 0.8
"""Greatest IoU of two found objects of different words; above it they are one thing, and the lower score is dropped."""

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels; x and y of the upper left corner."""


@dataclass(frozen=True, eq=False)
class FoundObject:
    """An object in a photo: its word, its box, and its pixels if they are known."""

    object: str
    """Word of the object, one of the vocabulary's."""
    box: Box
    """x, y, width, height in pixels, as `Segment.box`; it may reach beyond the photo."""
    score: float = 1.0
    """Confidence, 0 to 1."""
    mask: np.ndarray | None = None
    """bool `[H, W]` of the photo's size: the object's pixels; None where only the box is known."""
    core: np.ndarray | None = None
    """bool `[h, w]`, stretched over the photo, of one size for all objects: pixels that are surely the object's.

    What is nearer to the core of another object of its word is not claimed for it. None where there are none.
    """

    def __post_init__(self) -> None:
        """Raise `UsageError` for values that are no word, box, score or mask."""
        if not isinstance(self.object, str) or not self.object.strip():
            raise UsageError(f"an object is named by a word, not by {self.object!r}")
        object.__setattr__(self, "box", _checked_box(self.box, self.object))
        object.__setattr__(self, "score", _checked_score(self.score, self.object))
        if self.mask is not None:
            mask = np.asarray(self.mask)
            if mask.dtype != bool or mask.ndim != 2:
                raise UsageError(
                    f"the mask of a {self.object} must be a bool array [H, W], not {mask.dtype} {list(mask.shape)}"
                )
            object.__setattr__(self, "mask", mask)

    @classmethod
    def from_corners(
        cls, word: str, x0: float, y0: float, x1: float, y1: float, score: float = 1.0, mask: np.ndarray | None = None
    ) -> FoundObject:
        """Make an object from the upper left and lower right corner of its box, in pixels."""
        return cls(word, (x0, y0, x1 - x0, y1 - y0), score, mask)

    @classmethod
    def from_mask(cls, word: str, mask: np.ndarray, score: float = 1.0) -> FoundObject:
        """Make an object from its pixels, bool `[H, W]`. Raises `UsageError` for a mask without any."""
        mask = np.asarray(mask)
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0)) if mask.ndim == 2 else ([], [])
        if len(rows) == 0:
            raise UsageError(f"the mask of a {word} has no pixel: give a bool array [H, W] with some")
        box = (int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1)
        return cls(word, box, score, mask)

    @property
    def corners(self) -> Box:
        """Return x and y of the upper left and of the lower right corner, in pixels."""
        x, y, width, height = self.box
        return x, y, x + width, y + height

    def within(self, size: tuple[int, int]) -> FoundObject:
        """Return the object with its box cut to a photo of `size` (H, W); width or height 0 where it lies outside."""
        height, width = size
        x0, y0, x1, y1 = (min(max(v, 0.0), end) for v, end in zip(self.corners, (width, height) * 2, strict=True))
        return replace(self, box=(x0, y0, x1 - x0, y1 - y0))


@runtime_checkable
class ObjectSource(Protocol):
    """Finds objects in photos, such as a detector."""

    def find(self, photos: Sequence[np.ndarray], words: Sequence[str]) -> list[list[FoundObject]]:
        """Return the objects of each photo, uint8 `[H, W, 3]` of any sizes, that `words` name.

        A threshold of the score is the source's own. What is found in a photo must not depend on the others. Boxes may
        reach beyond the photo and lie over each other: `select` sees to both.
        """
        ...


def select(found: Sequence[FoundObject], words: Collection[str], size: tuple[int, int]) -> list[FoundObject]:
    """Return the objects of one photo of `size` (H, W) that are worth a look, by score, the earlier first of equals.

    Objects of other words than `words` are dropped. Boxes are cut to the photo, and dropped where a side is shorter
    than `LEAST_SIDE`. Objects found twice are suppressed. At most `MOST_OBJECTS` remain, the others are counted in the
    log.

    Raises `UsageError` for a mask that has not the photo's size.
    """
    cut = [some.within(size) for some in found if some.object in words]
    for some in cut:
        check_mask_size(some, size, "the source")
    large = [some for some in cut if min(some.box[2:]) >= LEAST_SIDE]
    kept = suppress(large)
    if len(kept) > MOST_OBJECTS:
        log.warning("%d objects were found in a photo: the %d surest are kept", len(kept), MOST_OBJECTS)
    return kept[:MOST_OBJECTS]


def check_mask_size(some: FoundObject, size: tuple[int, int], who: str) -> None:
    """Raise `UsageError` for a mask that has not the size (H, W) of its photo; `who` names what gave it."""
    if some.mask is not None and some.mask.shape != size:
        raise UsageError(
            f"the mask of a {some.object} has {_size(some.mask.shape)} pixels, the photo {_size(size)}: {who} must "
            "give masks of the photo's size"
        )


def suppress(found: Sequence[FoundObject]) -> list[FoundObject]:
    """Return the objects by score without those that a surer one covers; of equal scores the earlier one comes first.

    An object is dropped if its IoU with one that is kept exceeds `SAME_WORD_IOU`, or `OTHER_WORD_IOU` if their words
    differ. IoU is that of masks where both have one, else of boxes.
    """
    order = sorted(found, key=lambda some: -some.score)
    if not order:
        return []
    boxes = np.array([some.corners for some in order])
    words = np.array([some.object for some in order])
    alive = np.ones(len(order), dtype=bool)
    kept = []
    for place, some in enumerate(order):
        if not alive[place]:
            continue
        kept.append(some)
        limits = np.where(words[place + 1 :] == some.object, SAME_WORD_IOU, OTHER_WORD_IOU)
        ious = box_ious(boxes[place], boxes[place + 1 :])
        if some.mask is not None:
            for other in (np.flatnonzero(alive[place + 1 :] & (ious > 0))).tolist():
                if (mask := order[place + 1 + other].mask) is not None:
                    ious[other] = mask_iou(some.mask, mask)
        alive[place + 1 :] &= ious <= limits
    return kept


def box_ious(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of a box, float `[4]`, with each of `others`, `[N, 4]`: corners x, y, x, y; 0 for empty boxes."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = sides.clip(min=0).prod(1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - common
    return np.divide(common, union, out=np.zeros(len(others)), where=union > 0)


def mask_iou(mask: np.ndarray, other: np.ndarray) -> float:
    """Return the IoU of two masks, bool `[H, W]`; 0 for two empty ones."""
    union = np.count_nonzero(mask | other)
    return np.count_nonzero(mask & other) / union if union else 0.0


def _checked_box(box: Any, word: str) -> Box:
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError):
        x = y = width = height = math.nan
    if not all(map(math.isfinite, (x, y, width, height))):
        raise UsageError(f"the box of a {word} must be four finite numbers x, y, width, height, not {box!r}")
    if width < 0 or height < 0:
        raise UsageError(f"the box of a {word} must have a width and a height of 0 or more, not {box!r}")
    return x, y, width, height


def _checked_score(score: Any, word: str) -> float:
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:
        raise UsageError(f"the score of a {word} must be a number from 0 to 1, not {score!r}")
    return value


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
