"""Vehicles, nose to the right; road vehicles also from the front."""

from __future__ import annotations

from partclipseg.shapes.figures.animals import FAR
from partclipseg.shapes.geometry import Outline, Shape, box, ellipse, limb, polygon, ribbon, rounded, smooth, turn
from partclipseg.shapes.pose import Pose


def wheel(center: complex, radius: float, spokes: float | None = None) -> list[Shape]:
    """A dark tyre with a light hub; with ``spokes`` (their angle) the thin wheel of a bicycle."""
    if spokes is not None:
        shapes = [
            Shape("wheel", ellipse(center, radius), 0.3),
            Shape("wheel", ellipse(center, radius * 0.84), 1.4),
        ]
        for k in range(4):
            way = radius * 0.85 * turn(spokes + 45 * k)
            shapes.append(Shape("wheel", limb(center - way, center + way, 0.008), 0.4))
        return [*shapes, Shape("wheel", ellipse(center, radius * 0.14), 0.4)]
    return [
        Shape("wheel", ellipse(center, radius), 0.3),
        Shape("wheel", ellipse(center, radius * 0.58), 1.3),
        Shape("wheel", ellipse(center, radius * 0.2), 0.4),
    ]


def window(outline: Outline) -> list[Shape]:
    """A pane with a dark frame and a glint."""
    low, high = outline.real.min(), outline.real.max()
    bottom, top = outline.imag.min(), outline.imag.max()
    center = complex(low + high, bottom + top) / 2
    pane = center + 0.84 * (outline - center)
    wide, tall = high - low, top - bottom
    glint = center + polygon(
        -0.18 * wide - 0.3j * tall,
        -0.05 * wide - 0.3j * tall,
        0.17 * wide + 0.3j * tall,
        0.04 * wide + 0.3j * tall,
    )
    return [Shape("window", outline, 0.55), Shape("window", pane, 1.4), Shape("window", glint, 1.75)]


def lamp(center: complex, radius: float) -> list[Shape]:
    """A light: bright disc in a dark ring."""
    return [
        Shape("light", ellipse(center, radius), 0.5),
        Shape("light", ellipse(center, radius * 0.72), 1.8),
    ]


def door(left: float, bottom: float, right: float, top: float) -> list[Shape]:
    """A leaf with a darker rim and a raised panel."""
    rim = 0.14 * min(right - left, top - bottom)
    inner = box(left + rim, bottom + rim, right - rim, top - rim)
    return [Shape("door", box(left, bottom, right, top), 0.7), Shape("door", inner, 1.05)]


def mirror(center: complex) -> list[Shape]:
    """A wing mirror."""
    return [
        Shape("mirror", ellipse(center, 0.038, 0.055), 0.5),
        Shape("mirror", ellipse(center, 0.022, 0.038), 1.75),
    ]


def car(pose: Pose) -> list[Shape]:
    """A saloon."""
    if pose.chance(0.25):
        return _front(pose, 0.38, 0.5, "body", roof=0.28)
    roof = pose.between(0.4, 0.5)
    r = pose.about(0.115, 0.08)
    shapes = [
        Shape("bumper", rounded(-0.63, 0.1, -0.42, 0.19, 0.03), 0.6),
        Shape("bumper", rounded(0.42, 0.1, 0.63, 0.19, 0.03), 0.6),
    ]
    cabin = polygon(-0.42 + 0.28j, -0.27 + 1j * roof, 0.14 + 1j * roof, 0.34 + 0.28j)
    shapes += [
        Shape("body", cabin),
        Shape(
            "body",
            smooth(
                -0.58 + 0.1j,
                -0.6 + 0.26j,
                -0.4 + 0.3j,
                0.3 + 0.3j,
                0.56 + 0.25j,
                0.6 + 0.11j,
                0.3 + 0.08j,
                -0.3 + 0.08j,
            ),
        ),
    ]
    sill, head = 0.285, roof - 0.03
    shapes += window(
        polygon(complex(-0.34, sill), complex(-0.24, head), complex(-0.08, head), complex(-0.08, sill))
    )
    shapes += window(
        polygon(complex(-0.04, sill), complex(-0.04, head), complex(0.12, head), complex(0.27, sill))
    )
    shapes += [
        *door(-0.06, 0.11, 0.22, 0.27),
        *mirror(0.29 + 0.3j),
        *lamp(0.54 + 0.22j, 0.04),
        *lamp(-0.565 + 0.22j, 0.03),
    ]
    return [*shapes, *wheel(-0.34 + 0.1j, r), *wheel(0.36 + 0.1j, r)]


def bus(pose: Pose) -> list[Shape]:
    """A coach: one long box with a row of windows."""
    if pose.chance(0.25):
        return _front(pose, 0.34, 0.72, "body", roof=0.34)
    top = pose.between(0.5, 0.6)
    r = 0.1
    shapes = [
        Shape("bumper", rounded(-0.66, 0.08, -0.5, 0.16, 0.03), 0.6),
        Shape("bumper", rounded(0.5, 0.08, 0.66, 0.16, 0.03), 0.6),
    ]
    shapes.append(Shape("body", rounded(-0.62, 0.09, 0.62, top, 0.06)))
    for k in range(4):
        left = -0.56 + 0.23 * k
        shapes += window(box(left, 0.32, left + 0.19, top - 0.06))
    shapes += [
        *door(0.38, 0.12, 0.54, top - 0.07),
        *lamp(0.57 + 0.2j, 0.035),
        *mirror(0.65 + 1j * (top - 0.14)),
    ]
    return [*shapes, *wheel(-0.36 + 0.09j, r), *wheel(0.27 + 0.09j, r)]


def truck(pose: Pose) -> list[Shape]:
    """A lorry with a box trailer."""
    if pose.chance(0.2):
        front = _front(pose, 0.34, 0.6, "cab", roof=0.34)
        return [Shape("trailer", box(-0.37, 0.2, 0.37, 0.84), 0.8), *front]
    high = pose.between(0.5, 0.62)
    shapes = [Shape("bumper", rounded(0.52, 0.07, 0.68, 0.15, 0.03), 0.6)]
    shapes.append(Shape("trailer", box(-0.66, 0.14, 0.26, high)))
    shapes += [Shape("trailer", box(x, 0.17, x + 0.02, high - 0.03), 0.75) for x in (-0.45, -0.22, 0.01)]
    shapes.append(Shape("cab", polygon(0.29 + 0.1j, 0.29 + 0.5j, 0.5 + 0.5j, 0.62 + 0.3j, 0.64 + 0.1j)))
    shapes += window(polygon(0.4 + 0.32j, 0.4 + 0.46j, 0.49 + 0.46j, 0.58 + 0.32j))
    shapes += [*door(0.36, 0.13, 0.52, 0.3), *lamp(0.6 + 0.2j, 0.035), *mirror(0.62 + 0.4j)]
    for x in (-0.5, -0.27, 0.46):
        shapes += wheel(x + 0.09j, 0.1)
    return shapes


def _front(pose: Pose, half: float, height: float, skin: str, roof: float) -> list[Shape]:
    """A road vehicle head-on; ``skin`` is the part word of its shell."""
    shapes: list[Shape] = []
    for x in (-1, 1):
        shapes.append(
            Shape("wheel", rounded(x * half * 0.8 - 0.06, 0, x * half * 0.8 + 0.06, 0.2, 0.03), 0.3)
        )
        shapes += mirror(complex(x * (half + 0.05), 0.55 * height + 0.08))
    middle = 0.5 * height
    shell = smooth(
        -half + 0.12j,
        -half + 1j * middle,
        -roof + 1j * height,
        roof + 1j * height,
        half + 1j * middle,
        half + 0.12j,
    )
    shapes.append(Shape(skin, shell))
    shapes += window(
        polygon(
            complex(-0.8 * half, middle + 0.02),
            complex(-0.84 * roof, height - 0.05),
            complex(0.84 * roof, height - 0.05),
            complex(0.8 * half, middle + 0.02),
        )
    )
    shapes.append(Shape("bumper", rounded(-half * 1.02, 0.1, half * 1.02, 0.19, 0.03), 0.6))
    for x in (-1, 1):
        shapes += lamp(complex(x * half * 0.68, 0.19 + 0.22 * middle), 0.055)
    if skin == "body":
        shapes += [Shape("body", box(-0.12, 0.24, 0.12, 0.22 + 0.15 * middle), 0.5)]
    return shapes


def train(pose: Pose) -> list[Shape]:
    """A steam locomotive."""
    shapes = [
        Shape(
            "chimney",
            polygon(0.3 + 0.4j, 0.29 + 0.6j, 0.25 + 0.66j, 0.46 + 0.66j, 0.42 + 0.6j, 0.41 + 0.4j),
            0.75,
        )
    ]
    shapes.append(Shape("body", rounded(-0.16, 0.17, 0.56, 0.45, 0.1)))
    shapes += [Shape("body", box(x, 0.18, x + 0.025, 0.45), 0.65) for x in (0.05, 0.24)]
    shapes.append(Shape("body", box(-0.6, 0.12, 0.58, 0.2), 0.75))
    shapes.append(Shape("cab", box(-0.58, 0.17, -0.14, 0.62)))
    shapes.append(Shape("roof", polygon(-0.65 + 0.61j, -0.56 + 0.7j, -0.16 + 0.7j, -0.08 + 0.61j), 0.7))
    shapes += window(box(-0.34, 0.38, -0.18, 0.56))
    shapes += door(-0.54, 0.19, -0.39, 0.54)
    shapes += lamp(0.57 + 0.34j, 0.05)
    big = pose.about(0.125, 0.08)
    for x, r in ((-0.4, big), (-0.1, big), (0.2, 0.09), (0.44, 0.09)):
        shapes += wheel(complex(x, r - 0.02), r)
    return shapes


def bicycle(pose: Pose) -> list[Shape]:
    """A city bicycle."""
    r = pose.between(0.22, 0.26)
    rear, front = complex(-0.38, r), complex(0.38, r)
    spin, crank = pose.between(0, 45), pose.between(0, 180)
    seat, bar, axle = -0.16 + 0.5j, 0.26 + 0.53j, -0.03 + 1j * r
    shapes = [*wheel(rear, r, spin), *wheel(front, r, spin + 20)]
    shapes.append(Shape("pedal", limb(axle, axle - 0.13 * turn(crank), 0.014), 0.6))
    shapes.append(
        Shape("pedal", limb(axle - 0.13 * turn(crank) - 0.05, axle - 0.13 * turn(crank) + 0.05, 0.02), 0.6)
    )
    for a, b in (
        (rear, axle),
        (rear, seat),
        (axle, seat),
        (axle, bar - 0.02 - 0.07j),
        (seat - 0.02j, bar - 0.07j),
        (bar, front),
    ):
        shapes.append(Shape("frame", limb(a, b, 0.022)))
    shapes.append(Shape("pedal", ellipse(axle, 0.055), 0.8))
    shapes.append(Shape("pedal", limb(axle, axle + 0.13 * turn(crank), 0.016), 0.9))
    shapes.append(
        Shape(
            "pedal", limb(axle + 0.13 * turn(crank) - 0.055, axle + 0.13 * turn(crank) + 0.055, 0.024), 0.9
        )
    )
    return [*shapes, *_saddle(seat + 0.04j, 0.13), *_handlebar(bar)]


def _saddle(center: complex, half: float) -> list[Shape]:
    outline = smooth(
        center - half + 0.04j,
        center - half * 0.2 + 0.02j,
        center + half + 0.02j,
        center + half - 0.02j,
        center - 0.5 * half - 0.06j,
    )
    return [Shape("seat", outline, 0.6)]


def _handlebar(root: complex) -> list[Shape]:
    bar = ribbon((root - 0.03j, root + 0.02 + 0.14j, root - 0.15 + 0.1j), 0.045, 0.04)
    return [
        Shape("handlebar", bar, 0.8),
        Shape("handlebar", limb(root - 0.1 + 0.1j, root - 0.18 + 0.095j, 0.034), 0.4),
    ]


def motorcycle(pose: Pose) -> list[Shape]:
    """A touring motorcycle."""
    r = pose.between(0.19, 0.22)
    rear, front = complex(-0.4, r), complex(0.43, r)
    shapes = [Shape("body", limb(front, 0.25 + 0.52j, 0.024), 0.7)]
    shapes += [*wheel(rear, r), *wheel(front, r)]
    shapes.append(Shape("body", limb(rear, -0.05 + 0.2j, 0.035), 0.6))
    shapes.append(Shape("engine", ellipse(0.02 + 0.22j, 0.14, 0.12), 0.6))
    shapes += [Shape("engine", box(-0.09, y, 0.13, y + 0.02), 1.4) for y in (0.18, 0.23, 0.28)]
    shapes.append(
        Shape(
            "body",
            smooth(
                -0.55 + 0.4j, -0.3 + 0.43j, 0.0 + 0.5j, 0.24 + 0.5j, 0.28 + 0.38j, 0.0 + 0.31j, -0.3 + 0.35j
            ),
        )
    )
    shapes += [*_saddle(-0.22 + 0.47j, 0.2), *lamp(0.33 + 0.47j, 0.055)]
    return [*shapes, *_handlebar(0.24 + 0.53j)]


def airplane(pose: Pose) -> list[Shape]:
    """An airliner."""
    tilt = turn(pose.between(-12, 12))
    shapes = [Shape("wing", polygon(0.05 + 0.08j, -0.2 + 0.36j, -0.3 + 0.36j, -0.15 + 0.08j), FAR)]
    shapes.append(Shape("tail", polygon(-0.42 + 0.06j, -0.64 + 0.36j, -0.52 + 0.36j, -0.26 + 0.08j), 0.9))
    shapes.append(
        Shape(
            "body",
            smooth(
                -0.66 + 0.07j,
                -0.3 + 0.11j,
                0.3 + 0.11j,
                0.52 + 0.07j,
                0.6 - 0.01j,
                0.46 - 0.09j,
                -0.25 - 0.09j,
            ),
        )
    )
    shapes.append(Shape("tail", polygon(-0.44 + 0.04j, -0.72 - 0.02j, -0.62 - 0.04j, -0.36 + 0.0j), 0.75))
    for k in range(4):
        shapes += window(ellipse(complex(-0.16 + 0.12 * k, 0.045), 0.036, 0.042))
    shapes += window(polygon(0.42 + 0.09j, 0.5 + 0.075j, 0.54 + 0.03j, 0.42 + 0.03j))
    shapes += door(0.29, -0.05, 0.37, 0.08)
    shapes.append(Shape("wing", polygon(0.14 - 0.03j, -0.28 - 0.36j, -0.4 - 0.36j, -0.16 - 0.03j), 0.85))
    shapes.append(Shape("engine", limb(-0.14 - 0.16j, 0.06 - 0.16j, 0.05, 0.062), 0.6))
    shapes.append(Shape("engine", ellipse(0.1 - 0.16j, 0.025, 0.058), 1.4))
    return [Shape(part, outline * tilt, tone) for part, outline, tone in shapes]


def helicopter(pose: Pose) -> list[Shape]:
    """With main rotor, tail rotor and skids."""
    tilt = turn(pose.between(-10, 10))
    slant = pose.between(-0.05, 0.05)
    shapes = [Shape("body", limb(0.08 + 0.18j, 0.08 + 0.34j, 0.025), 0.6)]
    shapes.append(Shape("tail", polygon(-0.15 + 0.08j, -0.7 + 0.1j, -0.7 + 0.05j, -0.15 - 0.06j), 0.9))
    shapes.append(Shape("tail", polygon(-0.6 + 0.08j, -0.72 + 0.26j, -0.8 + 0.26j, -0.72 + 0.05j), 0.75))
    for x in (-0.06, 0.22):
        shapes.append(Shape("body", limb(complex(x, -0.14), complex(x, -0.28), 0.018), 0.6))
    shapes.append(Shape("body", limb(-0.2 - 0.29j, 0.38 - 0.29j, 0.024), 0.6))
    shapes.append(
        Shape(
            "body",
            smooth(
                -0.24 + 0.06j,
                -0.08 + 0.2j,
                0.2 + 0.2j,
                0.42 + 0.04j,
                0.42 - 0.1j,
                0.14 - 0.18j,
                -0.14 - 0.14j,
            ),
        )
    )
    shapes += window(smooth(0.19 + 0.16j, 0.38 + 0.04j, 0.39 - 0.06j, 0.19 - 0.06j))
    shapes += door(-0.04, -0.13, 0.14, 0.13)
    shapes += lamp(0.33 - 0.13j, 0.04)
    for way in (1, -1):
        shapes.append(
            Shape(
                "blade",
                polygon(
                    0.08 + 0.33j,
                    0.08 + 0.62 * way + (0.36 + slant * way) * 1j,
                    0.08 + 0.62 * way + (0.29 + slant * way) * 1j,
                ),
                0.8,
            )
        )
    shapes.append(Shape("blade", ellipse(0.08 + 0.34j, 0.045), 0.5))
    spin = turn(pose.between(20, 160))
    shapes.append(
        Shape("blade", limb(-0.75 + 0.17j - 0.14 * spin, -0.75 + 0.17j + 0.14 * spin, 0.022), 0.8)
    )
    return [Shape(part, outline * tilt, tone) for part, outline, tone in shapes]


def sailboat(pose: Pose) -> list[Shape]:
    """With main sail, jib and a flag at the masthead."""
    wind = pose.between(0.4, 1.0)
    tilt = turn(pose.between(-9, 9))
    shapes = [
        Shape(
            "hull", smooth(-0.5 + 0.12j, -0.3 + 0.1j, 0.4 + 0.1j, 0.58 + 0.15j, 0.36 - 0.1j, -0.36 - 0.1j)
        )
    ]
    shapes.append(Shape("hull", polygon(-0.47 + 0.05j, 0.5 + 0.05j, 0.47 + 0.01j, -0.44 + 0.01j), 0.5))
    shapes.append(Shape("mast", limb(0.1j, 0.96j, 0.022), 0.7))
    shapes.append(
        Shape(
            "sail",
            smooth(
                -0.03 + 0.2j,
                -0.02 + 0.55j,
                -0.02 + 0.86j,
                -0.16 * wind - 0.1 + 0.5j,
                -0.42 * wind - 0.05 + 0.2j,
            ),
            1.15,
        )
    )
    shapes.append(
        Shape("sail", smooth(0.04 + 0.82j, 0.18 * wind + 0.1 + 0.45j, 0.48 + 0.19j, 0.06 + 0.22j), 1.0)
    )
    shapes += flag(0.96j, pose)
    return [Shape(part, outline * tilt, tone) for part, outline, tone in shapes]


def flag(top: complex, pose: Pose) -> list[Shape]:
    """A waving flag that hangs to the left of its pole's top."""
    wave = pose.between(-0.05, 0.05)
    cloth = ribbon(
        (top - 0.07j, top - 0.1 + (wave - 0.07) * 1j, top - 0.14 - (wave + 0.07) * 1j, top - 0.25 - 0.07j),
        0.13,
        0.13,
    )
    stripe = ribbon(
        (top - 0.07j, top - 0.1 + (wave - 0.07) * 1j, top - 0.14 - (wave + 0.07) * 1j, top - 0.25 - 0.07j),
        0.045,
        0.045,
    )
    return [Shape("flag", cloth), Shape("flag", stripe, 1.5)]
