"""Helpers for reading files of outlines that a person corrected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from partclipseg.data.coco_masks import BrokenMaskError, paint_masks
from partclipseg.data.values import quoted, whole_number
from partclipseg.errors import PartCLIPSegError, first_line
from partclipseg.vocabulary import Vocabulary

Size = tuple[int, int]
"""Height and width of a photo."""

LabelledPolygon = tuple[int, list[float]]
"""Class index, and a polygon x, y, x, y, … in pixels."""


class CorrectionError(PartCLIPSegError):
    """Raised for a person's file that cannot be read back; the message gives the reason, not the file's name."""


def read_outlines(
    shapes: Callable[[bytes, Vocabulary, Size], Iterable[LabelledPolygon]],
) -> Callable[[Path, Vocabulary, Size], np.ndarray]:
    """Return a function for `Format.read` that paints the shapes found in a file's bytes for a vocabulary and size.

    Every error that `shapes` raises for a damaged file becomes a `CorrectionError`.
    """

    def read(path: Path, vocabulary: Vocabulary, size: Size) -> np.ndarray:
        content = path.read_bytes()
        try:
            found = list(shapes(content, vocabulary, size))
        except CorrectionError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, ArithmeticError) as error:
            raise CorrectionError(f"it is damaged ({_damage(error)}): mend it, or delete it for a new draft") from None
        try:
            return paint_masks([index for index, _ in found], [[polygon] for _, polygon in found], size)
        except BrokenMaskError as error:
            raise CorrectionError(error.message) from None

    return read


def _damage(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OverflowError):
        return "a number is too large"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    # A ValueError describes the file (wrong JSON, a word in place of a number), but not where values are unpacked.
    if isinstance(error, ValueError) and "unpack" not in str(error):
        return first_line(error)[:200]
    return "its entries are not those of the format"


def class_index(label: Any, vocabulary: Vocabulary) -> int:
    """Return the index of a class by name, spelled as words may be; raises `CorrectionError` for an unknown one."""
    if (index := vocabulary.find_class(str(label))) is not None:
        return index
    raise CorrectionError(f"it has the label {label!r}, which is not in the vocabulary: correct it")


def check_photo_shape(found: tuple[Any, Any], size: Size) -> None:
    """Raise `CorrectionError` if a file states another height or width than the photo's."""
    if any(stated is not None and whole_number(stated) != edge for stated, edge in zip(found, size, strict=True)):
        stated = "x".join("?" if edge is None else quoted(edge) for edge in reversed(found))
        raise CorrectionError(f"it is for a photo of {stated} pixels, the photo has {size[1]}x{size[0]}")


def box_corners(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    """Return the four corners of a box."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def flat(points: Iterable[tuple[float, float]]) -> list[float]:
    """Return points as x, y, x, y, …"""
    return [value for point in points for value in point]
