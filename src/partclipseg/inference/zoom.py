"""Two-pass prediction for small parts: on the whole photo, then on a crop around each small object.

The first pass is the ordinary prediction, on the photo resized to the model's input. It locates the objects, but an
object that takes a tenth of the photo's side covers only a few patches. The second pass runs the model on a crop
around each such object, cut from the photo at full resolution.

The first pass decides which objects there are, the second which parts their pixels belong to:

- Pred-All: on a crop, the crop's object competes with background alone. The winner, a part of the object or
  background, replaces the first pass's label at the pixels of the crop that were that object or background. So the
  second pass may move the outline of its object and decides its parts; other objects' pixels stay unchanged.
- Oracle-Obj: the objects of the photo are known, there is no background, and the first pass decides the object of
  each pixel. The second pass decides the part of the crop's pixels that belong to its object.

Where crops overlap, the most probable winner decides, and of equal ones that of the larger object.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import torch

from partclipseg.maps.crops import (
    CROPS_AT_ONCE,
    Crop,
    Edges,
    PredictCrops,
    crop_around,
    located_objects,
    look,
    object_regions,
)
from partclipseg.maps.label_maps import BACKGROUND, LabelMaps

LEAST_GAIN = 1.5
"""Minimum enlargement of an object per side, relative to the whole photo, for a crop to be used."""

MOST_CROPS = 8
"""Maximum number of crops of a photo; the largest objects come first."""


@torch.inference_mode()
def look_again(
    predict: PredictCrops,
    photos: Sequence[np.ndarray],
    first: Sequence[LabelMaps],
    present_objects: Sequence[Sequence[int]] | None,
    input_shape: tuple[int, int],
    least_area: int,
) -> list[LabelMaps]:
    """Compute label maps from both passes; a photo without small objects keeps those of the first.

    Args:
        predict: runs the model.
        photos: uint8 `[H, W, 3]` each, at full resolution.
        first: result of the first pass for each, `[H, W]`, by Pred-All or with `present_objects` by Oracle-Obj.
        present_objects: object indices of each photo for Oracle-Obj. The first pass then has no background, so the
            photos are segmented once more to locate the objects.
        input_shape: height and width of the model's input.
        least_area: minimum area of a connected region of an object, in pixels of the model's input.
    """
    objects = located_objects(predict, photos, first, present_objects, input_shape)
    crops = [
        find_crops(object_map, (photo.shape[0], photo.shape[1]), least_area)
        for object_map, photo in zip(objects, photos, strict=True)
    ]
    with_background = present_objects is None
    work = [(photo, crop) for photo, its_crops in zip(photos, crops, strict=True) for crop in its_crops]
    looks = look(predict, work, with_background, max(CROPS_AT_ONCE, len(photos)))
    return [
        merge_looks(maps, islice(looks, len(its_crops)), with_background) if its_crops else maps
        for maps, its_crops in zip(first, crops, strict=True)
    ]


def merge_looks(first: LabelMaps, looks: Iterable[tuple[Crop, LabelMaps]], with_background: bool) -> LabelMaps:
    """Return the first pass's maps `[H, W]`, updated with `looks`: crops and maps of their sizes.

    `with_background`: crops may turn background into their object and their object into background (Pred-All).
    """
    maps = LabelMaps(*(values.clone() for values in first))
    surest = torch.full_like(first.scores, -1.0)
    for crop, seen in looks:
        before = first.object_map[crop.window]
        decided = seen.scores > surest[crop.window]
        decided &= (before == crop.object) | (before == BACKGROUND) if with_background else before == crop.object
        for whole, part in zip((*maps, surest), (*seen, seen.scores), strict=True):
            whole[crop.window] = torch.where(decided, part, whole[crop.window])
    return maps


def find_crops(object_map: np.ndarray, photo_size: tuple[int, int], least_area: int) -> list[Crop]:
    """Return windows around small connected regions of each object for the second pass, the largest region first.

    A window has the shape of the model's input, as far as the photo allows, so that the object is not distorted; at
    the photo's edges it is moved inside. Regions are skipped that are too small (`least_area`), already large
    (`LEAST_GAIN`), in the window of a larger region of the same object, or after the first `MOST_CROPS`.

    Args:
        object_map: integers `[h, w]`, of the size of the model's input: object, or -1 for background.
        photo_size: height and width of the photo.
        least_area: pixels of `object_map` that a region must have.
    """
    crops: list[Crop] = []
    for region in object_regions(object_map, photo_size, least_area):
        if len(crops) == MOST_CROPS:
            break
        crop = crop_around(region.object, region.edges, (object_map.shape[0], object_map.shape[1]), photo_size)
        gain = math.sqrt(photo_size[0] * photo_size[1] / (crop.height * crop.width))
        others = (other for other in crops if other.object == region.object)
        if gain >= LEAST_GAIN and not any(_is_inside(region.edges, other) for other in others):
            crops.append(crop)
    return crops


def _is_inside(box: Edges, crop: Crop) -> bool:
    return (
        crop.top <= box.top
        and crop.left <= box.left
        and box.bottom <= crop.top + crop.height
        and box.right <= crop.left + crop.width
    )
