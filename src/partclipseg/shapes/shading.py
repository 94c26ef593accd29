"""Make a picture of an outline number at every pixel: textures, relief, light, shadow, blur, noise.

Only additions, multiplications and comparisons are used on pixels: sines and matrix products round differently
from processor to processor, and a scene has to have the same bytes everywhere.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageFilter

from partclipseg.shapes.chance import Chance
from partclipseg.shapes.geometry import turn
from partclipseg.shapes.paint import Paint

_FIELDS = {name: row for row, name in enumerate(Paint._fields)}


@cache
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the pixel centres, float32 `[size²]` each, from 0 to 1."""
    steps = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    return np.tile(steps, size), np.repeat(steps, size)


def shade(
    ids: np.ndarray,
    paints: list[Paint],
    boxes: np.ndarray,
    chance: Chance,
    generator: np.random.Generator,
    plain: bool = False,
) -> np.ndarray:
    """Colour a map of outline numbers.

    Args:
        ids: uint8 `[2S, 2S]`, twice the picture's resolution: edges are smoothed from 2×2 pixels.
        paints: one for each number.
        boxes: float32 `[4, n]`, left, top, right and bottom of every outline in unit coordinates.
        plain: without shadow, blur and noise.

    Returns:
        uint8 `[S, S, 3]`.
    """
    size = len(ids) // 2
    x, y = _grid(size)
    light = turn(360 * chance())
    table = np.array(paints, dtype=np.float32).T  # [fields, n]
    relief = _relief(table[_FIELDS["relief"]], boxes, light)
    cloud = _cloud(size, 3 + int(18 * chance() * chance()), generator)

    corners = [np.ascontiguousarray(ids[i::2, j::2]).reshape(-1) for i in (0, 1) for j in (0, 1)]
    first = corners[0]
    mixed = (first != corners[1]) | (first != corners[2]) | (first != corners[3])
    edge = np.flatnonzero(mixed)
    which = np.concatenate([first, *(corner.take(edge) for corner in corners[1:])], dtype=np.intp)
    # The other three samples of an edge pixel share the place of the first.
    x_all, y_all, cloud_all = (np.concatenate([v, *3 * (v.take(edge),)]) for v in (x, y, cloud))
    colours = _paint(which, x_all, y_all, cloud_all, table, relief)

    picture = colours[:, : size * size]  # [3, S²]; behind it lie [3, 3E]
    blended = picture.take(edge, axis=1) + colours[:, size * size :].reshape(3, 3, -1).sum(axis=1)
    picture[:, edge] = blended * np.float32(0.25)
    darkness = np.float32(max(0.0, chance.between(-0.15, 0.55)))
    picture[:, np.flatnonzero(_lines(mixed, first, size))] *= 1 - darkness
    picture *= _lighting(x, y, light, chance, plain)
    np.clip(picture, 0, 255, out=picture)
    image = np.empty((size * size, 3), dtype=np.uint8)
    image[:] = picture.T
    image = image.reshape(size, size, 3)
    return image if plain else _camera(image, chance, generator)


def _relief(strength: np.ndarray, boxes: np.ndarray, light: complex) -> tuple[np.ndarray, ...]:
    """Return the brightness of every outline as c + a x + b y, three float32 `[n]`: 1 in the middle of its box."""
    left, top, right, bottom = boxes
    floor = np.float32(0.02)
    a = strength * np.float32(light.real) / np.maximum((right - left) / 2, floor)
    b = strength * np.float32(light.imag) / np.maximum((bottom - top) / 2, floor)
    return 1 - a * (left + right) / 2 - b * (top + bottom) / 2, a, b


def _lines(mixed: np.ndarray, first: np.ndarray, size: int) -> np.ndarray:
    """Return the pixels on the border between two outlines, bool `[S²]`."""
    lines, ids = mixed.reshape(size, size), first.reshape(size, size)
    lines[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    lines[:-1] |= ids[:-1] != ids[1:]
    return mixed


def _cloud(size: int, cells: int, generator: np.random.Generator) -> np.ndarray:
    """Draw smooth noise around 0, float32 `[size²]` within ± 1."""
    coarse = np.frombuffer(generator.bytes(cells * cells), dtype=np.uint8).reshape(cells, cells)
    smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return (np.asarray(smooth, dtype=np.float32).reshape(-1) - np.float32(127.5)) * np.float32(1 / 127.5)


def _paint(
    which: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    cloud: np.ndarray,
    table: np.ndarray,
    relief: tuple[np.ndarray, ...],
) -> np.ndarray:
    """Compute the colour of every sample, float32 `[3, n]`."""

    def field(name: str) -> np.ndarray:
        return table[_FIELDS[name]].take(which)

    texture = _square_wave(field("u_x") * x + field("u_y") * y + field("u_0"))
    texture += _square_wave(field("v_x") * x + field("v_y") * y + field("v_0"))
    np.subtract(field("radius"), texture, out=texture)
    texture *= field("sharpness")
    texture += np.float32(0.5)
    np.clip(texture, 0, 1, out=texture)
    bright = relief[0].take(which)
    bright += relief[1].take(which) * x
    bright += relief[2].take(which) * y
    bright += field("rough") * cloud
    colours = np.empty((3, len(which)), dtype=np.float32)
    for row, name in zip(colours, ("red", "green", "blue"), strict=True):
        np.multiply(field(f"{name}_step"), texture, out=row)
        row += field(name)
        row *= bright
    return colours


def _square_wave(phase: np.ndarray) -> np.ndarray:
    """Compute the squared distance to the middle of the period of length 1, in place."""
    phase -= np.floor(phase)
    phase -= np.float32(0.5)
    phase *= phase
    return phase


def _lighting(x: np.ndarray, y: np.ndarray, light: complex, chance: Chance, plain: bool) -> np.ndarray:
    """Compute the brightness at every pixel, float32 `[S²]`: exposure, a falling light, at times a soft shadow."""
    exposure, fall = chance.between(0.78, 1.18), chance.between(0, 0.35)
    if plain:
        exposure, fall = 1.0, 0.0
    across = x * np.float32(light.real) + y * np.float32(light.imag)
    across -= np.float32((light.real + light.imag) / 2)
    bright = np.float32(exposure) + np.float32(fall) * across
    if chance() < 0.3 and not plain:
        way = turn(360 * chance())
        depth, soft = chance.between(0.2, 0.5), chance.between(3, 20)
        beyond = (x - np.float32(chance())) * np.float32(soft * way.real)
        beyond += (y - np.float32(chance())) * np.float32(soft * way.imag)
        np.clip(beyond, 0, 1, out=beyond)
        bright *= 1 - np.float32(depth) * beyond
    return bright


def _camera(image: np.ndarray, chance: Chance, generator: np.random.Generator) -> np.ndarray:
    """Add blur and noise."""
    if chance() < 0.4:
        radius = chance.between(0.2, 0.9) * len(image) / 128
        image = np.asarray(Image.fromarray(image).filter(ImageFilter.BoxBlur(radius)))
    grain = chance.between(0, 24) * max(0.0, chance() - 0.25)
    noise = np.frombuffer(generator.bytes(image.size), dtype=np.int8).reshape(image.shape)
    noisy = noise.astype(np.int16) * int(grain * 2)  # in 1/256
    noisy >>= 8
    noisy += image
    return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)
