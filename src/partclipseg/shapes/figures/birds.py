"""Birds: one body plan seen from the side, one upright plan seen from the front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from partclipseg.shapes.figures.animals import FAR, eye
from partclipseg.shapes.geometry import Shape, ellipse, limb, polygon, ribbon, smooth, turn
from partclipseg.shapes.pose import Pose


@dataclass(frozen=True)
class Bird:
    """Proportions of a bird seen from the side; the unit is about its body length."""

    parts: tuple[str, ...]
    length: float = 0.62
    thickness: float = 0.38
    tilt: float = 12
    """How far the breast is raised, degrees."""
    neck: float = 0.12
    neck_bow: float = 0.0
    """Sideways reach of an S-shaped neck."""
    neck_width: float = 0.13
    head: float = 0.12
    beak: float = 0.15
    beak_kind: Literal["flat", "short", "bent"] = "flat"
    leg: float = 0.18
    tail: Literal["short", "plume"] = "short"
    wings_up: float = 0.3
    """How often the wings are spread."""

    def __call__(self, pose: Pose) -> list[Shape]:
        """The shapes in the order they are drawn."""
        lean = turn(self.tilt + pose.between(-9, 9))
        half, radius = self.length / 2, self.thickness / 2
        spread = pose.chance(self.wings_up)
        shapes: list[Shape] = []
        if spread:
            shapes.append(self._wing(pose, lean, FAR, 95))
        shapes += self._leg(pose, -0.05, FAR, pose.between(2, 26))
        shapes += self._tail(pose, lean)
        body = smooth(
            -half,
            -0.5 * half + 0.85j * radius,
            0.45 * half + 0.95j * radius,
            half * 1.02,
            0.4 * half - 1j * radius,
            -0.5 * half - 0.75j * radius,
        )
        shapes += self._leg(pose, 0.06, 0.95, pose.between(-22, 2))

        breast = complex(half * 0.72, radius * 0.3) * lean
        bend = pose.between(-8, 8)
        rise = (self.neck + 0.07) * turn(72 + bend)
        face = breast + rise + self.neck_bow * 0.35
        if self.neck_bow:
            neck = ribbon(
                (
                    breast - 0.03,
                    breast + 0.45 * rise + self.neck_bow,
                    face - self.neck_bow * 1.5 - 0.15 * rise + 0.25j * self.neck,
                    face,
                ),
                self.neck_width * 1.5,
                self.neck_width * 0.7,
            )
        else:
            neck = limb(breast, face, self.neck_width * 0.75, self.neck_width * 0.5)
        shapes += [Shape("neck", neck), Shape("body", body * lean)]
        if "neck" not in self.parts:
            shapes.append(Shape("head", limb(breast - 0.02, face, self.head * 0.85, self.head * 0.9)))
        nod = turn(pose.between(-14, 10))
        shapes += self._face(face, nod)
        shapes.append(self._wing(pose, lean, 0.85, 125) if spread else self._folded(pose, lean))
        return [shape for shape in shapes if shape.part in self.parts]

    def _face(self, face: complex, nod: complex) -> list[Shape]:
        size, beak = self.head, self.beak
        shapes = []
        if "comb" in self.parts:
            bumps = [
                ellipse(face + (x + 1j * y) * size * nod, 0.4 * size, 0.5 * size)
                for x, y in ((-0.6, 0.8), (0, 1.1), (0.55, 0.9))
            ]
            shapes += [Shape("comb", bump, 1.1) for bump in bumps]
        front = 0.72 * size
        if self.beak_kind == "flat":
            outline = smooth(
                front + 0.45j * size,
                front + 0.5 * beak + 0.05j * size,
                front + beak + 0.05j * size,
                front + beak - 0.3j * size,
                front - 0.45j * size,
            )
        elif self.beak_kind == "short":
            outline = polygon(front + 0.4j * size, front + beak - 0.1j * size, front - 0.4j * size)
        else:
            outline = ribbon(
                (front - 0.05, front + 0.75 * beak, front + 0.75 * beak - 0.9j * beak),
                0.85 * size,
                0.15 * size,
            )
        shapes.append(Shape("beak", face + outline * nod, 0.9))
        shapes.append(Shape("head", ellipse(face, size, size * 0.92)))
        return shapes + eye(face + (0.3 + 0.2j) * size * nod, max(0.026, 0.23 * size))

    def _leg(self, pose: Pose, x: float, tone: float, degrees: float) -> list[Shape]:
        if self.leg <= 0:
            return []
        hip = complex(x, -0.25 * self.thickness)
        knee = hip + (0.5 * self.leg + 0.1) * turn(-90 - 0.6 * degrees)
        ankle = complex(knee.real + 0.012 * degrees * self.leg, -0.5 * self.thickness - self.leg)
        shapes = [
            Shape("leg", limb(hip, knee, 0.05, 0.026), tone),
            Shape("leg", limb(knee, ankle, 0.026, 0.022), tone),
        ]
        if self.leg < 0.25:
            web = polygon(ankle + 0.05j, ankle + 0.16 - 0.02j, ankle + 0.11 - 0.035j, ankle - 0.04 - 0.025j)
            return [
                *(shape._replace(part="foot") for shape in shapes if "leg" not in self.parts),
                *shapes,
                Shape("foot", web, tone),
            ]
        toes = [limb(ankle, ankle + way, 0.03, 0.018) for way in (0.14 - 0.02j, -0.07 - 0.02j)]
        return shapes + [Shape("foot", toe, 0.9 * tone) for toe in toes]

    def _tail(self, pose: Pose, lean: complex) -> list[Shape]:
        root = -0.42 * self.length
        if self.tail == "plume":
            shapes = []
            for k in range(3):
                way = turn(150 - 28 * k + pose.between(-8, 8))
                shapes.append(
                    Shape(
                        "tail",
                        (root + ribbon((0.05, 0.28 * way, 0.33 * way - 0.16 + 0.02j), 0.15, 0.05)) * lean,
                        0.8 + 0.15 * k,
                    )
                )
            return shapes
        fan = turn(pose.between(-12, 14))
        return [
            Shape(
                "tail",
                (root + polygon(0.1 + 0.1j, -0.2 + 0.1j, -0.23 - 0.0j, 0.08 - 0.07j) * fan) * lean,
                0.8,
            )
        ]

    def _folded(self, pose: Pose, lean: complex) -> Shape:
        half, radius = self.length / 2, self.thickness / 2
        droop = turn(pose.between(-8, 8))
        outline = smooth(
            0.5 * half + 0.25j * radius,
            0.1 * half + 0.65j * radius,
            -0.95 * half + 0.2j * radius,
            -0.45 * half - 0.35j * radius,
            0.25 * half - 0.4j * radius,
        )
        return Shape("wing", outline * droop * lean, 0.78)

    def _wing(self, pose: Pose, lean: complex, tone: float, degrees: float) -> Shape:
        span = self.length * 0.95
        # Along the real axis, the leading edge below it, feathers that get shorter towards the body above it.
        leading = (-0.05 - 0.08j, 0.12 - 0.13j, 0.6 * span - 0.15j, span - 0.02j)
        trailing = (
            0.8 * span + 0.1j,
            0.7 * span + 0.03j,
            0.6 * span + 0.17j,
            0.48 * span + 0.09j,
            0.32 * span + 0.2j,
            0.2 * span + 0.12j,
            0.16j,
        )
        lift = turn(degrees + pose.between(-25, 20))
        return Shape(
            "wing", (complex(0.0, 0.15 * self.thickness) + smooth(*leading, *trailing) * lift) * lean, tone
        )


@dataclass(frozen=True)
class UprightBird:
    """A bird that stands upright and looks at the viewer."""

    parts: tuple[str, ...]
    width: float = 0.46
    height: float = 0.78
    head: float = 0.24
    eye: float = 0.09
    flipper: bool = False

    def __call__(self, pose: Pose) -> list[Shape]:
        """The shapes in the order they are drawn."""
        half = self.width / 2
        shapes: list[Shape] = []
        for side in (-1, 1):
            spot = complex(0.5 * half * side, -0.46 * self.height)
            toes = [
                limb(spot + 0.03j, spot + way, 0.042, 0.025)
                for way in (0.1 * side - 0.03j, -0.05j, -0.06 * side - 0.03j)
            ]
            shapes += [Shape("foot", toe, 0.9) for toe in toes]
        if "tail" in self.parts:
            shapes.append(Shape("tail", polygon(-0.1 - 0.3j, 0.1 - 0.3j, 0.2 - 0.5j, -0.2 - 0.5j), 0.7))
        body = ellipse(0, half, self.height / 2)
        shapes.append(Shape("body", body))
        shapes.append(Shape("body", ellipse(-0.06j, half * 0.62, self.height * 0.36), 1.35))
        for side in (-1, 1):
            flap = pose.between(4, 30) if not pose.chance(0.25) else pose.between(50, 100)
            root = complex(0.8 * half, 0.22 * self.height)
            if self.flipper:
                wing = ellipse(-0.24j, 0.09, 0.27) * turn(flap + 6) + root
            else:
                wing = (
                    smooth(-0.08 + 0.06j, 0.08 + 0.02j, 0.1 - 0.25j, -0.02 - 0.5j, -0.13 - 0.2j)
                    * turn(flap * 0.8)
                    + root
                )
            shapes.append(Shape("wing", wing if side > 0 else -wing.conj(), 0.75))
        nod = turn(pose.between(-13, 13))
        face = complex(0, self.height / 2 + self.head * 0.35)
        if "ear" in self.parts:
            for side in (-1, 1):
                ear = polygon(
                    0.3 * self.head + 0.6j * self.head,
                    0.95 * self.head + 0.3j * self.head,
                    0.95 * self.head + 1.25j * self.head,
                )
                shapes.append(Shape("ear", face + (ear if side > 0 else -ear.conj()) * nod, 0.88))
        shapes.append(Shape("head", ellipse(0, self.head, self.head * 0.88) * nod + face))
        for side in (-1, 1):
            shapes += eye(face + (0.42 * side + 0.12j) * self.head * nod, self.eye)
        beak = polygon(-0.2 + 0.05j, 0.2 + 0.05j, -0.55j) * self.head
        shapes.append(Shape("beak", face + (beak - 0.05j) * nod, 0.9))
        return [shape for shape in shapes if shape.part in self.parts]
