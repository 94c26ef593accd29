"""Outlines in the complex plane: a point is ``x + iy`` with y upwards, an outline a closed complex128 array `[n]`.

Complex numbers keep the figures short: adding moves, multiplying turns and scales, conjugating mirrors.
Sines come from `math`, not from numpy, whose vectorised ones differ between processors.
"""

from __future__ import annotations

import cmath
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.complexfloating[Any, Any]]
"""complex128 `[n]`: corners of a closed line."""

_SIDES = 22
_CIRCLE: Outline = np.array([cmath.rect(1, 2 * math.pi * k / _SIDES) for k in range(_SIDES)])
_ARC: Outline = np.array([cmath.rect(1, math.pi * (k / 7 - 0.5)) for k in range(8)])  # right half circle
_QUARTER = np.array([cmath.rect(1, math.pi * k / 8) for k in range(5)])
_STEPS = [k / 9 for k in range(10)]


def _bezier(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the Bernstein basis and its derivative at `_STEPS`, each `[10, degree + 1]`."""

    def basis(n: int, t: float) -> list[float]:
        return [math.comb(n, k) * t**k * (1 - t) ** (n - k) for k in range(n + 1)]

    values = np.array([basis(degree, t) for t in _STEPS])
    lower = np.array([[0.0, *basis(degree - 1, t), 0.0] for t in _STEPS])
    return values, degree * (lower[:, :-1] - lower[:, 1:])


_BEZIER = {degree: _bezier(degree) for degree in (2, 3)}
_SPLINE = [
    (
        -0.5 * t + t * t - 0.5 * t**3,
        1 - 2.5 * t * t + 1.5 * t**3,
        0.5 * t + 2 * t * t - 1.5 * t**3,
        0.5 * t**3 - 0.5 * t * t,
    )
    for t in (0.0, 0.25, 0.5, 0.75)
]
_TAPER = np.array(_STEPS)


class Shape(NamedTuple):
    """One filled outline of a figure."""

    part: str
    """Part word that its pixels are labelled with."""
    outline: Outline
    """Closed, without repeating the first point."""
    tone: float = 1.0
    """Brightness against the part's colour: below 1 darker, above 1 nearer to white."""


def turn(degrees: float) -> complex:
    """Return the unit number that rotates counter-clockwise by ``degrees``."""
    return cmath.rect(1.0, math.radians(degrees))


def ellipse(center: complex, rx: float, ry: float | None = None, degrees: float = 0.0) -> Outline:
    """Return an ellipse with half axes ``rx`` and ``ry`` (a circle without the latter), turned by ``degrees``."""
    if ry is None or ry == rx:
        return center + rx * _CIRCLE
    flat = rx * _CIRCLE.real + (1j * ry) * _CIRCLE.imag
    return center + (turn(degrees) * flat if degrees else flat)


def limb(start: complex, end: complex, start_radius: float, end_radius: float | None = None) -> Outline:
    """Return a stick with round ends that tapers from one radius to the other."""
    direction = end - start
    direction = direction / abs(direction) if direction else 1
    end_radius = start_radius if end_radius is None else end_radius
    return np.concatenate(
        (start - (start_radius * direction) * _ARC, end + (end_radius * direction) * _ARC)
    )


def ribbon(controls: tuple[complex, ...], start_width: float, end_width: float) -> Outline:
    """Return a band of changing width along the Bézier curve of 3 or 4 control points."""
    values, slopes = _BEZIER[len(controls) - 1]
    path = (values * controls).sum(axis=1)
    normal = 1j * (slopes * controls).sum(axis=1)
    normal *= (0.5 * start_width + 0.5 * (end_width - start_width) * _TAPER) / np.abs(normal)
    return np.concatenate((path + normal, (path - normal)[::-1]))


def box(left: float, bottom: float, right: float, top: float) -> Outline:
    """Return an upright rectangle."""
    return np.array(
        (complex(left, bottom), complex(right, bottom), complex(right, top), complex(left, top))
    )


def polygon(*corners: complex) -> Outline:
    """Return straight lines from corner to corner."""
    return np.array(corners, dtype=np.complex128)


def rounded(left: float, bottom: float, right: float, top: float, radius: float) -> Outline:
    """Return an upright rectangle with round corners."""
    quarter = radius * _QUARTER
    return np.concatenate(
        (
            complex(right - radius, bottom + radius) - 1j * quarter,
            complex(right - radius, top - radius) + quarter,
            complex(left + radius, top - radius) + 1j * quarter,
            complex(left + radius, bottom + radius) - quarter,
        )
    )


def smooth(*corners: complex) -> Outline:
    """Return a closed curve through the corners (Catmull-Rom, four points from corner to corner)."""
    ring = np.array((corners[-1], *corners, corners[0], corners[1]), dtype=np.complex128)
    points = np.empty((len(corners), 4), dtype=np.complex128)
    for k, (a, b, c, d) in enumerate(_SPLINE):
        points[:, k] = a * ring[:-3] + b * ring[1:-2] + c * ring[2:-1] + d * ring[3:]
    return points.reshape(-1)


def star(center: complex, radius: float, bumps: int, depth: float) -> Outline:
    """Return a closed cloud or zigzag outline: every second corner lies in by ``depth``, a share of the radius."""
    return np.array(
        [center + cmath.rect(radius * (1 - depth * (k % 2)), math.pi * k / bumps) for k in range(2 * bumps)]
    )
