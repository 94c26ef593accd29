"""Furniture."""

from __future__ import annotations

from partclipseg.shapes.figures.animals import FAR
from partclipseg.shapes.figures.vehicles import door
from partclipseg.shapes.geometry import Shape, box, ellipse, limb, polygon, rounded, smooth, turn
from partclipseg.shapes.pose import Pose


def post(x: float, top: float, bottom: float, half: float, tone: float = 0.85) -> Shape:
    """A furniture leg, thinner at the ground."""
    corners = (
        complex(x - half, top),
        complex(x + half, top),
        complex(x + 0.6 * half, bottom),
        complex(x - 0.6 * half, bottom),
    )
    return Shape("leg", polygon(*corners), tone)


def _pillow(center: complex, half: float, degrees: float) -> list[Shape]:
    h = half
    outline = smooth(
        -h - 0.75j * h,
        -0.85j * h * 0.7,
        h - 0.75j * h,
        0.8 * h,
        h + 0.75j * h,
        0.85j * h * 0.7,
        -h + 0.75j * h,
        -0.8 * h,
    )
    return [
        Shape("pillow", center + outline * turn(degrees), 1.15),
        Shape("pillow", ellipse(center, 0.09 * h), 0.6),
    ]


def _drawer(left: float, bottom: float, right: float, top: float) -> list[Shape]:
    rim = 0.12 * (top - bottom)
    knob = complex((left + right) / 2, (bottom + top) / 2)
    return [
        Shape("drawer", box(left, bottom, right, top), 0.65),
        Shape("drawer", box(left + rim, bottom + rim, right - rim, top - rim), 1.1),
        *_handle(knob, 0.25 * (right - left)),
    ]


def _handle(center: complex, length: float, upright: bool = False) -> list[Shape]:
    way = 0.5 * length * (1j if upright else 1)
    return [
        Shape("handle", limb(center - way, center + way, 0.024), 0.35),
        Shape("handle", limb(center - 0.8 * way, center + 0.8 * way, 0.009), 1.5),
    ]


def chair(pose: Pose) -> list[Shape]:
    """A kitchen chair, slightly from above."""
    skew = pose.between(0.02, 0.16)
    rise, depth = pose.between(0.38, 0.55), pose.between(0.1, 0.2)
    far_left, far_right = complex(-0.22 + skew, 0.42 + depth), complex(0.22 + skew, 0.42 + depth)
    shapes = [
        post(far_left.real + 0.02, far_left.imag, 0.1, 0.03, FAR),
        post(far_right.real - 0.02, far_right.imag, 0.1, 0.03, FAR),
    ]
    shapes += [post(-0.22, 0.42, 0, 0.035), post(0.22, 0.42, 0, 0.035)]
    top = far_left.imag + rise
    for x in (far_left.real + 0.02, far_right.real - 0.02):
        shapes.append(Shape("back", limb(complex(x, far_left.imag), complex(x, top), 0.026), 0.9))
    for share in (0.95, 0.62):
        y = far_left.imag + rise * share
        shapes.append(Shape("back", rounded(far_left.real, y - 0.06, far_right.real, y + 0.05, 0.03)))
    shapes.append(Shape("seat", polygon(-0.27 + 0.42j, 0.27 + 0.42j, far_right + 0.02, far_left - 0.02)))
    shapes.append(Shape("seat", box(-0.27, 0.37, 0.27, 0.42), 0.7))
    return [*shapes, *_pillow(complex(skew * 0.8 + 0.02, 0.5 + depth), 0.13, pose.between(-12, 12))]


def sofa(pose: Pose, half: float = 0.58, seats: int = 2) -> list[Shape]:
    """A sofa from the front; narrow with one seat it is an armchair."""
    back, arm = pose.between(0.5, 0.62), pose.between(0.34, 0.4)
    if seats == 1:
        back += 0.14
    shapes = [post(x, 0.12, 0, 0.04) for x in (-half + 0.08, half - 0.08)]
    shapes.append(Shape("back", rounded(-half + 0.04, 0.2, half - 0.04, back, 0.07)))
    width = (2 * half - 0.26) / seats
    for k in range(seats):
        left = -half + 0.13 + k * width
        shapes.append(Shape("seat", rounded(left, 0.2, left + width, 0.34, 0.04), 1.15))
    shapes.append(Shape("seat", box(-half + 0.1, 0.08, half - 0.1, 0.21), 0.8))
    for x in (-1, 1):
        low, high = sorted((x * half, x * (half - 0.15)))
        shapes.append(Shape("armrest", rounded(low, 0.08, high, arm + 0.04, 0.06), 0.9))
        shapes.append(Shape("armrest", ellipse(complex((low + high) / 2, arm - 0.02), 0.045), 1.2))
    spots = (-1, 1) if seats == 2 else (pose.between(-0.3, 0.3),)
    return [
        *shapes,
        *(
            s
            for x in spots
            for s in _pillow(complex(x * (half - 0.28), 0.42), 0.115, pose.between(-15, 15))
        ),
    ]


def armchair(pose: Pose) -> list[Shape]:
    """One seat between two rests."""
    return sofa(pose, half=0.38, seats=1)


def bed(pose: Pose) -> list[Shape]:
    """From its long side."""
    high, low = pose.between(0.5, 0.62), pose.between(0.3, 0.38)
    fold = pose.between(-0.12, 0.12)
    shapes = [
        post(-0.6, 0.2, 0, 0.04),
        post(0.6, 0.2, 0, 0.04),
        post(-0.4, 0.2, 0.05, 0.03, FAR),
        post(0.45, 0.2, 0.05, 0.03, FAR),
    ]
    shapes.append(Shape("mattress", rounded(-0.6, 0.2, 0.6, 0.33, 0.03), 1.2))
    shapes += [
        Shape("frame", rounded(-0.68, 0.12, -0.59, high, 0.03), 0.8),
        Shape("frame", rounded(0.59, 0.12, 0.68, low, 0.03), 0.8),
    ]
    shapes.append(Shape("frame", box(-0.62, 0.13, 0.62, 0.21), 0.75))
    shapes += _pillow(-0.45 + 0.39j, 0.12, pose.between(-6, 10))
    shapes.append(
        Shape(
            "blanket",
            smooth(
                -0.22 + fold + 0.37j,
                0.2 + 0.39j,
                0.57 + 0.37j,
                0.58 + 0.16j,
                0.2 + 0.18j,
                -0.16 + fold + 0.16j,
            ),
        )
    )
    shapes.append(
        Shape(
            "blanket",
            polygon(-0.26 + fold + 0.38j, -0.14 + fold + 0.38j, -0.1 + fold + 0.17j, -0.2 + fold + 0.17j),
            1.4,
        )
    )
    return shapes


def desk(pose: Pose) -> list[Shape]:
    """With drawers on one side."""
    depth = pose.between(0.06, 0.16)
    shapes = [post(-0.42, 0.5, 0.08, 0.03, FAR), post(0.42, 0.5, 0.08, 0.03, FAR)]
    shapes += [post(-0.5, 0.5, 0, 0.04), post(0.52, 0.2, 0, 0.03), post(0.16, 0.2, 0, 0.03)]
    for k in range(2):
        shapes += _drawer(0.13, 0.16 + 0.17 * k, 0.55, 0.33 + 0.17 * k)
    shapes.append(
        Shape(
            "top",
            polygon(-0.6 + 0.54j, 0.62 + 0.54j, 0.56 + (0.54 + depth) * 1j, -0.5 + (0.54 + depth) * 1j),
            1.1,
        )
    )
    shapes.append(Shape("top", box(-0.6, 0.49, 0.62, 0.545), 0.8))
    return shapes


def wardrobe(pose: Pose) -> list[Shape]:
    """Two doors, one with a mirror, above a drawer."""
    half, top = pose.between(0.3, 0.38), pose.between(0.88, 1.0)
    shapes = [post(-half + 0.05, 0.12, 0, 0.04), post(half - 0.05, 0.12, 0, 0.04)]
    shapes += _drawer(-half, 0.1, half, 0.26)
    for left, right in ((-half, 0.0), (0.0, half)):
        shapes += door(left, 0.26, right, top)
    shapes += [Shape("door", box(-half - 0.03, top, half + 0.03, top + 0.05), 0.8)]
    glass = rounded(0.07, 0.4, half - 0.07, top - 0.1, 0.05)
    shapes += [
        Shape("mirror", glass, 0.5),
        Shape("mirror", 0.5 * half + 0.62j + 0.82 * (glass - 0.5 * half - 0.62j), 1.75),
    ]
    return [
        *shapes,
        *_handle(-0.05 + 0.58j, 0.14, upright=True),
        *_handle(0.04 + 0.58j, 0.14, upright=True),
    ]
