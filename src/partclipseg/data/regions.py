"""Regions of objects and their parts, of which each one names its owner: what AP compares.

A label map has one label a pixel; regions may overlap, as in annotation files. Labels are indices into the object-parts
of a class list, and after them into its objects: see `regions_of_maps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from partclipseg.data.coco_masks import encode_mask, rle
from partclipseg.data.sample import UNLABELLED

MaskOrBox = dict[str, Any] | tuple[float, float, float, float]
"""Compressed run lengths, as `coco.encode_mask` makes them, or a box: left, top, width, height."""


class TrueRegion(NamedTuple):
    """One annotated object, or one part word of it with all its pieces."""

    label: int
    """Index into the object-parts, or the number of object-parts plus the index of an object."""
    region: MaskOrBox
    area: float
    """Area in pixels, as the annotations state it; that of the pixels where they state none."""
    instance: int
    """Number of the object within the photo, from 0; -1 where the owner is not known."""
    crowd: bool = False
    """Whether it stands for several objects that are not told apart: nothing found there is an error."""


class FoundRegion(NamedTuple):
    """One predicted object, or one part of it."""

    label: int
    """Index of the category, with the meaning that it has in `TrueRegion`."""
    region: MaskOrBox
    score: float


@dataclass(frozen=True)
class PhotoRegions:
    """True regions of a photo, and which labels were looked for in it."""

    regions: tuple[TrueRegion, ...]
    negative: frozenset[int] | None = None
    """Labels that are known to be absent; None where every label that has no region is absent."""
    not_exhaustive: frozenset[int] = frozenset()
    """Labels of which the photo may show more than is annotated."""

    def relabelled(self, labels: Sequence[int]) -> PhotoRegions:
        """Return the regions with the label ``labels[label]`` each; what would get a negative one is left out."""

        def lists(members: frozenset[int]) -> frozenset[int]:
            return frozenset(labels[label] for label in members if labels[label] >= 0)

        return PhotoRegions(
            tuple(one._replace(label=labels[one.label]) for one in self.regions if labels[one.label] >= 0),
            None if self.negative is None else lists(self.negative),
            lists(self.not_exhaustive),
        )


def regions_of_maps(parts: np.ndarray, objects: np.ndarray, instances: np.ndarray, classes: int) -> PhotoRegions:
    """Make the regions of label maps, int32 `[H, W]` each, as in `PartSample`.

    The pixels of an object that belong to no instance are one crowd. Objects outside the vocabulary have no regions.

    Args:
        parts, objects, instances: see `PartSample`.
        classes: number of object-parts.
    """
    regions = []
    for number in np.unique(instances[instances >= 0]).tolist():
        inside = instances == number
        labels = objects[inside]
        if (labels < 0).all():
            continue
        word = int(np.bincount(labels[labels >= 0]).argmax())
        regions.append(_true_region(classes + word, inside, number))
        for part in np.unique(parts[inside & (parts >= 0)]).tolist():
            regions.append(_true_region(part, inside & (parts == part), number))
    for word in np.unique(objects[(objects >= 0) & (instances < 0)]).tolist():
        crowd = (objects == word) & (instances < 0)
        regions.append(_true_region(classes + word, crowd, UNLABELLED, crowd=True))
        for part in np.unique(parts[crowd & (parts >= 0)]).tolist():
            regions.append(_true_region(part, crowd & (parts == part), UNLABELLED, crowd=True))
    return PhotoRegions(tuple(regions))


def merge_regions(regions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Unite run lengths of one photo."""
    merged = regions[0] if len(regions) == 1 else rle.merge(list(regions))
    counts = merged["counts"]
    return {"size": merged["size"], "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def _true_region(label: int, mask: np.ndarray, instance: int, crowd: bool = False) -> TrueRegion:
    return TrueRegion(label, encode_mask(mask), float(np.count_nonzero(mask)), instance, crowd)
