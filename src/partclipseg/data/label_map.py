"""Read index PNGs, which have one label in each pixel."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from partclipseg.counts import count_of, noun
from partclipseg.data.photo import MAX_PIXELS, photo_formats
from partclipseg.data.problem import DataError, Problem
from partclipseg.data.sample import UNLABELLED
from partclipseg.files import is_regular

_LOSSLESS = frozenset({"PNG", "TIFF", "BMP", "PPM", "TGA"})
"""Pillow's names of formats that keep every value. JPEG blurs labels, and writers of GIF number colours anew."""

_MODES = {8: ("L", "P"), 16: ("I;16", "I;16B", "I;16L", "I")}
"""Pillow's modes of grey or palette pictures, by the bits of a pixel."""


def label_table(classes: Mapping[int, int]) -> np.ndarray:
    """Make the table of `read_label_map`, int32 `[65536]`: from a file's value to class or `UNLABELLED`."""
    table = np.full(1 << 16, _UNKNOWN, dtype=np.int32)
    table[list(classes.keys())] = list(classes.values())
    return table


def numbered_table(classes: int, ignore: int) -> np.ndarray:
    """Make the table of `read_label_map` for a file whose values are the classes, but for `ignore`: `UNLABELLED`."""
    return label_table({**{label: label for label in range(classes)}, ignore: UNLABELLED})


def read_label_map(path: Path, table: np.ndarray, bits: int | None, size: tuple[int, int]) -> np.ndarray:
    """Read a label map as int32 `[H, W]`, in the classes of a `label_table`.

    Args:
        path: a PNG of one channel; a palette picture gives its indices.
        table: see `label_table`; every value of the file must stand in it.
        bits: 8 or 16, the only bit depth taken; None takes both.
        size: height and width of the photo.

    Raises:
        DataError: the file is missing, unreadable, of another size or bit depth, or holds other labels.
    """
    values = _read(path, bits, size)
    labels = np.take(table, values)
    if (unknown := labels == _UNKNOWN).any():
        held = np.unique(values[unknown])
        shown = ", ".join(map(str, held[:5])) + (", …" if len(held) > 5 else "")
        problem = (
            f"holds the {noun(len(held), 'label')} {shown} ({count_of(int(unknown.sum()), 'pixel')}) outside the class "
            f"list, which has {_ranges(np.flatnonzero(table != _UNKNOWN))}: correct the map or the class list"
        )
        raise DataError(Problem("unknown label", path, problem))
    return labels


def labels_in(labels: np.ndarray) -> np.ndarray:
    """Return the classes in a label map, int64, ascending, without `UNLABELLED`."""
    present = np.zeros(int(labels.max(initial=UNLABELLED)) + 2, dtype=bool)
    present[labels.ravel()] = True  # UNLABELLED is -1 and marks the last entry
    return np.flatnonzero(present[:-1])


def _ranges(values: np.ndarray) -> str:
    """Write numbers as ranges, such as ``0 to 115, 255``."""
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


_UNKNOWN = UNLABELLED - 100


def _read(path: Path, bits: int | None, size: tuple[int, int]) -> np.ndarray:
    """Read the file's own values, uint8, uint16 or int32 `[H, W]`."""
    if not os.path.lexists(path):
        raise DataError(Problem("missing label", path, "the label map is missing: restore it or remove its photo"))
    try:
        is_regular(path)
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error}): put the label map itself there"
        raise DataError(Problem("unreadable", path, problem)) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size check below is stricter
            image = Image.open(path, formats=photo_formats())
        with image:
            _check_header(path, image, bits, size)
            values = np.asarray(image)
    except DataError:
        raise
    except Exception as error:  # decoders raise almost anything on damaged data
        reason = str(error) or type(error).__name__
        raise DataError(Problem("unreadable", path, f"cannot be read ({reason}): replace it")) from None
    if values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
        raise DataError(Problem("bit depth", path, "has 32-bit values: save it with 8 or 16 bits a pixel"))
    return values


def _check_header(path: Path, image: Image.Image, bits: int | None, size: tuple[int, int]) -> None:
    height, width = size
    allowed = _MODES[bits] if bits else (*_MODES[8], *_MODES[16])
    if image.mode not in allowed:
        wanted = f"{bits}-bit grey" if bits else "8- or 16-bit grey or palette"
        problem = f"is a picture of mode {image.mode}, not a {wanted} label map: save the labels themselves"
        raise DataError(Problem("bit depth", path, problem))
    if image.format not in _LOSSLESS:
        problem = f"is a {image.format} file, which does not keep labels as they are: save the labels as PNG"
        raise DataError(Problem("unreadable", path, problem))
    if image.size != (width, height):
        problem = f"is {image.width}x{image.height}, but its photo is {width}x{height}: one of them was resized"
        raise DataError(Problem("size", path, problem))
    if width * height > MAX_PIXELS:
        raise DataError(Problem("size", path, f"has more than {MAX_PIXELS:,} pixels: make it smaller"))
