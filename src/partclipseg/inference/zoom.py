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
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from partclipseg.maps.label_maps import BACKGROUND, LabelMaps

MARGIN = 0.25
"""Margin around an object, as a share of the larger side of its box: the model needs background for the outline."""

LEAST_GAIN = 1.5
"""Minimum enlargement of an object per side, relative to the whole photo, for a crop to be used."""

LARGEST_PIXEL = 2.0
"""Maximum enlargement of a photo pixel per side; more adds no detail."""

MOST_CROPS = 8
"""Maximum number of crops of a photo; the largest objects come first."""

CROPS_AT_ONCE = 8
"""Number of crops per batch, or the number of photos, if that is greater."""


Predict = Callable[[Sequence[np.ndarray], Sequence[tuple[int, int]], Sequence[Sequence[int]], bool], list[LabelMaps]]
"""Function that runs the model on photos uint8 `[H, W, 3]` of any sizes: photos, sizes of the maps, and, as in
`pruned_maps`, the objects that each may show and whether background competes with them."""


class Crop(NamedTuple):
    """A window of a photo, in pixels, and its object."""

    object: int
    top: int
    left: int
    height: int
    width: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Return rows and columns of the photo."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class _Box(NamedTuple):
    """Edges of a region, in pixels of the photo."""

    top: float
    left: float
    bottom: float
    right: float


@torch.inference_mode()
def look_again(
    predict: Predict,
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
    objects = torch.stack([_resize_labels(maps.object_map, input_shape) for maps in first]).cpu().numpy()
    if present_objects is not None:
        found = predict(photos, [input_shape] * len(photos), present_objects, True)
        objects[torch.stack([maps.object_map for maps in found]).cpu().numpy() == BACKGROUND] = BACKGROUND
    crops = [
        find_crops(object_map, (photo.shape[0], photo.shape[1]), least_area)
        for object_map, photo in zip(objects, photos, strict=True)
    ]
    with_background = present_objects is None
    work = [(photo, crop) for photo, its_crops in zip(photos, crops, strict=True) for crop in its_crops]
    looks = _look(predict, work, with_background, max(CROPS_AT_ONCE, len(photos)))
    return [
        compose(maps, islice(looks, len(its_crops)), with_background) if its_crops else maps
        for maps, its_crops in zip(first, crops, strict=True)
    ]


def _look(
    predict: Predict, work: Sequence[tuple[np.ndarray, Crop]], with_background: bool, at_once: int
) -> Iterator[tuple[Crop, LabelMaps]]:
    """Yield each crop with its maps. Batches run lazily, so that not all maps are held together."""
    for start in range(0, len(work), at_once):
        some = work[start : start + at_once]
        crops = [crop for _, crop in some]
        maps = predict(
            [photo[crop.window] for photo, crop in some],
            [(crop.height, crop.width) for crop in crops],
            [[crop.object] for crop in crops],
            with_background,
        )
        yield from zip(crops, maps, strict=True)


def compose(first: LabelMaps, looks: Iterable[tuple[Crop, LabelMaps]], with_background: bool) -> LabelMaps:
    """Return the first pass's maps `[H, W]`, updated with `looks`: crops and maps of their sizes.

    `with_background`: crops may turn background into their object and their object into background (Pred-All).
    """
    maps = LabelMaps(*(values.clone() for values in first))
    surest = torch.full_like(first.scores, -1.0)
    for crop, look in looks:
        before = first.object_map[crop.window]
        decided = look.scores > surest[crop.window]
        decided &= (before == crop.object) | (before == BACKGROUND) if with_background else before == crop.object
        for whole, part in zip((*maps, surest), (*look, look.scores), strict=True):
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
    regions = connected_regions(object_map)
    areas = np.bincount(regions.ravel())
    rows_scale, columns_scale = (photo / map_ for photo, map_ in zip(photo_size, object_map.shape, strict=True))
    crops: list[Crop] = []
    for region in np.argsort(-areas, kind="stable"):
        if areas[region] < least_area or len(crops) == MOST_CROPS:
            break
        rows, columns = np.nonzero(regions == region)
        index = int(object_map[rows[0], columns[0]])
        if index == BACKGROUND:
            continue
        box = _Box(
            rows.min() * rows_scale,
            columns.min() * columns_scale,
            (rows.max() + 1) * rows_scale,
            (columns.max() + 1) * columns_scale,
        )
        crop = _crop_around(index, box, (object_map.shape[0], object_map.shape[1]), photo_size)
        gain = math.sqrt(photo_size[0] * photo_size[1] / (crop.height * crop.width))
        if gain >= LEAST_GAIN and not any(_is_inside(box, other) for other in crops if other.object == index):
            crops.append(crop)
    return crops


def _crop_around(index: int, box: _Box, input_shape: tuple[int, int], photo_size: tuple[int, int]) -> Crop:
    height, width = input_shape
    # Number of photo pixels per pixel of the model's input.
    scale = max((box.bottom - box.top) / height, (box.right - box.left) / width) * (1 + 2 * MARGIN)
    scale = max(scale, 1 / LARGEST_PIXEL)
    top, rows = _place((box.top + box.bottom) / 2, scale * height, photo_size[0])
    left, columns = _place((box.left + box.right) / 2, scale * width, photo_size[1])
    return Crop(index, top, left, rows, columns)


def _place(centre: float, length: float, limit: int) -> tuple[int, int]:
    """Return start and length of an interval of whole pixels around `centre`, within 0 and `limit`."""
    pixels = min(math.ceil(length), limit)
    return min(max(round(centre - pixels / 2), 0), limit - pixels), pixels


def _is_inside(box: _Box, crop: Crop) -> bool:
    return (
        crop.top <= box.top
        and crop.left <= box.left
        and box.bottom <= crop.top + crop.height
        and box.right <= crop.left + crop.width
    )


def connected_regions(labels: np.ndarray) -> np.ndarray:
    """Return int64 `[H, W]`: a number from 0 for each 4-connected region of equal values of `labels [H, W]`."""
    # Regions are joined from runs of equal values in a row, which are far fewer than pixels.
    starts = np.ones(labels.shape, bool)
    starts[:, 1:] = labels[:, 1:] != labels[:, :-1]
    runs = starts.cumsum().reshape(labels.shape) - 1
    # Two runs touch if they share a column; the start of the later one is such a column.
    touching = (labels[1:] == labels[:-1]) & (starts[1:] | starts[:-1])
    upper, lower = runs[:-1][touching], runs[1:][touching]
    root = np.arange(runs[-1, -1] + 1)
    while (split := root[upper] != root[lower]).any():
        pair = np.stack([root[upper][split], root[lower][split]])
        np.minimum.at(root, pair.max(0), pair.min(0))
        root = root[root]
    return np.unique(root, return_inverse=True)[1][runs]


def _resize_labels(labels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize integers `[H, W]`, below 2^24, to `size`: the label under the centre of each new pixel."""
    return F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0].long()
