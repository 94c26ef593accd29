"""Colours derived from words: the same in every photo, every run and on every machine.

An object has a hue by its name, its parts lie around that hue and differ in lightness as well. Positions come from a
hash of the words and are laid out in OKLCH, where equal steps look equally large (Ottosson 2020, "A perceptual color
space for image processing"), so that no colour is glaring, murky or close to the black and white of the drawing.

A part whose place by name is too near another part of its object moves, so that its colour depends on its object's
parts in the vocabulary too, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from partclipseg.vocabulary import Vocabulary

Colour = tuple[int, int, int]
"""8-bit sRGB."""

_SALT = b"18463"
"""Salt of the hash, found by search so that frequent objects and the parts of each have distinct colours."""

_HUE_SPREAD = 75.0
"""Maximum difference in degrees between the hues of a part and its object."""

_APART = 24.0
"""Minimum CIELAB distance (1976) between the parts of an object if possible; with 25 parts it is still 15. Over a
photo some six tenths of it remain; a distance of 2 is hardly visible."""

_PLACES = 128
"""Number of candidate colours of a part before it takes the one farthest from the others."""

_STEP = 1.2207440846 ** -np.array([1.0, 2.0, 3.0])
"""Step between candidates in the unit cube; the sequence fills it evenly (Roberts 2018, R₃)."""


@lru_cache(maxsize=4096)  # a file with label maps has the colours of all classes
def object_colour(word: str) -> Colour:
    """Return the colour of a whole object; the case of `word` does not matter."""
    rgb = _linear_rgb(np.array([0.70]), np.array([0.14]), 360 * _fractions(word)[:1])
    red, green, blue = _encoded(rgb)[0].tolist()
    return red, green, blue


@lru_cache(maxsize=16)
def part_colours(vocabulary: Vocabulary) -> np.ndarray:
    """Return colours uint8 `[N_c, 3]`, one row for each class; read-only, since they are cached."""
    colours = {
        (object_word, part): colour
        for object_word, parts in vocabulary.to_dict().items()
        for part, colour in zip(parts, _colours_of_parts(object_word, tuple(parts)), strict=True)
    }
    table = np.array([colours[pair] for pair in vocabulary.classes], dtype=np.uint8)
    table.flags.writeable = False
    return table


def object_colours(vocabulary: Vocabulary) -> np.ndarray:
    """Return colours uint8 `[N_o, 3]`, one row for each object."""
    return np.array([object_colour(word) for word in vocabulary.objects], dtype=np.uint8).reshape(-1, 3)


def pale_object_colours(vocabulary: Vocabulary) -> np.ndarray:
    """Return colours uint8 `[N_o, 3]` for pixels of objects without a part: the object's, two thirds of it white."""
    return (170 + object_colours(vocabulary) // 3).astype(np.uint8)


def instance_colours(words: Sequence[str]) -> np.ndarray:
    """Return colours uint8 `[n, 3]` for single objects: shades of the colour of their word, the first being its own."""
    counts: dict[str, int] = {}
    colours = []
    for word in words:
        place = counts[word] = counts.get(word, -1) + 1
        # The k-th place in [0, 1) that halves the gaps of the ones before: 0, 1/2, 1/4, 3/4, … (van der Corput).
        share = int(f"{place:b}"[::-1], 2) / 2 ** len(f"{place:b}")
        hue = 360 * _fractions(word)[:1] + 60 * share
        rgb = _linear_rgb(np.array([0.70 + (0.22 if place % 2 == 0 else -0.26) * share]), np.array([0.14]), hue)
        colours.append(_encoded(rgb)[0])
    return np.array(colours, dtype=np.uint8).reshape(-1, 3)


@lru_cache(maxsize=4096)
def _colours_of_parts(object_word: str, parts: tuple[str, ...]) -> list[Colour]:
    """Return a colour for each part: its first free candidate, in alphabetical order of the parts."""
    hue = 360 * _fractions(object_word)[0]
    taken = np.empty((0, 3))
    colours: dict[str, Colour] = {}
    for part in sorted(parts, key=str.casefold):
        places = (_fractions(f"{object_word}\0{part}") + np.arange(_PLACES)[:, None] * _STEP) % 1  # [128, 3]
        sideways, lightness, chroma = places.T
        rgb = _linear_rgb(0.50 + 0.38 * lightness, 0.10 + 0.08 * chroma, hue + _HUE_SPREAD * (2 * sideways - 1))
        lab = _cielab(rgb)
        nearest = np.linalg.norm(lab[:, None] - taken, axis=-1).min(axis=1, initial=_APART)
        place = nearest.argmax()  # the first that is distant enough, or else the most distant
        taken = np.append(taken, lab[place : place + 1], axis=0)
        red, green, blue = _encoded(rgb[place]).tolist()
        colours[part] = red, green, blue
    return [colours[part] for part in parts]


def _fractions(text: str) -> np.ndarray:
    """Return three numbers in [0, 1) that depend on `text` alone (Python's own hash changes from run to run)."""
    digest = blake2b(text.casefold().encode("utf-8", "surrogatepass"), digest_size=12, salt=_SALT).digest()
    return np.array([int.from_bytes(digest[i : i + 4], "big") / 2**32 for i in (0, 4, 8)])


def _linear_rgb(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Convert OKLCH `[N]` (hue in degrees) to linear sRGB `[N, 3]`, with less chroma where the gamut ends."""
    while True:
        lab = np.stack([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], axis=-1)
        rgb = (lab @ _LAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T
        outside = (rgb.min(axis=-1) < 0) | (rgb.max(axis=-1) > 1)
        if not outside.any():
            return rgb
        chroma = np.where(outside, 0.95 * chroma, chroma)


def _encoded(rgb: np.ndarray) -> np.ndarray:
    """Encode linear sRGB as uint8."""
    curve = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    return np.rint(255 * curve).astype(np.uint8)


def _cielab(rgb: np.ndarray) -> np.ndarray:
    """Convert linear sRGB `[N, 3]` to CIELAB under D65, the usual space for distances of colours."""
    x, y, z = np.where((xyz := rgb @ _RGB_TO_XYZ.T) > 216 / 24389, np.cbrt(xyz), 841 / 108 * xyz + 4 / 29).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


_LAB_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
) / np.array([[0.95047], [1], [1.08883]])
"""Matrix from linear sRGB to XYZ, divided by the white point."""
