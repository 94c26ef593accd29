"""Decide which pixels of a photo each found object owns, and which of its parts they are.

Each object is looked at on a crop of its own, at full resolution, with only its own parts in the running. With a mask
the parts share all its pixels; with a box alone, background competes, and what the look calls a part inside the box is
the object's. Found boxes are grown by `GROWTH`, given ones are not; the crop is that of the box as it was found, since
a larger one shows the object smaller.

Where two objects claim a pixel, a mask goes before a box, the smaller of two masks before the larger (a rider on a
horse), and of two boxes the one in which the pixel lies more centrally: the looks themselves cannot tell whose a leg
is, since both see the same leg. Of two objects with cores, neither claims what is nearer to the other's core.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from partclipseg.counts import count_of, noun
from partclipseg.instances.found import FoundObject
from partclipseg.maps.crops import CROPS_AT_ONCE, Crop, Edges, PredictCrops, crop_around, look
from partclipseg.maps.label_maps import BACKGROUND, LabelMaps

log = logging.getLogger(__name__)

GROWTH = 0.1
"""Share of its sides by which a found box is grown each way: detectors cut ears and tails off. It is less than the
margin of a crop, which therefore shows the grown box whole."""

STEPS = 12
"""Maximum distance from a core, in pixels of its map, at which it is told which of two is nearer."""


class OwnedMaps(NamedTuple):
    """Maps of one photo of size `H × W`, and the owner of each pixel."""

    maps: LabelMaps
    instance_map: Tensor
    """int64 `[H, W]`: index into the photo's objects, -1 none."""
    in_mask: Tensor
    """bool `[H, W]`: pixels of objects with a mask, which their parts share."""


def in_order(found: Sequence[FoundObject]) -> list[FoundObject]:
    """Return the objects in the order of their numbers: by score, the larger box first, then as they are listed."""
    return sorted(found, key=lambda some: (-some.score, -some.box[2] * some.box[3]))


@torch.inference_mode()
def look_at_objects(
    predict: PredictCrops,
    photos: Sequence[np.ndarray],
    found: Sequence[Sequence[FoundObject]],
    object_index: Callable[[str], int],
    first: Sequence[LabelMaps],
    input_shape: tuple[int, int],
    growth: float = GROWTH,
) -> list[OwnedMaps]:
    """Look at each object of each photo, and return the maps that say whose each pixel is.

    The looks of all photos go through the model together. Their maps are painted as they come, so that only those of
    one batch are held.

    Args:
        predict: runs the model.
        photos: uint8 `[H, W, 3]` each, at full resolution.
        found: objects of each photo, in the order of their numbers, with boxes within the photo.
        object_index: index of an object word.
        first: maps of each photo, `[H, W]`, that stay where no object claims a pixel: those of the first look, or
            background. Where a look at an object calls background what the first look called that object, it is
            background.
        input_shape: height and width of the model's input.
        growth: share of its sides by which a box is grown each way for what its object may own; masks are taken as
            they are.
    """
    canvases = [_Canvas(maps, some) for maps, some in zip(first, found, strict=True)]
    at_once = max(CROPS_AT_ONCE, len(photos))
    # Background competes on crops without a mask, so that these and the others go through the model apart.
    for with_mask in (True, False):
        work: list[tuple[np.ndarray, Crop]] = []
        places: list[tuple[_Canvas, int]] = []
        for photo, canvas, objects in zip(photos, canvases, found, strict=True):
            for place, some in enumerate(objects):
                if (some.mask is not None) == with_mask:
                    size = photo.shape[0], photo.shape[1]
                    edges = object_edges(some, 0.0, size)
                    crop = crop_around(object_index(some.object), edges, input_shape, size)
                    work.append((photo, crop._replace(mask=some.mask)))
                    places.append((canvas, place))
                    canvas.edges[place] = object_edges(some, growth, size)
        looks = look(predict, work, not with_mask, at_once)
        for (canvas, place), (crop, maps) in zip(places, looks, strict=True):
            canvas.paint(place, crop, maps)
    return [canvas.result() for canvas in canvases]


def object_edges(some: FoundObject, growth: float, size: tuple[int, int]) -> Edges:
    """Return the edges of an object: of its mask if it has one, else of its box, grown and cut to the photo (H, W)."""
    if some.mask is not None:
        rows, columns = (np.flatnonzero(some.mask.any(axis)) for axis in (1, 0))
        if len(rows):
            return Edges(float(rows[0]), float(columns[0]), float(rows[-1] + 1), float(columns[-1] + 1))
        growth = 0.0
    left, top, right, bottom = some.corners
    across, down = growth * (right - left), growth * (bottom - top)
    return Edges(
        max(top - down, 0.0), max(left - across, 0.0), min(bottom + down, size[0]), min(right + across, size[1])
    )


class _Canvas:
    """Maps of one photo, painted look by look; the outcome does not depend on the order of the looks."""

    def __init__(self, first: LabelMaps, found: Sequence[FoundObject]) -> None:
        self.edges: dict[int, Edges] = {}
        self._found = found
        self._maps = LabelMaps(*(values.clone() for values in first))
        self._instances = torch.full_like(first.label_map, -1)
        # The lower claim of two wins: masks have negative ones, boxes those of `_centrality`.
        self._claims = torch.full_like(first.scores, torch.inf, dtype=torch.float32)
        areas = [0 if some.mask is None else int(np.count_nonzero(some.mask)) for some in found]
        by_area = sorted(range(len(found)), key=lambda place: areas[place])
        self._territories = _territories(found)
        self._ranks = {place: float(rank - len(found)) for rank, place in enumerate(by_area)}

    def paint(self, place: int, crop: Crop, look: LabelMaps) -> None:
        """Give the object at `place` the pixels that it claims: `look` are the maps of its crop."""
        mask = self._found[place].mask
        held, claims = self._instances[crop.window], self._claims[crop.window]
        before = self._maps.object_map[crop.window]
        if mask is not None:
            claimed = torch.from_numpy(np.ascontiguousarray(mask[crop.window])).to(held.device)
            claim = torch.full_like(claims, self._ranks[place])
        else:
            claim, inside = _centrality(crop, self.edges[place])
            if (territory := self._territories[place]) is not None:
                inside &= _stretched(territory, crop, self._instances.shape)
            claim, inside = claim.to(held.device), inside.to(held.device)
            # A look knows better than the first one what of its object is background.
            gone = inside & (look.object_map == BACKGROUND) & (before == crop.object) & (held < 0)
            for whole, part in zip(self._maps, look, strict=True):
                whole[crop.window] = torch.where(gone, part, whole[crop.window])
            claimed = inside & (look.object_map == crop.object)
        # Not in place: on the CPU the tensor of a mask is the caller's own array.
        claimed = claimed & ((claim < claims) | ((claim == claims) & (place < held)))
        for whole, part in zip(self._maps, look, strict=True):
            whole[crop.window] = torch.where(claimed, part, whole[crop.window])
        self._instances[crop.window] = torch.where(claimed, place, held)
        self._claims[crop.window] = torch.where(claimed, claim, claims)

    def result(self) -> OwnedMaps:
        return OwnedMaps(self._maps, self._instances, self._claims < 0)


def _centrality(crop: Crop, edges: Edges) -> tuple[Tensor, Tensor]:
    """Return the distance of each pixel of the crop from the middle of a box, and which pixels lie in the box.

    Float32 and bool, of the crop's size. Distances down and across are shares of the box's sides, 0.5 at its edges;
    together they are Euclidean. The greater of the two alone would not tell two boxes of one height apart at the feet.
    """
    rows = torch.arange(crop.top, crop.top + crop.height) + 0.5
    columns = torch.arange(crop.left, crop.left + crop.width) + 0.5
    height, width = max(edges.bottom - edges.top, 1e-6), max(edges.right - edges.left, 1e-6)
    down = (rows - (edges.top + edges.bottom) / 2).abs() / height
    across = (columns - (edges.left + edges.right) / 2).abs() / width
    return torch.hypot(down[:, None], across[None]), (down[:, None] <= 0.5) & (across[None] <= 0.5)


def _territories(found: Sequence[FoundObject]) -> list[np.ndarray | None]:
    """Return for each object with a core the pixels that are no nearer to the core of another, bool `[h, w]`."""
    steps = [None if some.core is None else _steps(some.core) for some in found]
    made: list[np.ndarray | None] = []
    for place, own in enumerate(steps):
        territory = None if own is None else np.ones(own.shape, bool)
        for other, theirs in enumerate(steps):
            rivals = other != place and found[other].object == found[place].object
            if rivals and territory is not None and own is not None and theirs is not None:
                territory &= own <= theirs
        made.append(territory)
    return made


def _steps(core: np.ndarray) -> np.ndarray:
    """Return the number of 4-neighbour steps from each pixel to a core, bool `[h, w]`; at most `STEPS`, int16."""
    steps = np.where(core, np.int16(0), np.int16(STEPS))
    for number in range(1, STEPS):
        near = steps < number
        around = np.zeros_like(near)
        around[1:] |= near[:-1]
        around[:-1] |= near[1:]
        around[:, 1:] |= near[:, :-1]
        around[:, :-1] |= near[:, 1:]
        steps[around & ~near] = number
    return steps


def _stretched(values: np.ndarray, crop: Crop, size: Sequence[int]) -> Tensor:
    """Return a map `[h, w]`, stretched over a photo of `size` (H, W), at the pixels of a crop."""
    starts = ((crop.top, crop.height), (crop.left, crop.width))
    rows, columns = (
        ((np.arange(start, start + length) + 0.5) * small / large).astype(np.intp)
        for (start, length), small, large in zip(starts, values.shape, size, strict=True)
    )
    return torch.from_numpy(values[rows[:, None], columns])


def report_empty(name: str, areas: Sequence[int]) -> None:
    """Count the objects of one photo that own no pixel, in the log."""
    if empty := sum(area == 0 for area in areas):
        owning = noun(empty, "owns no pixel, and is", "own no pixel, and are")
        log.warning("%s: %d of %s %s listed without any", name, empty, count_of(len(areas), "object"), owning)
