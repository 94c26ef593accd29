"""Files that a person changed, read back: labelme JSON, Label Studio tasks, YOLO label files, index PNGs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from partclipseg.apps.label.job import BulkFormat
from partclipseg.data.coco import BrokenMaskError, paint
from partclipseg.data.label_map import label_table, read_label_map
from partclipseg.data.problem import DataError
from partclipseg.data.sample import UNLABELLED
from partclipseg.errors import PartCLIPSegError
from partclipseg.vocabulary import Vocabulary

Size = tuple[int, int]
Shape = tuple[int, list[float]]
"""Class index, and a polygon x, y, x, y, … in pixels."""


class CorrectionError(PartCLIPSegError):
    """A person's file cannot be read back; the message says why, without the file's name."""


def read_correction(name: BulkFormat, path: Path, vocabulary: Vocabulary, size: Size) -> np.ndarray:
    """Read a person's file as int32 `[H, W]`: class indices, background -1.

    Args:
        name: the format.
        path: the file.
        vocabulary: the words that may stand in it.
        size: height and width of the photo.

    Raises:
        CorrectionError: it is damaged, of another size, or has words or numbers that are not in the vocabulary.
        OSError: it cannot be read at all.
    """
    if name == "png":
        return _index_image(path, vocabulary, size)
    content = path.read_bytes()
    try:
        shapes = list(_READERS[name](content, vocabulary, size))
    except CorrectionError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise CorrectionError(f"it is damaged ({type(error).__name__}: {error})") from None
    try:
        return paint([index for index, _ in shapes], [[polygon] for _, polygon in shapes], size)
    except BrokenMaskError as error:
        raise CorrectionError(error.message) from None


def _index_image(path: Path, vocabulary: Vocabulary, size: Size) -> np.ndarray:
    classes = {index: index for index in range(len(vocabulary))}
    background = 65535 if len(vocabulary) > 255 else 255
    try:
        return read_label_map(path, label_table({**classes, background: UNLABELLED}), None, size)
    except DataError as error:
        raise CorrectionError(str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")) from None


def _labelme(content: bytes, vocabulary: Vocabulary, size: Size) -> Iterable[Shape]:
    document = json.loads(content)
    _check_size((document.get("imageHeight"), document.get("imageWidth")), size)
    for shape in document["shapes"]:
        points, kind = [(float(x), float(y)) for x, y in shape["points"]], shape.get("shape_type") or "polygon"
        if kind == "rectangle" and len(points) == 2:
            points = _box(*points[0], *points[1])
        elif kind not in {"polygon", "rectangle", "rotation"}:
            raise CorrectionError(f"it has a shape of the kind {kind!r}: make it a polygon")
        yield _index(shape["label"], vocabulary), _flat(points)


def _label_studio(content: bytes, vocabulary: Vocabulary, size: Size) -> Iterable[Shape]:
    task = one_task(json.loads(content))
    answers = [answer for answer in task.get("annotations") or () if not answer.get("was_cancelled")]
    answers = answers[-1:] or (task.get("predictions") or ())[:1]
    height, width = size
    for region in answers[0]["result"] if answers else ():
        value, kind = region["value"], region["type"]
        _check_size((region.get("original_height"), region.get("original_width")), size)
        if kind == "polygonlabels":
            points = [(float(x), float(y)) for x, y in value["points"]]
        elif kind == "rectanglelabels" and not value.get("rotation"):
            x, y = float(value["x"]), float(value["y"])
            points = _box(x, y, x + float(value["width"]), y + float(value["height"]))
        else:
            raise CorrectionError(f"it has a region of the kind {kind!r}: make it a polygon")
        (label,) = value[kind]
        yield _index(label, vocabulary), _flat([(x * width / 100, y * height / 100) for x, y in points])


def one_task(document: Any) -> dict[str, Any]:
    """The Label Studio task of a document that is one, or a list of one, as its export writes."""
    task = document[0] if isinstance(document, list) and len(document) == 1 else document
    if not isinstance(task, dict):
        raise CorrectionError("it is not one task of Label Studio")
    return task


def _yolo(content: bytes, vocabulary: Vocabulary, size: Size) -> Iterable[Shape]:
    height, width = size
    for number, line in enumerate(content.decode().splitlines(), start=1):
        if not line.strip():
            continue
        first, *rest = line.split()
        values = [float(value) for value in rest]
        if not first.isdecimal() or int(first) >= len(vocabulary):
            raise CorrectionError(f"line {number} has the class {first}; the classes are 0 to {len(vocabulary) - 1}")
        if len(values) == 4:  # a box: centre, width, height
            x, y, w, h = values
            points = _box(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        elif len(values) >= 6 and len(values) % 2 == 0:
            points = list(zip(values[::2], values[1::2], strict=True))
        else:
            raise CorrectionError(f"line {number} is no outline: a class, then x and y of three or more points")
        if not all(-0.01 <= value <= 1.01 for point in points for value in point):
            raise CorrectionError(f"line {number} has points outside the photo: coordinates go from 0 to 1")
        yield int(first), _flat([(x * width, y * height) for x, y in points])


_READERS: dict[BulkFormat, Callable[[bytes, Vocabulary, Size], Iterable[Shape]]] = {
    "labelme": _labelme,
    "label-studio": _label_studio,
    "yolo": _yolo,
}

CORRECTABLE: tuple[BulkFormat, ...] = ("labelme", "label-studio", "yolo", "png")
"""The formats that are read back; of several corrected files of a photo the first one's counts."""


def _index(label: Any, vocabulary: Vocabulary) -> int:
    plain = str(label).strip().casefold()
    for index, name in enumerate(vocabulary.names):
        if name.casefold() == plain:
            return index
    raise CorrectionError(f"it has the label {label!r}, which is not in the vocabulary: correct it")


def _check_size(found: tuple[Any, Any], size: Size) -> None:
    if found != (None, None) and found != size:
        raise CorrectionError(f"it is for a photo of {found[1]}x{found[0]} pixels, the photo has {size[1]}x{size[0]}")


def _box(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _flat(points: list[tuple[float, float]]) -> list[float]:
    return [value for point in points for value in point]
