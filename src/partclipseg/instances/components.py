"""Objects from the model's own first look: each connected region of an object is one.

It needs no download and no other model. Two dogs that touch are one region, and a dog behind a pole is two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from partclipseg.instances.found import FoundObject
from partclipseg.maps.crops import PredictCrops, located_objects, object_regions, resize_values
from partclipseg.maps.label_maps import LabelMaps

COMPONENTS = "components"
"""Name of this way to find objects."""


def find_components(
    predict: PredictCrops,
    photos: Sequence[np.ndarray],
    first: Sequence[LabelMaps],
    words: Sequence[str],
    present_objects: Sequence[Sequence[int]] | None,
    input_shape: tuple[int, int],
    least_area: int,
    threshold: float = 0.0,
) -> list[list[FoundObject]]:
    """Return the connected regions of objects in the first look at each photo; their score is its mean probability.

    Args:
        predict: runs the model; with `present_objects` it is asked once more, with background.
        photos: uint8 `[H, W, 3]` each, at full resolution.
        first: maps of the first look at each, `[H, W]`.
        words: object words, by the indices of the maps.
        present_objects: object indices of each photo for Oracle-Obj, else None.
        input_shape: height and width of the model's input, the size at which regions are told apart.
        least_area: minimum area of a region, in pixels of the model's input.
        threshold: minimum score of a region.
    """
    objects = located_objects(predict, photos, first, present_objects, input_shape)
    found = []
    for object_map, maps, photo in zip(objects, first, photos, strict=True):
        scores = resize_values(maps.scores.float(), input_shape).cpu().numpy()
        regions = object_regions(object_map, (photo.shape[0], photo.shape[1]), least_area)
        some = []
        for region in regions:
            top, left, bottom, right = region.edges
            score = float(scores[region.pixels].mean(dtype=np.float64))
            if score >= threshold:
                box = left, top, right - left, bottom - top
                some.append(FoundObject(words[region.object], box, min(score, 1.0), core=region.pixels))
        found.append(some)
    return found
