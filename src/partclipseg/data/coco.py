"""COCO annotation files: their structure, and masks as polygons and as run lengths.

Format: https://cocodataset.org/#format-data. Masks are decoded and encoded by pycocotools, which trusts its input;
everything that it would read past its memory for, or silently take for something else, is refused before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as pycocotools_mask

from partclipseg.data.problem import DataError, Problem
from partclipseg.data.sample import UNLABELLED
from partclipseg.errors import PartCLIPSegError

# Its stubs know only some of the forms that its documentation names.
rle: Any = pycocotools_mask


@dataclass(frozen=True)
class Annotation:
    """One mask of one photo."""

    number: int
    """The file's own ``id``, or its place in the list."""
    category: int
    segmentation: Any


@dataclass(frozen=True)
class CocoPhoto:
    """One entry of ``images`` and its annotations, in the file's order."""

    number: int
    file_name: str | None
    path: str | None
    """Not part of the format, but written by coco-annotator."""
    size: tuple[object, object]
    """Height and width as the file states them; None where it does not."""
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True)
class CocoFile:
    """A file's content, as far as it makes sense; the rest is in `defects`."""

    photos: tuple[CocoPhoto, ...]
    categories: tuple[dict[str, Any], ...]
    """Each with ``id`` and ``name``."""
    defects: tuple[Problem, ...]


def read_coco(path: Path, categories: Iterable[int] | None = None) -> CocoFile:
    """Read an annotation file.

    Args:
        path: the JSON file.
        categories: the category ids that annotations may have; those of the file where None.

    Raises:
        DataError: the file is missing, is not JSON, or lacks ``images`` or ``annotations``.
    """
    content = _load(path)
    defects: list[Problem] = []

    def entries(key: str, needed: tuple[str, ...]) -> list[dict[str, Any]]:
        good = []
        for place, entry in enumerate(content.get(key, ())):
            lacking = [name for name in needed if not isinstance(entry, dict) or entry.get(name) is None]
            if lacking:
                problem = f"entry {place} of {key!r} has no {' or '.join(lacking)}: export the file again"
                defects.append(Problem("annotation", path, problem))
            else:
                good.append(entry)
        return good

    named = entries("categories", ("id", "name"))
    known = set(categories) if categories is not None else {_key(category["id"]) for category in named}
    photos = {_key(photo["id"]): photo for photo in entries("images", ("id",))}
    by_photo: dict[Any, list[Annotation]] = {number: [] for number in photos}
    for place, entry in enumerate(entries("annotations", ("image_id", "category_id", "segmentation"))):
        number, photo, category = entry.get("id", place), _key(entry["image_id"]), _key(entry["category_id"])
        if photo not in by_photo:
            problem = f"annotation {number} belongs to the photo {photo!r}, which the file does not list: remove it"
            defects.append(Problem("annotation", path, problem))
        elif category not in known:
            problem = f"annotation {number} has the category {category!r}, which is not in the class list"
            defects.append(Problem("unknown label", path, problem))
        else:
            by_photo[photo].append(Annotation(number, category, entry["segmentation"]))
    if len(photos) < len(content["images"]) and not defects:
        defects.append(Problem("annotation", path, "two entries of 'images' have the same id: number them anew"))
    read = (
        CocoPhoto(
            number,
            _text(photo.get("file_name")),
            _text(photo.get("path")),
            (photo.get("height"), photo.get("width")),
            tuple(by_photo[number]),
        )
        for number, photo in photos.items()
    )
    return CocoFile(tuple(read), tuple(named), tuple(defects))


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(Problem("missing label", path, "the annotation file is missing"))
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(Problem("unreadable", path, f"is not valid JSON ({error}): replace it")) from None
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            problem = f"is not a COCO annotation file: there is no list {key!r} in it"
            raise DataError(Problem("annotation", path, problem))
    return content


def _key(value: Any) -> Any:
    return value if isinstance(value, int | str) else repr(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def decode_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """A ``segmentation`` entry as bool `[H, W]`.

    Polygons are filled together; those with fewer than three corners cover nothing. Run lengths may be plain
    or compressed.

    Raises:
        PartCLIPSegError: neither form, coordinates far outside the photo, or run lengths that do not fill it.
    """
    return rle.decode(_run_lengths(segmentation, size)).astype(bool)


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Bool `[H, W]` as compressed run lengths that JSON can hold; the inverse of `decode_mask`."""
    encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(edge) for edge in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def paint(labels: Sequence[int], segmentations: Sequence[Any], size: tuple[int, int]) -> np.ndarray:
    """Masks on one map, int32 `[H, W]`, `UNLABELLED` where none lies.

    Larger masks are painted first and smaller ones over them; of equal ones the later in the list wins.

    Raises:
        PartCLIPSegError: as `decode_mask`; the message starts with the number of the segmentation in the list.
    """
    runs = []
    for place, segmentation in enumerate(segmentations):
        try:
            runs.append(_run_lengths(segmentation, size))
        except PartCLIPSegError as error:
            raise BrokenMaskError(place, str(error)) from None
    painted = np.full(size, UNLABELLED, dtype=np.int32)
    areas = [int(rle.area(run)) for run in runs]
    for place in sorted(range(len(runs)), key=lambda place: -areas[place]):
        if areas[place]:
            painted[rle.decode(runs[place]).astype(bool)] = labels[place]
    return painted


class BrokenMaskError(PartCLIPSegError):
    """One mask of a list cannot be decoded."""

    def __init__(self, place: int, message: str) -> None:
        super().__init__(place, message)
        self.place = place
        self.message = message


def _run_lengths(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Compressed run lengths, as pycocotools wants them, that are sure to fill `size`."""
    height, width = size
    if isinstance(segmentation, list):
        polygons = [_polygon(polygon, size) for polygon in segmentation]
        solid = [polygon for polygon in polygons if len(polygon) >= 6]
        if not solid:
            return {"size": [height, width], "counts": rle.encode(np.zeros(size, np.uint8, order="F"))["counts"]}
        return rle.merge(rle.frPyObjects(solid, height, width))
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise PartCLIPSegError("the mask is neither a list of polygons nor run lengths with 'size' and 'counts'")
    counts = segmentation["counts"]
    if segmentation["size"] != [height, width]:
        raise PartCLIPSegError(
            f"the mask's run lengths are for the size {segmentation['size']}, the photo's is {[height, width]}"
        )
    if isinstance(counts, list):
        valid = all(isinstance(count, int) and 0 <= count <= height * width for count in counts)
        if valid and sum(counts) == height * width:
            return rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    elif isinstance(counts, str | bytes):
        compressed = counts.encode("utf-8") if isinstance(counts, str) else counts
        if _total(compressed) == height * width:
            return {"size": [height, width], "counts": compressed}
    raise PartCLIPSegError("the mask's run lengths do not fill the photo: export the file again")


def _polygon(polygon: Any, size: tuple[int, int]) -> list[float]:
    if not isinstance(polygon, list) or len(polygon) % 2:
        raise PartCLIPSegError("a polygon is not a list of x, y, x, y, …: export the file again")
    limit = 10 * max(size)
    for value in polygon:
        # Memory grows with the length of the outline, so a wild coordinate must not get through.
        if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > limit:
            raise PartCLIPSegError(f"a polygon has the coordinate {value!r}, far outside the photo")
    return polygon


def _total(compressed: bytes) -> int | None:
    """Pixels that compressed run lengths cover; None where they are malformed.

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
