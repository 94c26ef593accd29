"""COCO's masks as polygons and as run lengths.

Format: https://cocodataset.org/#format-data. Masks are decoded and encoded by pycocotools, which trusts its input;
input that would make it read beyond its memory, or be misread, is refused beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as pycocotools_mask

from partclipseg.data.sample import UNLABELLED
from partclipseg.data.values import quoted, whole_number
from partclipseg.errors import PartCLIPSegError

# Its stubs know only some of the forms that its documentation names.
rle: Any = pycocotools_mask

IN_SHARES = "its outline lies between 0 and 1: write pixels, not shares of the photo's sides"
"""Message about a polygon whose coordinates are not in pixels."""


def decode_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Decode a ``segmentation`` entry as bool `[H, W]`.

    Polygons are filled together; those with fewer than three corners cover nothing. Run lengths may be plain
    or compressed.

    Raises:
        PartCLIPSegError: neither form, coordinates far outside the photo or in shares, or wrong run lengths.
    """
    return rle.decode(run_lengths(segmentation, size)).astype(bool)


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encode bool `[H, W]` as compressed run lengths that JSON can hold; the inverse of `decode_mask`."""
    encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(edge) for edge in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def paint_masks(
    labels: Sequence[int], segmentations: Sequence[Any], size: tuple[int, int], empty: list[int] | None = None
) -> np.ndarray:
    """Paint masks on one map, int32 `[H, W]`, `UNLABELLED` where none lies.

    Larger masks are painted first and smaller ones over them; of equal ones the later in the list wins. The places in
    the list of masks that cover no pixel are added to `empty`.

    Raises:
        PartCLIPSegError: as `decode_mask`; the message starts with the number of the segmentation in the list.
    """
    runs = []
    for place, segmentation in enumerate(segmentations):
        try:
            runs.append(run_lengths(segmentation, size))
        except PartCLIPSegError as error:
            raise BrokenMaskError(place, str(error)) from None
    painted = np.full(size, UNLABELLED, dtype=np.int32)
    areas = [int(rle.area(run)) for run in runs]
    if empty is not None:
        empty += [place for place, area in enumerate(areas) if not area]
    for place in sorted(range(len(runs)), key=lambda place: -areas[place]):
        if areas[place]:
            painted[rle.decode(runs[place]).astype(bool)] = labels[place]
    return painted


def why_empty(segmentation: Any, size: tuple[int, int]) -> str:
    """Say why a mask that could be decoded covers no pixel, as a clause with the remedy."""
    if isinstance(segmentation, dict):
        return "its run lengths mark no pixel: outline the part again, or remove the annotation"
    corners = [np.reshape(polygon, (-1, 2)) for polygon in segmentation if polygon]
    if not corners:
        return "it has no outline, and a box alone labels nothing: outline the part, or remove the annotation"
    if all(len(polygon) < 3 for polygon in corners):
        return (
            "its polygons have fewer than three corners (six numbers), as when boxes are exported: outline the part, "
            "or remove the annotation"
        )
    points = np.concatenate(corners)
    low, high = points.min(0), points.max(0)
    if (high <= 0).any() or (low >= (size[1], size[0])).any():
        return "it lies outside the photo: correct the coordinates, or remove the annotation"
    return "its outline encloses no pixel: outline the part again, or remove the annotation"


class BrokenMaskError(PartCLIPSegError):
    """One mask of a list cannot be decoded."""

    def __init__(self, place: int, message: str) -> None:
        super().__init__(place, message)
        self.place = place
        self.message = message


def run_lengths(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Return compressed run lengths for pycocotools, after checking that they fill `size`.

    Raises `PartCLIPSegError` as `decode_mask` does.
    """
    height, width = size
    if isinstance(segmentation, list):
        polygons = [_polygon(polygon, size) for polygon in segmentation]
        solid = [polygon for polygon in polygons if len(polygon) >= 6]
        values = [value for polygon in solid for value in polygon]
        if values and min(values) >= 0 and max(values) <= 1 and any(value % 1 for value in values):
            raise PartCLIPSegError(IN_SHARES)
        if not solid:
            return {"size": [height, width], "counts": rle.encode(np.zeros(size, np.uint8, order="F"))["counts"]}
        return rle.merge(rle.frPyObjects(solid, height, width))
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise PartCLIPSegError("the mask is neither a list of polygons nor run lengths with 'size' and 'counts'")
    stated, counts = segmentation["size"], segmentation["counts"]
    if not isinstance(stated, list) or [whole_number(edge) for edge in stated] != [height, width]:
        raise PartCLIPSegError(
            f"the mask's run lengths are for the size {quoted(stated)}, the photo's is {[height, width]}"
        )
    if isinstance(counts, list):
        runs = [count if type(count) is int else whole_number(count) for count in counts]
        whole = [run for run in runs if run is not None and 0 <= run <= height * width]
        if len(whole) == len(runs) and sum(whole) == height * width:
            return rle.frPyObjects({"size": [height, width], "counts": whole}, height, width)
    elif isinstance(counts, str | bytes):
        compressed = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
        if _total(compressed) == height * width:
            return {"size": [height, width], "counts": compressed}
    raise PartCLIPSegError("the mask's run lengths do not fill the photo: export the file again")


def _polygon(polygon: Any, size: tuple[int, int]) -> list[float]:
    if not isinstance(polygon, list) or len(polygon) % 2:
        raise PartCLIPSegError("a polygon is not a list of x, y, x, y, …: export the file again")
    limit = 10 * max(size)
    for value in polygon:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise PartCLIPSegError(f"a polygon has the coordinate {quoted(value)}, which is not a number")
        # Memory grows with the length of the outline, so a coordinate far outside is refused. NaN fails too.
        if not -limit <= value <= limit:
            raise PartCLIPSegError(f"a polygon has the coordinate {quoted(value)}, far outside the photo")
    return polygon


def _total(compressed: bytes) -> int | None:
    """Count the pixels that compressed run lengths cover; None if they are malformed.

    Each count is written in groups of five bits, the lowest first, offset by 48; bit 6 says that more follow, and
    the last group's highest bit is the sign. From the third on a count is stored as the difference to the one
    before the last. (pycocotools decodes a string that covers too little into uninitialised memory.)
    """
    counts: list[int] = []
    value = shift = 0
    for byte in compressed:
        group = byte - 48
        if not 0 <= group < 64 or shift > 30:
            return None
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        if value < 0:
            return None
        counts.append(value)
        value = shift = 0
    return sum(counts) if shift == 0 else None
