"""Colours that belong to a class by its name: the same over photos, vocabularies, runs and machines.

An object has a hue, its parts lie around that hue and differ in lightness as well. Positions come from a hash of
the words and are laid out in OKLCH, where equal steps look equally large (Ottosson 2020, "A perceptual color
space for image processing"), so that no colour is glaring, murky or close to the black and white of the drawing.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from math import cos, radians, sin

import numpy as np

from partclipseg.vocabulary import Vocabulary

Colour = tuple[int, int, int]
"""8-bit sRGB."""

_SALT = b"18463"
"""Chosen among some thousand so that frequent objects, and the parts of each in the built-in catalogues, lie apart."""

_HUE_SPREAD = 75.0
"""Degrees to either side of the object's hue."""


@lru_cache(maxsize=4096)  # a file with label maps has the colours of all classes
def object_colour(word: str) -> Colour:
    """Colour of a whole object, whatever the capitals of `word`."""
    return _oklch(0.70, 0.14, 360 * _fractions(word)[0])


@lru_cache(maxsize=16384)
def part_colour(object_word: str, part_word: str) -> Colour:
    """Colour of an object-part, from its two words alone."""
    hue = 360 * _fractions(object_word)[0]
    sideways, lightness, chroma = _fractions(f"{object_word}\0{part_word}")
    return _oklch(0.50 + 0.38 * lightness, 0.10 + 0.08 * chroma, hue + _HUE_SPREAD * (2 * sideways - 1))


def part_colours(vocabulary: Vocabulary) -> np.ndarray:
    """uint8 `[N_c, 3]`, one row for each class."""
    return np.array([part_colour(*pair) for pair in vocabulary.object_parts], dtype=np.uint8)


def object_colours(vocabulary: Vocabulary) -> np.ndarray:
    """uint8 `[N_o, 3]`, one row for each object."""
    return np.array([object_colour(word) for word in vocabulary.objects], dtype=np.uint8)


def _fractions(text: str) -> tuple[float, float, float]:
    """Three numbers in [0, 1) that depend on `text` alone (Python's own hash changes from run to run)."""
    digest = blake2b(text.casefold().encode("utf-8", "surrogatepass"), digest_size=12, salt=_SALT).digest()
    first, second, third = (int.from_bytes(digest[i : i + 4], "big") / 2**32 for i in (0, 4, 8))
    return first, second, third


def _oklch(lightness: float, chroma: float, hue: float) -> Colour:
    """The sRGB colour at these OKLCH coordinates (hue in degrees), with less chroma where the gamut ends."""
    while (rgb := _linear_rgb(lightness, chroma, hue)).min() < 0 or rgb.max() > 1:
        chroma *= 0.95
    encoded = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    red, green, blue = (round(255 * value) for value in encoded.tolist())
    return red, green, blue


def _linear_rgb(lightness: float, chroma: float, hue: float) -> np.ndarray:
    lab = np.array([lightness, chroma * cos(radians(hue)), chroma * sin(radians(hue))])
    return _LMS_TO_RGB @ (_LAB_TO_LMS @ lab) ** 3


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
