"""Images of class indices, in the form of the benchmarks' label files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from partclipseg.data.label_map import numbered_table, read_label_map
from partclipseg.data.problem import DataError
from partclipseg.formats.corrections import CorrectionError, Size
from partclipseg.formats.format import Format, LabelledPhoto, View
from partclipseg.vocabulary import Vocabulary


def index_image(label_map: np.ndarray, colours: np.ndarray) -> Image.Image:
    """Return a label map `[H, W]` as an image of indices; background is the greatest value of a pixel.

    With up to 255 classes: 8-bit palette image (mode P), background 255, each class in its colour (uint8 `[K, 3]`) in
    viewers and background black. With more: 16-bit grey (I;16), background 65535. These are the values of the label
    files of Pascal-Part-116 and ADE20K-Part-234, so that predictions can serve as labels.
    """
    # The cast to an unsigned type turns -1 into its greatest value.
    if _background(len(colours)) > 255:
        return Image.fromarray(label_map.astype(np.uint16))
    image = Image.fromarray(label_map.astype(np.uint8), mode="P")
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(colours)] = colours
    image.putpalette(palette.tobytes())
    return image


def label_image(photo: LabelledPhoto, view: View = "parts") -> Image.Image:
    """Return the index image of a view."""
    labels, _, colours = photo.view(view)
    return index_image(labels, colours)


def _background(classes: int) -> int:
    return 65535 if classes > 255 else 255


def _read(path: Path, vocabulary: Vocabulary, size: Size) -> np.ndarray:
    classes = len(vocabulary)
    try:
        return read_label_map(path, numbered_table(classes, _background(classes)), None, size)
    except DataError as error:
        raise CorrectionError(str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")) from None


FORMAT = Format(
    name="png",
    help="images of class indices; background is 255 (65535 with more than 255 classes)",
    suffix=".labels.png",
    make=lambda photo, _: label_image(photo),
    folder="labels",
    read=_read,
    precedence=4,
)
