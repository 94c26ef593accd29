"""Precision at each recall of detections, by the rules of LVIS and PACO, and by pycocotools.

An array of precision has an entry for each category, area range, threshold of intersection over union and recall: the
precision at the 101 recalls from 0 to 1, NaN for a category without a truth in the range.
"""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from partclipseg.data.coco_masks import rle
from partclipseg.data.regions import FoundRegion, MaskOrBox, PhotoRegions, TrueRegion
from partclipseg.errors import PartCLIPSegError

ApRule = Literal["paco", "lvis"]
"""Rule that says which wrong detections are errors."""

RegionKind = Literal["segm", "bbox"]
"""Kind of shape that is compared: masks or boxes."""

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Intersection over union from which a detection counts as right; AP is the mean over them."""

_RECALLS = np.linspace(0.0, 1.0, 101)
_AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
"""Areas in pixels of all, small, medium and large regions; bounds belong to both."""


class ApCategory(NamedTuple):
    """An object or an object-part."""

    name: str
    object: int | None = None
    """Index of an object-part's object among the categories; None for an object."""
    part: str = ""
    """Part word of an object-part."""


class ScoredPhoto(NamedTuple):
    """True and found regions of one photo."""

    truth: PhotoRegions
    found: tuple[FoundRegion, ...]


# -- LVIS and PACO -- -------------------------------------------------------------------------------------------------


class _Matches(NamedTuple):
    """Detections of one category in one photo, highest score first; `A` area ranges, `T` thresholds."""

    scores: np.ndarray
    """float64 `[D]`."""
    right: np.ndarray
    """bool `[A, T, D]`: whether a truth was taken."""
    ignored: np.ndarray
    """bool `[A, T, D]`: neither right nor wrong."""
    truths: np.ndarray
    """int `[A]`: number of truths that count."""


def lvis_precision(
    photos: Sequence[ScoredPhoto], categories: Sequence[ApCategory], rule: ApRule, kind: RegionKind, most: int
) -> np.ndarray:
    """Return precision at each recall, float64 `[C, A, T, R]`; NaN for categories without a truth in the range."""
    matches: dict[int, list[_Matches]] = defaultdict(list)
    for photo in photos:
        found = list(photo.found)
        if len(found) > most:
            found = sorted(found, key=lambda region: -region.score)[:most]
        truth_of, found_of = _by_label(photo.truth.regions), _by_label(found)
        negative = photo.truth.negative
        for label in truth_of.keys() | found_of.keys():
            if label not in truth_of and negative is not None and label not in negative:
                continue
            item = categories[label]
            owners: list[TrueRegion] | None = None
            if rule == "paco" and item.object is not None and item.object not in photo.truth.not_exhaustive:
                owners = truth_of.get(item.object)
            exhaustive = label not in photo.truth.not_exhaustive
            matches[label].append(_match(truth_of.get(label, []), found_of.get(label, []), exhaustive, owners, kind))
    precision = np.full((len(categories), len(_AREAS), len(THRESHOLDS), len(_RECALLS)), np.nan)
    for label, members in matches.items():
        precision[label] = _precision(members)
    return precision


def _by_label(regions: Iterable[Any]) -> dict[int, list[Any]]:
    members: dict[int, list[Any]] = defaultdict(list)
    for region in regions:
        members[region.label].append(region)
    return members


def _match(
    truth: Sequence[TrueRegion],
    found: Sequence[FoundRegion],
    exhaustive: bool,
    owners: Sequence[TrueRegion] | None,
    kind: RegionKind,
) -> _Matches:
    found = sorted(found, key=lambda region: -region.score)
    low, high = (np.array(bounds)[:, None] for bounds in zip(*_AREAS, strict=True))
    areas = np.array([region.area for region in truth])
    # LVIS and PACO have no crowds; where data have some, they take any number of detections, as in COCO.
    crowd = np.array([region.crowd for region in truth], dtype=bool)
    outside = (areas < low) | (areas > high) | crowd  # [A, G]
    shape = (len(_AREAS), len(THRESHOLDS))
    right, ignored = np.zeros((2, *shape, len(found)), dtype=bool)
    iou = _overlaps(found, truth, kind)
    free = np.ones((*shape, len(truth)), dtype=bool)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)
    for place in range(len(found) if truth else 0):
        # A truth within the range is preferred; of equal ones the later.
        enough = free & (iou[place] >= least[:, None])
        inside = enough & ~outside[:, None]
        usable = np.where(inside.any(-1, keepdims=True), inside, enough)
        best = len(truth) - 1 - np.where(usable, iou[place], -1.0)[..., ::-1].argmax(-1)
        taken = usable.any(-1)
        right[..., place] = taken
        ignored[..., place] = taken & outside[np.arange(len(_AREAS))[:, None], best]
        areas_taken, thresholds_taken = np.nonzero(taken)
        free[areas_taken, thresholds_taken, best[taken]] = crowd[best[taken]]
    sizes = np.array([_area(region.region, kind) for region in found])
    off_range = (sizes < low) | (sizes > high)  # [A, D]
    excused = off_range[:, None] | np.zeros((1, len(THRESHOLDS), 1), dtype=bool)
    if not exhaustive:
        # PACO counts a wrong part as an error unless it covers a small share of one of the objects.
        excuse = np.ones((len(THRESHOLDS), len(found)), dtype=bool)
        if owners:
            share = _shares(found, owners, kind)
            excuse = (share[None] < THRESHOLDS[:, None]) & ~np.isnan(share)[None]
        excused = excused | excuse[None]
    return _Matches(
        np.array([region.score for region in found], dtype=np.float64),
        right,
        ignored | (~right & excused),
        (~outside).sum(-1),
    )


def _precision(members: Sequence[_Matches]) -> np.ndarray:
    """Return precision at each recall of one category, float64 `[A, T, R]`."""
    scores = np.concatenate([one.scores for one in members])
    order = np.argsort(-scores, kind="stable")
    right = np.concatenate([one.right for one in members], -1)[..., order]
    counted = ~np.concatenate([one.ignored for one in members], -1)[..., order]
    truths = np.sum([one.truths for one in members], 0)
    tp = np.cumsum(right & counted, -1, dtype=np.float64)
    fp = np.cumsum(~right & counted, -1, dtype=np.float64)
    precision = tp / (tp + fp + np.spacing(1))
    precision = np.maximum.accumulate(precision[..., ::-1], -1)[..., ::-1]
    result = np.full((len(_AREAS), len(THRESHOLDS), len(_RECALLS)), np.nan)
    for area, number in enumerate(truths):
        for threshold in range(len(THRESHOLDS) if number else 0):
            places = np.searchsorted(tp[area, threshold] / number, _RECALLS)
            result[area, threshold] = np.append(precision[area, threshold], 0.0)[places]
    return result


def _overlaps(found: Sequence[FoundRegion], truth: Sequence[TrueRegion], kind: RegionKind) -> np.ndarray:
    """Return intersection over union, float64 `[D, G]`; with a crowd, intersection over the area of the detection."""
    if not found or not truth:
        return np.zeros((len(found), len(truth)))
    regions = ([_region(item.region, kind) for item in items] for items in (found, truth))
    return np.asarray(rle.iou(*regions, [int(item.crowd) for item in truth]), dtype=np.float64)


def _shares(found: Sequence[FoundRegion], owners: Sequence[TrueRegion], kind: RegionKind) -> np.ndarray:
    """Return the greatest share of an object that each detection covers, float64 `[D]`; NaN for none.

    The share is |d ∩ o| / (|o| − |d ∩ o|), in PACO's form: boxes meet with one pixel more on each side, so that it may
    be negative or huge.
    """
    shares = np.full((len(found), len(owners)), np.nan)
    for row, item in enumerate(found):
        for column, owner in enumerate(owners):
            part, whole = _region(item.region, kind), _region(owner.region, kind)
            if kind == "segm":
                common = float(rle.area(rle.merge([part, whole], intersect=True)))
            else:
                edges = [
                    min(part[axis] + part[axis + 2], whole[axis] + whole[axis + 2]) - max(part[axis], whole[axis])
                    for axis in (0, 1)
                ]
                common = max(0.0, edges[0] + 1) * max(0.0, edges[1] + 1)
            if common:
                shares[row, column] = common / (_area(owner.region, kind) - common + 1e-7)
    known = ~np.isnan(shares)
    return np.where(known.any(-1), np.where(known, shares, -np.inf).max(-1, initial=-np.inf), np.nan)


def _region(region: MaskOrBox, kind: RegionKind) -> Any:
    """Return what pycocotools compares: run lengths, or a list of a box."""
    if kind == "bbox":
        return [float(value) for value in (rle.toBbox(region) if isinstance(region, dict) else region)]
    if not isinstance(region, dict):
        raise PartCLIPSegError("a region is a box, but masks are compared: give run lengths, or choose kind='bbox'")
    return region


def _area(region: MaskOrBox, kind: RegionKind) -> float:
    shape = _region(region, kind)
    return float(rle.area(shape)) if kind == "segm" else shape[2] * shape[3]


# -- COCO -- ----------------------------------------------------------------------------------------------------------


def coco_precision(photos: Sequence[ScoredPhoto], categories: int, kind: RegionKind) -> np.ndarray:
    """Return pycocotools' precision at each recall, all areas and 100 detections: float64 `[C, T, R]`, NaN for none."""
    from pycocotools import coco, cocoeval

    tools: Any = (coco.COCO, cocoeval.COCOeval)  # their stubs know whole files only
    make_table, make_evaluation = tools
    images, truth, found = [], [], []
    for number, photo in enumerate(photos):
        regions = (*photo.truth.regions, *photo.found)
        height, width = next((one.region["size"] for one in regions if isinstance(one.region, dict)), (1, 1))
        images.append({"id": number, "height": height, "width": width})
        for region in photo.truth.regions:
            own = {"area": region.area, "iscrowd": int(region.crowd), "ignore": 0}
            truth.append({**_coco_entry(region, number, len(truth), kind), **own})
        for region in photo.found:
            own = {"area": _area(region.region, kind), "score": region.score, "iscrowd": 0}
            found.append({**_coco_entry(region, number, len(found), kind), **own})
    result = np.full((categories, len(THRESHOLDS), len(_RECALLS)), np.nan)
    if not truth:
        return result
    head = {"images": images, "categories": [{"id": label} for label in range(categories)]}
    tables = []
    with contextlib.redirect_stdout(io.StringIO()):
        for entries in (truth, found):
            table = make_table()
            table.dataset = {**head, "annotations": entries}
            table.createIndex()
            tables.append(table)
        evaluation = make_evaluation(*tables, kind)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[..., 0, 0]  # [T, R, C]
    precision = np.where(precision < 0, np.nan, precision)
    return np.moveaxis(precision, 2, 0)


def _coco_entry(region: TrueRegion | FoundRegion, photo: int, number: int, kind: RegionKind) -> dict[str, Any]:
    # An id of 0 would read as "no match" in pycocotools.
    shape = {"segmentation" if kind == "segm" else "bbox": _region(region.region, kind)}
    return {"id": number + 1, "image_id": photo, "category_id": region.label, **shape}
