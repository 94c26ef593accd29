"""Average precision of objects and of object-parts, by the rules of LVIS and PACO, and COCO's beside it.

Ramanathan et al., *PACO: Parts and Attributes of Common Objects*, CVPR 2023; Gupta, Dollár, Girshick, *LVIS*, CVPR
2019; Lin et al., *Microsoft COCO*, ECCV 2014 (by pycocotools).

    counts = AveragePrecision([ApCategory("dog's ear", object=1, part="ear"), ApCategory("dog")])
    counts.update(truth, found, key="photo 1")
    counts.compute().objects.ap

In one photo LVIS counts only the categories that have a true region there or are known to be absent, and a wrong
detection of a category that is not annotated exhaustively is no error. PACO adds: a wrong part of such a category is an
error all the same if its object is annotated exhaustively, unless it lies on one of the objects to a small degree.

None of these scores asks whose a part is: see `partpq`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np

from partclipseg.counts import count_of
from partclipseg.data.regions import FoundRegion, PhotoRegions, TrueRegion
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.precision import (
    ApCategory,
    ApRule,
    RegionKind,
    ScoredPhoto,
    coco_precision,
    lvis_precision,
)
from partclipseg.evaluation.scores import without_nan
from partclipseg.evaluation.state import scored_twice
from partclipseg.vocabulary import Vocabulary


@dataclass(frozen=True)
class ApSet:
    """Average precision of a set of categories, in percent; NaN where no category has a true region."""

    ap: float
    """Mean over the thresholds of intersection over union from 0.5 to 0.95."""
    ap50: float
    ap75: float
    small: float
    """AP of regions of at most 32² pixels."""
    medium: float
    large: float
    """AP of regions of at least 96² pixels."""


@dataclass(frozen=True)
class CocoSet:
    """COCO's average precision of a set of categories, in percent."""

    ap: float
    ap50: float
    seen: float
    """AP of the categories that the model was trained on."""
    unseen: float


@dataclass(frozen=True)
class CategoryAp:
    """Average precision of one category, in percent; NaN without a true region."""

    name: str
    is_object: bool
    seen: bool
    truths: int
    """Number of true regions, crowds aside."""
    ap: float
    ap50: float
    coco_ap: float


@dataclass(frozen=True)
class ApScores:
    """Average precision of a data set."""

    photos: int
    rule: ApRule
    all: ApSet
    """Mean over all categories."""
    objects: ApSet
    """Mean over the objects: AP_obj."""
    object_parts: ApSet
    """Mean over part words of the mean over the object-parts with that word: AP_opart."""
    coco_all: CocoSet
    coco_objects: CocoSet
    coco_object_parts: CocoSet
    """Mean over the object-parts, each alike."""
    categories: tuple[CategoryAp, ...]

    @property
    def has_truth(self) -> bool:
        """Whether any category has a true region that is no crowd; without one no score means anything."""
        return any(item.truths for item in self.categories)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with None in place of NaN."""
        return without_nan(asdict(self))


class AveragePrecision:
    """True and found regions of each photo, and their average precision.

    Args:
        categories: the scored categories, in the order of the labels of the regions.
        seen: indices of the categories that the model was trained on. None: all of them.
        rule: `paco`, or `lvis` without PACO's rule for parts.
        kind: compare masks (`segm`) or boxes (`bbox`); the boxes of masks are those around them.
        most: number of detections of a photo that count, those of the highest score.

    Raises:
        UsageError: an unknown rule or kind, or no category.
    """

    def __init__(
        self,
        categories: Sequence[ApCategory],
        seen: Iterable[int] | None = None,
        rule: ApRule = "paco",
        kind: RegionKind = "segm",
        most: int = 300,
    ) -> None:
        if rule not in get_args(ApRule):
            raise UsageError(f"unknown rule {rule!r}: choose one of {', '.join(get_args(ApRule))}")
        if kind not in get_args(RegionKind):
            raise UsageError(f"unknown kind {kind!r}: choose segm or bbox")
        if not categories:
            raise UsageError("average precision needs at least one category")
        self.categories = tuple(categories)
        self.seen = frozenset(range(len(categories)) if seen is None else seen)
        self.rule: ApRule = rule
        self.kind: RegionKind = kind
        self.most = most
        self._photos: dict[str, ScoredPhoto] = {}

    def __len__(self) -> int:
        """Return the number of photos counted."""
        return len(self._photos)

    def __contains__(self, key: str) -> bool:
        return key in self._photos

    def update(self, truth: PhotoRegions, found: Sequence[FoundRegion], key: str) -> bool:
        """Add one photo; where scores are equal, the region earlier in the list and the lower key come first.

        Returns:
            False, and nothing is added, if the key was added before.

        Raises:
            PartCLIPSegError: a label that is no category.
        """
        if key in self:
            return False
        for region in (*truth.regions, *found):
            if not 0 <= region.label < len(self.categories):
                categories = count_of(len(self.categories), "category", "categories")
                raise PartCLIPSegError(f"{key}: the label {region.label} is none of the {categories}, counted from 0")
        self._photos[key] = ScoredPhoto(truth, tuple(found))
        return True

    def photos(self) -> dict[str, ScoredPhoto]:
        """Return the regions of each photo, by its key, in the order of the keys."""
        return {key: self._photos[key] for key in sorted(self._photos)}

    def compute(self) -> ApScores:
        """Compute the scores of the photos added so far."""
        photos = list(self.photos().values())
        precision = lvis_precision(photos, self.categories, self.rule, self.kind, self.most)
        coco = coco_precision(photos, len(self.categories), self.kind)
        truths = [0] * len(self.categories)
        for region in (region for photo in photos for region in photo.truth.regions):
            truths[region.label] += not region.crowd
        objects = [index for index, item in enumerate(self.categories) if item.object is None]
        by_word: dict[str, list[int]] = defaultdict(list)
        for index, item in enumerate(self.categories):
            if item.object is not None:
                by_word[item.part].append(index)
        parts = [index for members in by_word.values() for index in members]
        return ApScores(
            photos=len(photos),
            rule=self.rule,
            all=_ap_set(precision, [[index] for index in range(len(self.categories))]),
            objects=_ap_set(precision, [[index] for index in objects]),
            object_parts=_ap_set(precision, list(by_word.values())),
            coco_all=self._coco_set(coco, [*objects, *parts]),
            coco_objects=self._coco_set(coco, objects),
            coco_object_parts=self._coco_set(coco, parts),
            categories=tuple(
                CategoryAp(
                    item.name,
                    item.object is None,
                    index in self.seen,
                    truths[index],
                    _percent(precision[index, 0]),
                    _percent(precision[index, 0, 0]),
                    _percent(coco[index]),
                )
                for index, item in enumerate(self.categories)
            ),
        )

    def _coco_set(self, precision: np.ndarray, members: Sequence[int]) -> CocoSet:
        by_category = {index: _mean(precision[index]) for index in members}
        return CocoSet(
            _percent(list(by_category.values())),
            _percent([_mean(precision[index, 0]) for index in members]),
            _percent([value for index, value in by_category.items() if index in self.seen]),
            _percent([value for index, value in by_category.items() if index not in self.seen]),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all regions as plain values for `torch.save` or JSON."""
        return {
            "options": self._options(),
            "photos": {
                key: {
                    "truth": [list(region) for region in photo.truth.regions],
                    "negative": None if photo.truth.negative is None else sorted(photo.truth.negative),
                    "not_exhaustive": sorted(photo.truth.not_exhaustive),
                    "found": [list(region) for region in photo.found],
                }
                for key, photo in self._photos.items()
            },
        }

    def merge_state_dict(self, state: Mapping[str, Any]) -> None:
        """Add the photos of another instance's `state_dict` that are not here yet.

        Raises `PartCLIPSegError` if its options differ, or if a photo has other regions there.
        """
        if state["options"] != self._options():
            raise PartCLIPSegError("the scores to merge were made with other options: merge scores of one evaluation")
        for key, content in state["photos"].items():
            negative = content["negative"]
            truth = PhotoRegions(
                tuple(TrueRegion(*values) for values in content["truth"]),
                None if negative is None else frozenset(negative),
                frozenset(content["not_exhaustive"]),
            )
            photo = ScoredPhoto(truth, tuple(FoundRegion(*values) for values in content["found"]))
            if self._photos.setdefault(key, photo) != photo:
                raise scored_twice(f"photo {key!r}")

    def _options(self) -> dict[str, Any]:
        return {
            "categories": [list(item) for item in self.categories],
            "seen": sorted(self.seen),
            "rule": self.rule,
            "kind": self.kind,
            "most": self.most,
        }


def categories_of(vocabulary: Vocabulary) -> list[ApCategory]:
    """Return the categories of a vocabulary: its object-parts, then its objects."""
    place = {word: len(vocabulary) + index for index, word in enumerate(vocabulary.objects)}
    parts = (ApCategory(pair.name, place[pair.object], pair.part) for pair in vocabulary.object_parts)
    return [*parts, *(ApCategory(word) for word in vocabulary.objects)]


def _ap_set(precision: np.ndarray, groups: Sequence[Sequence[int]]) -> ApSet:
    """Average over the groups the mean over each group's categories."""

    def score(area: int, thresholds: slice | int) -> float:
        means = ([_mean(precision[index, area, thresholds]) for index in group] for group in groups)
        return _percent([_mean(group) for group in means])

    everything = slice(None)
    return ApSet(score(0, everything), score(0, 0), score(0, 5), *(score(area, everything) for area in (1, 2, 3)))


def _mean(values: Any) -> float:
    """Average what is defined; NaN where nothing is."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    known = flat[~np.isnan(flat)]
    return float(known.mean()) if len(known) else float("nan")


def _percent(values: Any) -> float:
    """Average what is defined, in percent; NaN where nothing is."""
    return 100 * _mean(values)
