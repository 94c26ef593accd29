"""Pixels near a contour: Boundary IoU as in its paper and as in the published figures.

Both forms erode with a 3×3 square `boundary_width` times, everything outside the photo counting as another
label. That equals one minimum over a square window, which takes a few shifted comparisons for all classes at
once, on the device of the maps.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from partclipseg.evaluation.choices import BoundaryKind

DILATION_RATIO = 0.02
"""Width of the boundary as a share of the photo's diagonal (Cheng et al. 2021, §4)."""


def boundary_width(height: int, width: int) -> int:
    """Return the number of 3×3 erosions, the width of the boundary in pixels; at least 1."""
    return max(1, round(DILATION_RATIO * math.hypot(height, width)))


def boundary_maps(index_maps: torch.Tensor, kind: BoundaryKind, background: int) -> torch.Tensor:
    """Return index maps of the boundaries of index maps, on the same device.

    Args:
        index_maps: signed integers `[..., H, W]`, values in `0 .. background`.
        kind: `per_class`: a pixel keeps its class where it is within the boundary of that class's binary mask
            and becomes `background` elsewhere (Cheng et al., *Boundary IoU*, CVPR 2021).
            `reference`: the map minus its own grey erosion, as the published evaluation computes it; differences
            of class numbers, 0 where nothing was eroded. For comparison with published figures only.
        background: the index that means "no class", the largest one.

    Returns:
        `[..., H, W]` of the same type, values in `0 .. background`.
    """
    radius = boundary_width(*index_maps.shape[-2:])
    if kind == "reference":
        return index_maps - window_minimum(index_maps, radius, border=0)
    # A pixel survives the erosion of its own class's mask exactly where its whole window has one value. Minimum
    # and (negated) maximum go together; the border is a value that no pixel has.
    lowest, highest = window_minimum(torch.stack((index_maps, -index_maps)), radius, border=-background - 1)
    return torch.where(lowest == -highest, background, index_maps)


def window_minimum(maps: torch.Tensor, radius: int, border: int) -> torch.Tensor:
    """Return the minimum over the square of side 2 × `radius` + 1 around each pixel; `border` outside the maps.

    Args:
        maps: signed integers `[..., H, W]`.

    Returns:
        `[..., H, W]` of the same type: equal to `radius` erosions with a 3×3 square.
    """
    padded = F.pad(maps, (radius,) * 4, value=border)
    return _running_minimum(_running_minimum(padded, -2, 2 * radius + 1), -1, 2 * radius + 1)


def _running_minimum(values: torch.Tensor, dim: int, length: int) -> torch.Tensor:
    """Return the minimum over `length` neighbours along `dim`, which shrinks by `length - 1`, in log2 steps."""
    reach = 1
    while reach < length:
        step = min(reach, length - reach)
        rest = values.shape[dim] - step
        values = torch.minimum(values.narrow(dim, 0, rest), values.narrow(dim, step, rest))
        reach += step
    return values
