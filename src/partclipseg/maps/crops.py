"""Crops of photos around single objects, and the model's label maps on them.

The second look of `inference.zoom` and the looks of `instances` share them: a crop has the shape of the model's input
and holds one object with what lies around it, at the photo's full resolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from partclipseg.maps.label_maps import BACKGROUND, LabelMaps

MARGIN = 0.25
"""Margin around an object, as a share of the larger side of its box: the model needs background for the outline."""

LARGEST_PIXEL = 2.0
"""Maximum enlargement of a photo pixel per side; more adds no detail."""

CROPS_AT_ONCE = 8
"""Number of crops per batch, or the number of photos, if that is greater."""


class PredictCrops(Protocol):
    """Type of a function that runs the model on photos of any sizes."""

    def __call__(
        self,
        photos: Sequence[np.ndarray],
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]],
        with_background: bool,
        masks: Sequence[np.ndarray] | None = None,
        /,
    ) -> list[LabelMaps]:
        """Compute the label maps of photos.

        Args:
            photos: uint8 `[H, W, 3]` each.
            sizes: height and width of each map.
            present_objects, with_background: as in `PartModel.label_maps`.
            masks: bool `[H, W]` each: the pixels of the photo's one object, for models that take them.
        """
        ...


class Crop(NamedTuple):
    """A window of a photo, in pixels, and its object."""

    object: int
    top: int
    left: int
    height: int
    width: int
    mask: np.ndarray | None = None
    """bool, of the photo's size: the pixels of the object where they are known."""

    @property
    def window(self) -> tuple[slice, slice]:
        """Return rows and columns of the photo."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class Edges(NamedTuple):
    """Edges of a region, in pixels of the photo."""

    top: float
    left: float
    bottom: float
    right: float


class ObjectRegion(NamedTuple):
    """A connected region of one object in an object map."""

    object: int
    area: int
    """Number of pixels of the map."""
    edges: Edges
    """Edges in pixels of the photo."""
    pixels: np.ndarray
    """bool, of the map's size."""


def look(
    predict: PredictCrops, work: Sequence[tuple[np.ndarray, Crop]], with_background: bool, at_once: int
) -> Iterator[tuple[Crop, LabelMaps]]:
    """Yield each crop with its maps. Batches run lazily, so that not all maps are held together.

    Args:
        predict: runs the model.
        work: photo and crop of each look; either all crops have a mask or none, for a model that takes them.
        with_background: whether background competes with the crop's object.
        at_once: number of crops per batch.
    """
    for start in range(0, len(work), at_once):
        some = work[start : start + at_once]
        crops = [crop for _, crop in some]
        masks = [crop.mask[crop.window] for crop in crops if crop.mask is not None]
        maps = predict(
            [photo[crop.window] for photo, crop in some],
            [(crop.height, crop.width) for crop in crops],
            [[crop.object] for crop in crops],
            with_background,
            masks if len(masks) == len(crops) else None,
        )
        yield from zip(crops, maps, strict=True)


def located_objects(
    predict: PredictCrops,
    photos: Sequence[np.ndarray],
    first: Sequence[LabelMaps],
    present_objects: Sequence[Sequence[int]] | None,
    input_shape: tuple[int, int],
) -> np.ndarray:
    """Return where the first look has found which object, int64 `[B, h, w]` of `input_shape`, background -1.

    With `present_objects` (Oracle-Obj) the first look has no background, so the photos are segmented once more.
    """
    objects = torch.stack([resize_label_map(maps.object_map, input_shape) for maps in first]).cpu().numpy()
    if present_objects is not None:
        found = predict(photos, [input_shape] * len(photos), present_objects, True)
        objects[torch.stack([maps.object_map for maps in found]).cpu().numpy() == BACKGROUND] = BACKGROUND
    return objects


def object_regions(object_map: np.ndarray, photo_size: tuple[int, int], least_area: int) -> Iterator[ObjectRegion]:
    """Yield the connected regions of each object that have at least `least_area` pixels, the largest first.

    Args:
        object_map: integers `[h, w]`: object, or -1 for background.
        photo_size: height and width of the photo, whose pixels the edges are in.
        least_area: pixels of `object_map` that a region must have.
    """
    regions = connected_regions(object_map)
    areas = np.bincount(regions.ravel())
    rows_scale, columns_scale = (photo / map_ for photo, map_ in zip(photo_size, object_map.shape, strict=True))
    for region in np.argsort(-areas, kind="stable"):
        if areas[region] < least_area:
            return
        pixels = regions == region
        rows, columns = np.nonzero(pixels)
        index = int(object_map[rows[0], columns[0]])
        if index == BACKGROUND:
            continue
        edges = Edges(
            rows.min() * rows_scale,
            columns.min() * columns_scale,
            (rows.max() + 1) * rows_scale,
            (columns.max() + 1) * columns_scale,
        )
        yield ObjectRegion(index, int(areas[region]), edges, pixels)


def crop_around(index: int, edges: Edges, input_shape: tuple[int, int], photo_size: tuple[int, int]) -> Crop:
    """Return the window around an object: its box with `MARGIN`, in the shape of the model's input.

    A photo pixel is enlarged at most `LARGEST_PIXEL` times. At the photo's edges the window is moved inside, and cut to
    the photo where it is larger.
    """
    height, width = input_shape
    # Number of photo pixels per pixel of the model's input.
    scale = max((edges.bottom - edges.top) / height, (edges.right - edges.left) / width) * (1 + 2 * MARGIN)
    scale = max(scale, 1 / LARGEST_PIXEL)
    top, rows = _place((edges.top + edges.bottom) / 2, scale * height, photo_size[0])
    left, columns = _place((edges.left + edges.right) / 2, scale * width, photo_size[1])
    return Crop(index, top, left, rows, columns)


def _place(centre: float, length: float, limit: int) -> tuple[int, int]:
    """Return start and length of an interval of whole pixels around `centre`, within 0 and `limit`."""
    pixels = min(math.ceil(length), limit)
    return min(max(round(centre - pixels / 2), 0), limit - pixels), pixels


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


def resize_label_map(labels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize integers `[H, W]`, below 2^24, to `size`: the label under the centre of each new pixel."""
    return resize_values(labels.float(), size).long()


def resize_values(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize floats `[H, W]` to `size`: the value under the centre of each new pixel."""
    return F.interpolate(values[None, None], size, mode="nearest-exact")[0, 0]
