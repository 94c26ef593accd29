"""Fish and other swimmers, and small crawling and flying animals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from partclipseg.shapes.figures.animals import FAR, eye
from partclipseg.shapes.geometry import Shape, ellipse, limb, polygon, ribbon, smooth, turn
from partclipseg.shapes.pose import Pose


@dataclass(frozen=True)
class Fish:
    """A swimmer from the side, nose to the right."""

    parts: tuple[str, ...]
    height: float = 0.4
    tail: Literal["forked", "fan", "fluke"] = "fan"
    fin: Literal["fan", "triangle", "low"] = "fan"
    bow: float = 0.0
    """How blunt the forehead is."""

    def __call__(self, pose: Pose) -> list[Shape]:
        """The shapes in the order they are drawn."""
        h = self.height / 2
        bend = pose.between(-14, 14)
        root = -0.42 + 0.002j * bend + (0.12j if self.tail == "fluke" else 0)
        sway = turn(bend)
        if self.tail == "forked":
            tail = polygon(0.06 + 0.03j, -0.2 + 0.3j, -0.11 + 0.02j, -0.17 - 0.2j, 0.06 - 0.04j)
        elif self.tail == "fan":
            tail = smooth(0.06 + 0.03j, -0.22 + 0.22j, -0.12 + 0.0j, -0.22 - 0.22j, 0.06 - 0.04j)
        else:
            tail = smooth(
                0.08 - 0.06j,
                -0.1 + 0.03j,
                -0.3 + 0.2j,
                -0.12 + 0.19j,
                -0.04 + 0.15j,
                0.03 + 0.24j,
                0.17 + 0.3j,
                0.08 + 0.08j,
            )
        shapes = [Shape("tail", root + tail * sway, 0.9)]
        flap = turn(pose.between(-14, 14))
        if self.fin == "fan":
            shapes.append(
                Shape(
                    "fin", smooth(-0.25 + 0.6j * h, -0.2 + 1.65j * h, 0.05 + 1.5j * h, 0.12 + 0.8j * h), 0.8
                )
            )
            shapes.append(
                Shape(
                    "fin",
                    smooth(-0.22 - 0.6j * h, -0.2 - 1.4j * h, -0.05 - 1.1j * h, -0.02 - 0.8j * h),
                    0.8,
                )
            )
        elif self.fin == "triangle":
            shapes.append(
                Shape("fin", polygon(-0.08 + 0.7j * h, -0.1 + 1.05j * h + 0.17j, 0.12 + 0.7j * h), 0.8)
            )
            shapes.append(
                Shape("fin", polygon(-0.3 + 0.3j * h, -0.32 + 0.1j + 0.5j * h, -0.22 + 0.4j * h), 0.8)
            )
        nose = 0.5 + 0.02 * self.bow
        body = smooth(
            nose - 0.08j * h,
            0.36 + (0.62 + 0.3 * self.bow) * 1j * h,
            0.08 + 1j * h,
            -0.25 + 0.6j * h,
            root + 0.05j * sway,
            root - 0.05j * sway,
            -0.25 - 0.5j * h,
            0.08 - 1j * h,
            0.36 - (0.65 + 0.2 * self.bow) * 1j * h,
        )
        shapes.append(Shape("body", body))
        if "head" in self.parts:
            head = smooth(
                nose - 0.08j * h,
                0.36 + (0.62 + 0.3 * self.bow) * 1j * h,
                0.22 + 0.9j * h,
                0.27 + 0j,
                0.22 - 0.9j * h,
                0.36 - (0.65 + 0.2 * self.bow) * 1j * h,
            )
            shapes.append(Shape("head", head))
        jaw = pose.between(0.1, 0.5)
        lips = 0.5 - 0.42j * h
        if self.bow:
            shapes.append(
                Shape(
                    "mouth",
                    ribbon(
                        (nose - 0.01 - 0.3j * h, 0.4 - 0.55j * h, 0.28 - 0.2j * h), 0.035 + 0.02 * jaw, 0.02
                    ),
                    0.3,
                )
            )
        else:
            shapes.append(
                Shape(
                    "mouth",
                    smooth(lips - 0.015 + 0.12j * h, lips - 0.13, lips - 0.06 - (0.1 + 0.3 * jaw) * 1j * h),
                    0.35,
                )
            )
        if "gill" in self.parts:
            for k in range(3):
                x = 0.24 - 0.035 * k
                shapes.append(
                    Shape("gill", ribbon((x + 0.4j * h, x - 0.05 + 0j, x - 0.4j * h), 0.018, 0.018), 0.4)
                )
        shapes += eye(0.37 + 0.25j * h, 0.034)
        if self.fin == "fan":
            side = smooth(0.03j, -0.17 + 0.03j, -0.16 - 0.1j, -0.02 - 0.04j)
        else:
            side = polygon(0.1 + 0.03j, -0.2 - 0.2j, -0.06 + 0.02j)
        shapes.append(Shape("fin", 0.12 - 0.35j * h + side * flap, 0.75))
        return [shape for shape in shapes if shape.part in self.parts]


def turtle(pose: Pose) -> list[Shape]:
    """From the side."""
    reach = pose.between(-12, 25)
    root = 0.36 + 0.1j
    face = root + 0.24 * turn(20 + reach)
    shapes = [Shape("tail", polygon(-0.4 + 0.12j, -0.62 + 0.02j + 0.002j * reach, -0.4 + 0.02j), 0.9)]
    for x, tone in ((-0.2, FAR), (0.32, FAR), (-0.3, 0.95), (0.22, 0.95)):
        hip = complex(x, 0.04)
        shapes.append(
            Shape("leg", limb(hip, hip + 0.22 * turn(-90 + pose.between(-28, 28)), 0.085, 0.06), tone)
        )
    shapes.append(Shape("neck", limb(root - 0.1, face, 0.075, 0.06)))
    shapes.append(Shape("head", ellipse(face + 0.04, 0.125, 0.1)))
    shapes += eye(face + 0.08 + 0.03j, 0.03)
    dome = smooth(-0.5 + 0.04j, -0.36 + 0.3j, 0.0 + 0.43j, 0.34 + 0.28j, 0.47 + 0.04j, 0.0 - 0.02j)
    shapes.append(Shape("shell", dome, 0.9))
    plates = ((-0.22 + 0.18j, 0.1), (0.0 + 0.24j, 0.12), (0.22 + 0.18j, 0.1))
    shapes += [Shape("shell", ellipse(center, radius, radius * 0.9), 1.25) for center, radius in plates]
    return shapes


def crab(pose: Pose) -> list[Shape]:
    """From the front, claws raised."""
    shapes: list[Shape] = []
    for side in (-1, 1):
        for k in range(3):
            root = complex(0.3 * side, -0.05 - 0.05 * k)
            knee = root + 0.22 * complex(side, 0.45 - 0.4 * k)
            foot = knee + 0.2 * complex(0.5 * side, -1) * turn(pose.between(-15, 15))
            shapes += [
                Shape("leg", limb(root, knee, 0.035, 0.028), 0.85),
                Shape("leg", limb(knee, foot, 0.028, 0.012), 0.85),
            ]
        lift = turn(side * pose.between(-20, 25))
        elbow = complex(0.32 * side, 0.1) + 0.22 * complex(side, 0.35) * lift
        shapes.append(Shape("claw", limb(complex(0.3 * side, 0.08), elbow, 0.045, 0.045), 0.9))
        tip = elbow + 0.08j
        for way, width in ((18 * side + 90, 0.085), (-28 * side + 90, 0.055)):
            shapes.append(Shape("claw", limb(tip, tip + 0.2 * turn(way), width, 0.012), 1.0))
        stalk = complex(0.1 * side, 0.16)
        shapes.append(Shape("eye", limb(stalk, stalk + 0.12j + 0.03 * side, 0.02), 0.6))
    shapes.append(Shape("shell", ellipse(0, 0.4, 0.24)))
    shapes.append(Shape("shell", ellipse(0.09j, 0.28, 0.09), 1.25))
    shapes.append(Shape("mouth", ribbon((-0.12 - 0.07j, -0.15j, 0.12 - 0.07j), 0.03, 0.03), 0.3))
    for side in (-1, 1):
        shapes += eye(complex(0.13 * side, 0.29), 0.05)
    return shapes


def butterfly(pose: Pose) -> list[Shape]:
    """From above, wings spread."""
    spread = pose.between(0.62, 1.1)
    shapes: list[Shape] = []
    upper = smooth(0.03 + 0.1j, 0.2 + 0.42j, 0.5 + 0.46j, 0.48 + 0.16j, 0.2 - 0.02j)
    lower = smooth(0.03, 0.3 - 0.02j, 0.4 - 0.2j, 0.22 - 0.42j, 0.05 - 0.2j)
    for side in (-1, 1):
        for wing, tone in ((lower, 0.85), (upper, 1.0)):
            half = spread * wing.real + 1j * wing.imag
            shapes.append(Shape("wing", half if side > 0 else -half.conj(), tone))
        for center, radius in ((0.33 + 0.3j, 0.075), (0.23 - 0.2j, 0.06)):
            spot = complex(side * spread * center.real, center.imag)
            shapes.append(Shape("wing", ellipse(spot, radius * spread, radius), 1.4))
        bow = pose.between(0.08, 0.2)
        tip = complex(side * bow, 0.52)
        shapes.append(Shape("antenna", ribbon((0.2j, complex(0.02 * side, 0.4), tip), 0.026, 0.022), 0.5))
        shapes.append(Shape("antenna", ellipse(tip, 0.026), 0.5))
    shapes.append(Shape("body", limb(0.1j, -0.3j, 0.055, 0.03), 0.7))
    shapes.append(Shape("head", ellipse(0.21j, 0.075)))
    for side in (-1, 1):
        shapes += eye(complex(0.04 * side, 0.235), 0.026)
    return shapes


def bee(pose: Pose) -> list[Shape]:
    """From the side."""
    shapes: list[Shape] = []
    for x in (-0.02, 0.08, 0.18):
        hip = complex(x, -0.1)
        knee = hip + 0.13 * turn(-75 + pose.between(-18, 18))
        shapes += [
            Shape("leg", limb(hip, knee, 0.022), 0.7),
            Shape("leg", limb(knee, knee - 0.04 - 0.09j, 0.02, 0.012), 0.7),
        ]
    face = 0.34 + 0.02j
    for way in (38, 68):
        mid, tip = face + 0.17 * turn(way), face + 0.2 * turn(way) + 0.11
        shapes.append(Shape("antenna", ribbon((face, mid, tip), 0.026, 0.022), 0.5))
        shapes.append(Shape("antenna", ellipse(tip, 0.026), 0.5))
    abdomen = smooth(
        0.18 + 0.1j, -0.05 + 0.2j, -0.32 + 0.12j, -0.5 - 0.06j, -0.3 - 0.16j, 0 - 0.18j, 0.18 - 0.1j
    )
    shapes.append(Shape("body", abdomen))
    for x, high in ((-0.08, 0.17), (-0.22, 0.145), (-0.34, 0.09)):
        shapes.append(Shape("body", ribbon((x + 1j * high, x - 0.05, x - 0.01 - 0.16j), 0.06, 0.05), 0.35))
    shapes.append(Shape("head", ellipse(face, 0.135, 0.125)))
    shapes += eye(face + 0.06 + 0.03j, 0.04)
    for base, tone in ((25, 0.85), (0, 1.25)):
        way = 112 + base * 0.9 + pose.between(-18, 18)
        shapes.append(Shape("wing", 0.08 + 0.12j + ellipse(0.25, 0.26, 0.115) * turn(way), tone))
    return shapes


def snail(pose: Pose) -> list[Shape]:
    """From the side, stretched out."""
    lift = pose.between(-8, 14)
    face = 0.42 + 0.16j + 0.005j * lift
    shapes: list[Shape] = []
    for way in (52, 84):
        tip = face + 0.27 * turn(way + pose.between(-14, 14))
        shapes.append(Shape("antenna", ribbon((face, 0.5 * (face + tip) + 0.02, tip), 0.032, 0.026), 0.5))
        shapes.append(Shape("antenna", ellipse(tip, 0.03), 0.5))
    foot = smooth(
        -0.6 - 0.12j,
        -0.3 + 0.03j,
        0.2 + 0.02j,
        face - 0.1 + 0.03j,
        face + 0.04j,
        0.48 - 0.05j,
        0.36 - 0.13j,
    )
    shapes.append(Shape("body", foot))
    shapes.append(Shape("head", ellipse(face, 0.115, 0.1)))
    shapes += eye(face + 0.045 + 0.02j, 0.03)
    for radius, tone, shift in (
        (0.29, 0.9, 0),
        (0.2, 1.25, 0.02),
        (0.12, 0.85, 0.035),
        (0.055, 1.25, 0.045),
    ):
        shapes.append(
            Shape("shell", ellipse(complex(-0.08 + shift, 0.23 - shift), radius, radius * 0.95), tone)
        )
    return shapes
