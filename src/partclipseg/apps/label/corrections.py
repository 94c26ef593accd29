"""Files that a person changed, read back by their formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from partclipseg.apps.label.job import BulkFormat
from partclipseg.formats.corrections import CorrectionError, Size
from partclipseg.formats.registry import data_set_formats
from partclipseg.vocabulary import Vocabulary

__all__ = ["CorrectionError", "correctable", "read_correction"]


def correctable() -> list[BulkFormat]:
    """Return the formats that are read back; of several corrected files of a photo the first format's counts."""
    kinds = [kind for kind in data_set_formats().values() if kind.read is not None]
    return [kind.name for kind in sorted(kinds, key=lambda kind: kind.precedence)]


def read_correction(name: BulkFormat, path: Path, vocabulary: Vocabulary, size: Size) -> np.ndarray:
    """Read a person's file as int32 `[H, W]`: class indices, background -1.

    Args:
        name: the format, one of `correctable`.
        path: the file.
        vocabulary: the words that may stand in it.
        size: height and width of the photo.

    Raises:
        CorrectionError: it is damaged, of another size, or has words or numbers that are not in the vocabulary.
        OSError: it cannot be read at all.
    """
    read = data_set_formats()[name].read
    assert read is not None, f"{name} is not read back"
    return read(path, vocabulary, size)
