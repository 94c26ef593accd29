"""Buildings and household things."""

from __future__ import annotations

import numpy as np

from partclipseg.shapes.figures.furniture import post
from partclipseg.shapes.figures.vehicles import door, flag, lamp, window
from partclipseg.shapes.geometry import Outline, Shape, box, ellipse, limb, polygon, ribbon, rounded, smooth, turn
from partclipseg.shapes.pose import Pose


def house(pose: Pose) -> list[Shape]:
    """A cottage."""
    half, eaves = pose.between(0.38, 0.48), pose.between(0.36, 0.46)
    ridge = eaves + pose.between(0.26, 0.38)
    shapes = [
        Shape(
            "chimney",
            polygon(
                *(
                    complex(x, y)
                    for x, y in (
                        (0.17, eaves),
                        (0.17, ridge + 0.06),
                        (0.14, ridge + 0.06),
                        (0.14, ridge + 0.12),
                        (0.34, ridge + 0.12),
                        (0.34, ridge + 0.06),
                        (0.31, ridge + 0.06),
                        (0.31, eaves),
                    )
                )
            ),
            0.75,
        )
    ]
    shapes.append(Shape("wall", box(-half, 0, half, eaves + 0.02)))
    shapes.append(
        Shape(
            "roof",
            polygon(
                complex(-half - 0.09, eaves),
                complex(-0.18, ridge),
                complex(0.18, ridge),
                complex(half + 0.09, eaves),
            ),
            0.7,
        )
    )
    shapes += [
        *window(box(-half + 0.06, 0.16, -half + 0.23, 0.32)),
        *window(box(half - 0.23, 0.16, half - 0.06, 0.32)),
    ]
    return [*shapes, *door(-0.1, 0, 0.1, 0.29)]


def castle(pose: Pose) -> list[Shape]:
    """Two towers, a wall between them, flags."""
    high = pose.between(0.62, 0.78)
    shapes: list[Shape] = []
    for x in (-0.42, 0.42):
        shapes.append(Shape("flag", limb(complex(x, high), complex(x, high + 0.28), 0.014), 0.5))
        shapes += flag(complex(x, high + 0.28), pose)
    shapes.append(Shape("wall", box(-0.36, 0, 0.36, 0.44)))
    shapes += [Shape("wall", box(x, 0.42, x + 0.09, 0.5)) for x in (-0.27, -0.12, 0.03, 0.18)]
    for x in (-0.42, 0.42):
        shapes.append(_tower(x, 0.15, 0.14, 0, high))
        shapes += [
            Shape("tower", box(x + dx, high - 0.01, x + dx + 0.09, high + 0.08), 0.9)
            for dx in (-0.17, -0.045, 0.08)
        ]
        shapes += window(box(x - 0.05, high - 0.26, x + 0.05, high - 0.1))
    return [*shapes, *door(-0.11, 0, 0.11, 0.27)]


def _tower(x: float, half: float, top_half: float, bottom: float, top: float) -> Shape:
    corners = (
        complex(x - half, bottom),
        complex(x + half, bottom),
        complex(x + top_half, top),
        complex(x - top_half, top),
    )
    return Shape("tower", polygon(*corners), 0.95)


def windmill(pose: Pose) -> list[Shape]:
    """With four blades."""
    spin = pose.between(0, 90)
    shapes = [_tower(0, 0.24, 0.14, 0, 0.62)]
    shapes.append(Shape("roof", smooth(-0.19 + 0.6j, -0.1 + 0.76j, 0.1 + 0.76j, 0.19 + 0.6j), 0.7))
    shapes += [*door(-0.075, 0, 0.075, 0.19), *window(box(-0.06, 0.26, 0.06, 0.39))]
    hub = 0.64j
    for k in range(4):
        way = turn(spin + 90 * k + 30)
        blade = polygon(0.03, 0.5 - 0.01j, 0.5 + 0.11j, 0.14 + 0.1j)
        shapes += [
            Shape("blade", hub + blade * way, 1.2),
            Shape("blade", limb(hub, hub + 0.5 * way, 0.014), 0.5),
        ]
    return [*shapes, Shape("blade", ellipse(hub, 0.045), 0.5)]


def lighthouse(pose: Pose) -> list[Shape]:
    """A striped tower with a lantern room."""
    high = pose.between(0.62, 0.76)
    shapes = [_tower(0, 0.2, 0.12, 0, high)]
    for share in (0.28, 0.62):
        low, up = share * high, (share + 0.17) * high
        a, b = 0.2 - 0.08 * share, 0.2 - 0.08 * (share + 0.17)
        shapes.append(
            Shape("tower", polygon(complex(-a, low), complex(a, low), complex(b, up), complex(-b, up)), 1.5)
        )
    shapes.append(Shape("tower", box(-0.16, high, 0.16, high + 0.04), 0.6))
    shapes += lamp(complex(0, high + 0.12), 0.105)
    shapes.append(
        Shape(
            "roof",
            polygon(complex(-0.15, high + 0.19), complex(0.15, high + 0.19), complex(0, high + 0.34)),
            0.7,
        )
    )
    return [
        *shapes,
        *door(-0.07, 0, 0.07, 0.19),
        *window(box(-0.05, 0.42 * high, 0.05, 0.42 * high + 0.12)),
    ]


def teapot(pose: Pose) -> list[Shape]:
    """Round, with a ring handle at its side."""
    fat = pose.between(0.24, 0.3)
    shapes = [Shape("handle", _ring(-0.34 + 0.02j, 0.17, 0.05), 0.8)]
    shapes.append(_spout(0.2))
    shapes.append(
        Shape(
            "base",
            polygon(
                -0.17 - fat * 1j + 0.03j,
                0.17 - fat * 1j + 0.03j,
                0.2 - fat * 1j - 0.04j,
                -0.2 - fat * 1j - 0.04j,
            ),
            0.7,
        )
    )
    shapes.append(Shape("body", ellipse(0, 0.34, fat)))
    return [*shapes, *_lid(1j * fat * 0.93, 0.17)]


def kettle(pose: Pose) -> list[Shape]:
    """Broad at the ground, with a bow handle above."""
    top = pose.between(0.16, 0.24)
    shapes = [Shape("handle", _arch(top, 0.27, 0.3), 0.8), _spout(0.17)]
    shapes.append(Shape("base", box(-0.38, -0.28, 0.38, -0.21), 0.7))
    shapes.append(
        Shape(
            "body",
            smooth(
                -0.38 - 0.22j, -0.3 + 0.02j, -0.17 + 1j * top, 0.17 + 1j * top, 0.3 + 0.02j, 0.38 - 0.22j
            ),
        )
    )
    return [*shapes, *_lid(1j * top, 0.16)]


def _spout(root: float) -> Shape:
    return Shape(
        "spout",
        ribbon((root - 0.06j, root + 0.22 - 0.08j, root + 0.16 + 0.14j, root + 0.36 + 0.22j), 0.2, 0.08),
        0.9,
    )


def _lid(center: complex, half: float) -> list[Shape]:
    return [
        Shape(
            "lid",
            smooth(
                center - half - 0.01j,
                center - 0.6 * half + 0.07j,
                center + 0.6 * half + 0.07j,
                center + half - 0.01j,
            ),
            0.85,
        ),
        Shape("lid", ellipse(center + 0.1j, 0.042), 0.6),
    ]


def _ring(center: complex, radius: float, width: float) -> Outline:
    """The left half of a ring."""
    outer = ellipse(center, radius)[5:18]
    return np.concatenate((outer, (center + (outer - center) * (1 - width / radius))[::-1]))


def _arch(bottom: float, half: float, height: float) -> Outline:
    return ribbon(
        (
            complex(-half, bottom - 0.08),
            complex(-half * 0.9, bottom + height * 1.3),
            complex(half * 0.9, bottom + height * 1.3),
            complex(half, bottom - 0.08),
        ),
        0.055,
        0.055,
    )


def guitar(pose: Pose) -> list[Shape]:
    """Upright, strings to the viewer."""
    waist = pose.between(0.12, 0.16)
    shapes = [Shape("head", smooth(-0.05 + 0.62j, -0.075 + 0.8j, 0.075 + 0.8j, 0.05 + 0.62j), 0.85)]
    shapes += [
        Shape("head", ellipse(complex(x, y), 0.025), 1.4) for x in (-0.09, 0.09) for y in (0.67, 0.75)
    ]
    outline = smooth(
        -0.06 + 0.14j,
        -0.18 + 0.04j,
        -waist - 0.08j,
        -0.25 - 0.27j,
        -0.12 - 0.45j,
        0.12 - 0.45j,
        0.25 - 0.27j,
        waist - 0.08j,
        0.18 + 0.04j,
        0.06 + 0.14j,
    )
    shapes += [Shape("body", outline), Shape("body", ellipse(-0.1j, 0.085), 0.2)]
    shapes.append(Shape("neck", box(-0.04, -0.02, 0.04, 0.64), 0.7))
    shapes.append(Shape("body", box(-0.1, -0.33, 0.1, -0.28), 0.3))
    return [
        *shapes,
        *(Shape("string", box(x - 0.006, -0.31, x + 0.006, 0.66), 1.7) for x in (-0.024, 0.0, 0.024)),
    ]


def television(pose: Pose) -> list[Shape]:
    """An old set with a rabbit-ear antenna."""
    half, high = pose.between(0.38, 0.5), pose.between(0.56, 0.66)
    shapes = [post(x * (half - 0.1), 0.18, 0, 0.035) for x in (-1, 1)]
    for x in (-1, 1):
        tip = complex(x * pose.between(0.15, 0.32), high + 0.26)
        shapes += [
            Shape("antenna", limb(complex(0, high), tip, 0.014), 0.5),
            Shape("antenna", ellipse(tip, 0.028), 0.5),
        ]
    shapes.append(Shape("frame", rounded(-half, 0.13, half, high, 0.05), 0.8))
    screen = rounded(-half + 0.06, 0.19, half - 0.2, high - 0.06, 0.06)
    shapes += [
        Shape("screen", screen, 0.4),
        Shape("screen", (screen - 0.1 - 0.4j) * 0.9 + 0.08 + 0.4j, 0.75),
    ]
    shapes += [
        Shape("button", ellipse(complex(half - 0.1, y), 0.042), 1.4) for y in (high - 0.14, high - 0.27)
    ]
    return shapes


def flower(pose: Pose) -> list[Shape]:
    """In a pot."""
    top = complex(pose.between(-0.1, 0.1), pose.between(0.62, 0.75))
    shapes = [Shape("stem", ribbon((0.15j, 0.1 * top.real + 0.4j, top), 0.035, 0.03), 0.8)]
    for side in (-1, 1):
        leaf = smooth(0, 0.1 + 0.07j, 0.27 + 0.1j, 0.14 - 0.02j) * turn(pose.between(-10, 35))
        shapes.append(Shape("leaf", 0.3j + 0.06j * side + (leaf if side > 0 else -leaf.conj()), 0.9))
    shapes.append(Shape("pot", polygon(-0.2 + 0.17j, 0.2 + 0.17j, 0.14 - 0.12j, -0.14 - 0.12j), 0.85))
    shapes.append(Shape("pot", box(-0.23, 0.14, 0.23, 0.21), 0.7))
    spin = pose.between(0, 60)
    for k in range(6):
        way = turn(spin + 60 * k)
        shapes.append(Shape("petal", top + ellipse(0.14, 0.11, 0.078) * way, 1.0 + 0.15 * (k % 2)))
    return [*shapes, Shape("petal", ellipse(top, 0.07), 0.5)]
