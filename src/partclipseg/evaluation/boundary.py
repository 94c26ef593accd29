"""The pixels near a contour: Boundary IoU in the form of its paper and in that of the published figures.

Both forms erode with a 3×3 square `boundary_width` times, everything outside the photo counting as another
label. That equals one minimum over a square window, which takes a few shifted comparisons for all classes at
once and runs where the maps are.
"""

from __future__ import annotations

import math
from typing import Literal

import torch

BoundaryKind = Literal["per_class", "reference"]

DILATION_RATIO = 0.02
"""Width of the boundary as a share of the photo's diagonal (Cheng et al. 2021, §4)."""


def boundary_width(height: int, width: int) -> int:
    """Number of 3×3 erosions, that is the boundary's width in pixels; at least 1."""
    return max(1, round(DILATION_RATIO * math.hypot(height, width)))


def boundary_map(index_map: torch.Tensor, kind: BoundaryKind, background: int) -> torch.Tensor:
    """Index map of the boundaries of an index map, on the same device.

    Args:
        index_map: signed integers `[H, W]`, values in `0 .. background`.
        kind: `per_class`: a pixel keeps its class where it is within the boundary of that class's binary mask
            and becomes `background` elsewhere (Cheng et al., *Boundary IoU*, CVPR 2021).
            `reference`: the map minus its own grey erosion, as the published evaluation computes it; differences
            of class numbers, 0 where nothing was eroded. For comparison with published figures only.
        background: the index that means "no class", the largest one.

    Returns:
        `[H, W]` of the same type, values in `0 .. background`.
    """
    radius = boundary_width(*index_map.shape)
    if kind == "reference":
        return index_map - window_minimum(index_map, radius, border=0)
    # A pixel survives the erosion of its own class's mask exactly where its whole window has one value.
    lowest = window_minimum(index_map, radius, border=-1)
    highest = -window_minimum(-index_map, radius, border=0)
    return torch.where(lowest == highest, background, index_map)


def window_minimum(index_map: torch.Tensor, radius: int, border: int) -> torch.Tensor:
    """Minimum over the square of side 2 × `radius` + 1 around each pixel; outside the map lies `border`.

    Args:
        index_map: signed integers `[H, W]`.

    Returns:
        `[H, W]` of the same type: equal to `radius` erosions with a 3×3 square.
    """
    height, width = index_map.shape
    padded = index_map.new_full((height + 2 * radius, width + 2 * radius), border)
    padded[radius : radius + height, radius : radius + width] = index_map
    return _running_minimum(_running_minimum(padded, 0, 2 * radius + 1), 1, 2 * radius + 1)


def _running_minimum(values: torch.Tensor, dim: int, length: int) -> torch.Tensor:
    """Minimum over `length` neighbours along `dim`, which shrinks by `length - 1`; doubles its reach each step."""
    reach = 1
    while reach < length:
        step = min(reach, length - reach)
        rest = values.shape[dim] - step
        values = torch.minimum(values.narrow(dim, 0, rest), values.narrow(dim, step, rest))
        reach += step
    return values
