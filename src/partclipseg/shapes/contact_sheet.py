"""Scenes on one page: each picture, its part labels in colour, and the names of the colours."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from partclipseg.errors import UsageError
from partclipseg.shapes.scene import Scene
from partclipseg.shapes.world import partshapes_world

_GOLDEN = 0.618034


def contact_sheet(scenes: Sequence[Scene], columns: int = 4) -> Image.Image:
    """Draw one page of scenes, RGB, row by row.

    Every cell shows the picture, the picture with its labels over it (one colour for a part word, whatever the
    object), and the names of the object-parts, the largest first. Scenes must be of one size.

    Raises `UsageError` without scenes, with scenes of different sizes or without columns.
    """
    sizes = {len(scene.image) for scene in scenes}
    if len(sizes) != 1 or columns < 1:
        raise UsageError("a contact sheet needs at least one column and scenes of one size")
    (size,) = sizes
    columns = min(columns, len(scenes))
    line = max(9, min(14, size // 14))
    font = ImageFont.load_default(size=line - 1)
    names = partshapes_world().vocabulary.names
    shown = {int(index) for scene in scenes for index in np.unique(scene.parts) if index >= 0}
    legend = line + 14 + int(max((font.getlength(names[index]) for index in shown), default=0))
    width, gap = 2 * size + legend, 6
    rows = -(-len(scenes) // columns)
    page = Image.new("RGB", (columns * (width + gap) + gap, rows * (size + gap) + gap), "white")
    for number, scene in enumerate(scenes):
        row, column = divmod(number, columns)
        page.paste(_cell(scene, width, line), (gap + column * (width + gap), gap + row * (size + gap)))
    return page


def _cell(scene: Scene, width: int, height: int) -> Image.Image:
    size = len(scene.image)
    vocabulary = partshapes_world().vocabulary
    palette = np.array(
        [_part_colour(part) for part in vocabulary.class_to_part.tolist()] + [(0, 0, 0)], dtype=np.float32
    )
    grey = scene.image.mean(axis=2, keepdims=True)
    labelled = (scene.parts >= 0)[..., None]
    overlay = np.where(labelled, 0.72 * palette[scene.parts] + 0.28 * grey, 0.45 * grey + 90)
    overlay[_borders(scene.parts)] = 20

    cell = Image.new("RGB", (width, size), "white")
    cell.paste(Image.fromarray(scene.image), (0, 0))
    cell.paste(Image.fromarray(overlay.astype(np.uint8)), (size, 0))
    pen = ImageDraw.Draw(cell)
    font = ImageFont.load_default(size=height - 1)
    classes, areas = np.unique(scene.parts[scene.parts >= 0], return_counts=True)
    largest = classes[np.argsort(-areas, kind="stable")][: size // height]
    for line, index in enumerate(largest.tolist()):
        top = line * height
        colour = tuple(int(value) for value in palette[index])
        pen.rectangle((2 * size + 4, top + 1, 2 * size + 2 + height, top + height - 2), fill=colour)
        pen.text((2 * size + height + 7, top - 1), vocabulary.names[index], fill="black", font=font)
    return cell


def _part_colour(part: int) -> tuple[float, float, float]:
    """Return the colour of a part; neighbouring numbers get distant hues."""
    red, green, blue = colorsys.hsv_to_rgb(
        part * _GOLDEN % 1, 0.85 if part % 2 else 0.6, 1.0 if part % 3 else 0.8
    )
    return 255 * red, 255 * green, 255 * blue


def _borders(labels: np.ndarray) -> np.ndarray:
    borders = np.zeros(labels.shape, dtype=bool)
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    borders[:-1] |= labels[:-1] != labels[1:]
    return borders
