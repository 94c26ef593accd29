"""Four-legged animals: one body plan, from the side or from the front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from partclipseg.shapes.geometry import Shape, ellipse, limb, polygon, ribbon, smooth, star, turn
from partclipseg.shapes.pose import Pose

FAR = 0.72
"""Tone of what lies on the far side of the body."""


def eye(center: complex, radius: float) -> list[Shape]:
    """An eye as every figure has it: a light disc with a dark pupil."""
    return [
        Shape("eye", ellipse(center, radius), 1.75),
        Shape("eye", ellipse(center + 0.2 * radius, radius * 0.55), 0.1),
    ]


@dataclass(frozen=True)
class Quadruped:
    """Proportions of a four-legged animal; the unit is about its body length."""

    parts: tuple[str, ...]
    length: float = 0.8
    thickness: float = 0.4
    leg: float = 0.42
    """From the belly line to the ground."""
    leg_width: float = 0.11
    neck: float = 0.22
    neck_angle: float = 50
    neck_width: float = 0.2
    head: float = 0.17
    """Half length of the head."""
    head_height: float = 0.145
    head_angle: float = -10
    muzzle: float = 0.15
    muzzle_width: float = 0.1
    ear: Literal["pointed", "floppy", "long", "large", "leaf"] = "leaf"
    ear_size: float = 0.12
    tail: float = 0.4
    tail_angle: float = 200
    tail_width: float = 0.07
    tail_tip: float = 0.02
    woolly: bool = False

    def __call__(self, pose: Pose) -> list[Shape]:
        """The shapes in the order they are drawn."""
        shapes = self._front(pose) if pose.chance(0.22) else self._side(pose)
        return [shape for shape in shapes if shape.part in self.parts]

    # -- from the side ----------------------------------------------------------------------------------------

    def _side(self, pose: Pose) -> list[Shape]:
        half, radius = self.length / 2, self.thickness / 2
        middle = self.leg + radius * 0.8
        hip, shoulder = complex(-half + radius * 0.75, middle), complex(half - radius * 0.75, middle)
        stride = pose.between(-1, 1)
        swing = 22 * stride
        far_legs = self._leg(pose, hip, 14 + swing, FAR) + self._leg(pose, shoulder, 12 - swing, FAR)
        near_legs = self._leg(pose, hip - 0.03, -9 - swing, 0.95) + self._leg(
            pose, shoulder - 0.02, -8 + swing, 0.95
        )

        lift = pose.between(-14, 14)
        root = shoulder + complex(radius * 0.25, radius * 0.35)
        nape = root + (self.neck + 0.08) * turn(self.neck_angle + lift)
        tilt = turn(self.head_angle + lift + pose.between(-14, 14))
        face = nape + self.head * 0.55 * tilt
        if self.woolly:
            body = star(complex(0, middle), 1, 9, 0.12)
            body = body.real * (half * 1.05) + 1j * ((body.imag - middle) * radius * 1.25 + middle)
            trunk = smooth(*body)
        else:
            trunk = limb(hip + 0.02j, shoulder, radius * 0.96, radius)
        shapes = [*far_legs, *self._tail(pose, complex(-half + radius * 0.1, middle + radius * 0.55))]
        shapes += self._ear(pose, face, tilt, FAR, shift=0.09)
        shapes.append(Shape("body", trunk))
        shapes.append(Shape("neck", limb(root - 0.03, nape, self.neck_width * 0.62, self.neck_width * 0.4)))
        if "udder" in self.parts:
            shapes.append(Shape("udder", ellipse(hip + complex(0.16, -radius), 0.09, 0.08)))
        shapes += near_legs
        if "mane" in self.parts and "neck" in self.parts:
            along = (nape - root) / abs(nape - root)
            ridge = 1j * along * self.neck_width * 0.48
            shapes.append(
                Shape(
                    "mane",
                    limb(root + ridge - 0.06 * along, nape + ridge * 0.75 + 0.08 * along, 0.07, 0.05),
                    0.6,
                )
            )
        if "mane" in self.parts and "neck" not in self.parts:
            shapes.append(Shape("mane", star(face - 0.05 * tilt, self.head * 1.9, 11, 0.16), 0.75))
        shapes += self._face_side(pose, face, tilt)
        return shapes

    def _leg(self, pose: Pose, joint: complex, degrees: float, tone: float) -> list[Shape]:
        degrees = degrees + pose.between(-7, 7)
        length = joint.imag
        knee = joint + 0.5 * length * turn(-90 + degrees)
        ankle = complex(knee.real + 0.42 * length * turn(-90 + degrees * 0.35).real, 0.05)
        thick, thin = self.leg_width * 0.62, self.leg_width * 0.42
        shapes = [
            Shape("leg", limb(joint, knee, thick * 1.25, thick), tone),
            Shape("leg", limb(knee, ankle, thick, thin), tone),
        ]
        if "hoof" in self.parts:
            base = thin * 1.5
            corners = (
                complex(-thin, 0.1),
                complex(thin, 0.1),
                complex(base + 0.02, -0.01),
                complex(-base + 0.01, -0.01),
            )
            shapes.append(Shape("hoof", polygon(*(ankle.real + corner for corner in corners)), 0.4 * tone))
        else:
            shapes.append(
                Shape(
                    "paw",
                    ellipse(complex(ankle.real + 0.035, 0.045), thin * 1.5 + 0.02, 0.055),
                    1.15 * tone,
                )
            )
        return shapes

    def _tail(self, pose: Pose, root: complex) -> list[Shape]:
        swing = pose.between(-28, 28)
        first = root + 0.5 * self.tail * turn(self.tail_angle + swing)
        second = first + 0.5 * self.tail * turn(self.tail_angle + 1.9 * swing - 15)
        return [Shape("tail", ribbon((root + 0.04, first, second), self.tail_width, self.tail_tip + 0.02))]

    def _face_side(self, pose: Pose, face: complex, tilt: complex) -> list[Shape]:
        size, height = self.head, self.head_height
        shapes = [Shape("head", (ellipse(0, size, height)) * tilt + face)]
        tip = face + (size * 0.55 + self.muzzle) * tilt - 0.25j * height * tilt
        start = face + size * 0.45 * tilt - 0.2j * height * tilt
        shapes.append(
            Shape("muzzle", limb(start, tip, self.muzzle_width * 0.85, self.muzzle_width * 0.72), 1.12)
        )
        shapes.append(
            Shape("muzzle", ellipse(tip + self.muzzle_width * 0.45 * tilt * turn(40), 0.035), 0.25)
        )
        if "trunk" in self.parts:
            curl = pose.between(-25, 60)
            elbow = face + (size * 0.7) * tilt + 0.33 * turn(-82 + 0.5 * curl)
            end = elbow + 0.3 * turn(-75 + 1.6 * curl)
            shapes.append(Shape("trunk", ribbon((face + size * 0.55 * tilt, elbow, end), 0.19, 0.08), 0.92))
        if "tusk" in self.parts:
            root = face + size * 0.62 * tilt - 0.1j
            shapes.append(
                Shape("tusk", ribbon((root, root + 0.12 - 0.16j, root + 0.25 - 0.1j), 0.065, 0.02), 1.5)
            )
        shapes += self._horns(face, tilt)
        shapes += self._ear(pose, face, tilt, 0.88, shift=0.0)
        shapes += eye(face + 0.3 * size * tilt + 0.3j * height * tilt, max(0.033, 0.22 * height))
        return shapes

    def _ear(self, pose: Pose, face: complex, tilt: complex, tone: float, shift: float) -> list[Shape]:
        size = self.ear_size
        root = face + (-0.35 * self.head + shift) * tilt + 0.7j * self.head_height * tilt
        twitch = turn(pose.between(-14, 14))
        if self.ear == "pointed":
            outline = polygon(-0.5 * size, 0.55 * size, 0.1 * size + 1.25j * size)
        elif self.ear == "floppy":
            outline = limb(0.2j * size, complex(-0.35 * size, -1.35 * size), 0.36 * size, 0.52 * size)
        elif self.ear == "long":
            outline = ellipse(complex(-0.3, 1.45) * size, 1.6 * size, 0.42 * size, 102)
        elif self.ear == "large":
            outline = ellipse(complex(-0.55, -0.45) * size, 0.85 * size, 1.15 * size, 10)
        else:
            outline = ellipse(complex(-0.55, 0.45) * size, 0.85 * size, 0.4 * size, 140)
        return [Shape("ear", root + outline * (tilt * twitch), tone)]

    def _horns(self, face: complex, tilt: complex) -> list[Shape]:
        top = face + (-0.05 * self.head + 0.85j * self.head_height) * tilt
        if "horn" in self.parts and self.neck > 0.5:  # a giraffe's pegs
            pegs = [(top + shift * tilt, top + (shift + 0.02 + 0.12j) * tilt) for shift in (0.06, -0.03)]
            return [
                Shape("horn", outline, 0.85)
                for low, high in pegs
                for outline in (limb(low, high, 0.022), ellipse(high, 0.038))
            ]
        if "horn" in self.parts:
            return [
                Shape(
                    "horn",
                    ribbon(
                        tuple(top + (shift + point) * tilt for point in (0, 0.12 + 0.05j, 0.1 + 0.22j)),
                        0.07,
                        0.02,
                    ),
                    tone,
                )
                for shift, tone in ((0.05, 0.9), (-0.04, 1.3))
            ]
        if "antler" in self.parts:
            shapes = []
            for shift, tone in ((0.07, 0.8), (-0.02, 1.15)):
                stem = tuple(top + (shift + point) * tilt for point in (0, -0.1 + 0.2j, 0.06 + 0.42j))
                shapes.append(Shape("antler", ribbon(stem, 0.06, 0.03), tone))
                for at, way in (
                    (0.13j - 0.03, 0.13 + 0.08j),
                    (0.25j - 0.03, 0.13 + 0.1j),
                    (0.24j - 0.03, -0.13 + 0.12j),
                ):
                    low = top + (shift + at) * tilt
                    shapes.append(Shape("antler", limb(low, low + way * tilt, 0.025, 0.014), tone))
            return shapes
        return []

    # -- from the front ---------------------------------------------------------------------------------------

    def _front(self, pose: Pose) -> list[Shape]:
        radius = self.thickness / 2
        middle = self.leg + radius * 0.8
        side = 1 if pose.chance(0.5) else -1
        tail = self._tail(pose, complex(radius * 0.3, middle + 0.1))
        shapes = [
            Shape(part, outline if side < 0 else -outline.conj(), tone) for part, outline, tone in tail
        ]
        stance = radius * pose.between(0.8, 1.15)
        for x, tone in ((-0.62, FAR), (0.62, FAR), (-0.42, 0.95), (0.42, 0.95)):
            foot = complex(x * stance, 0.05)
            lower = 0.08j if tone == FAR else 0
            shapes.append(
                Shape(
                    "leg",
                    limb(
                        complex(x * radius, middle),
                        foot + lower,
                        self.leg_width * 0.6,
                        self.leg_width * 0.45,
                    ),
                    tone,
                )
            )
            name, shade = ("hoof", 0.4) if "hoof" in self.parts else ("paw", 1.15)
            shapes.append(Shape(name, ellipse(foot + lower, self.leg_width * 0.62, 0.06), shade * tone))
            if tone == FAR and x > 0:
                round_body = ellipse(1j * middle, radius * 0.98, radius * 1.08)
                if self.woolly:
                    round_body = smooth(*star(1j * middle, radius * 1.3, 8, 0.13))
                shapes.append(Shape("body", round_body))
                if "udder" in self.parts:
                    shapes.append(Shape("udder", ellipse(complex(0, middle - radius), 0.09, 0.08)))
        lift = (self.neck + 0.06) * turn(max(self.neck_angle, 35)).imag + radius * 0.4
        tilt = turn(pose.between(-12, 12))
        face = complex(pose.between(-0.06, 0.06), middle + lift)
        shapes.append(
            Shape(
                "neck",
                limb(
                    complex(0, middle + radius * 0.3), face, self.neck_width * 0.62, self.neck_width * 0.42
                ),
            )
        )
        width = self.head_height * 1.08
        height = max(self.head * 0.95, width * 0.95)
        if "mane" in self.parts and "neck" not in self.parts:
            shapes.append(Shape("mane", star(face, width * 2.1, 12, 0.16), 0.75))
        shapes += self._crown_front(pose, face, tilt, width, height)
        shapes.append(Shape("head", ellipse(0, width, height) * tilt + face))
        if "mane" in self.parts and "neck" in self.parts:
            shapes.append(
                Shape(
                    "mane", limb(face + 1j * height * tilt, face + 0.45j * height * tilt, 0.06, 0.03), 0.6
                )
            )
        drop = face - 0.62j * height * tilt
        shapes.append(
            Shape(
                "muzzle", ellipse(0, self.muzzle_width * 0.95, self.muzzle_width * 0.8) * tilt + drop, 1.12
            )
        )
        shapes += [
            Shape("muzzle", ellipse(drop + x * self.muzzle_width * tilt + 0.02j, 0.022), 0.25)
            for x in (-0.35, 0.35)
        ]
        if "trunk" in self.parts:
            bend = pose.between(-0.25, 0.25)
            end = face - (height + 0.32) * 1j + bend
            shapes.append(
                Shape(
                    "trunk",
                    ribbon((face - 0.2j * height, face - 1j * height - 0.2j, end), 0.17, 0.08),
                    0.92,
                )
            )
        for x in (-1, 1):
            if "tusk" in self.parts:
                root = face + (x * width * 0.62 - 0.75j * height) * tilt
                shapes.append(Shape("tusk", limb(root, root + complex(0.05 * x, -0.17), 0.034, 0.014), 1.5))
            shapes += eye(face + (0.45 * width * x + 0.2j * height) * tilt, max(0.033, 0.22 * width))
        return shapes

    def _crown_front(
        self, pose: Pose, face: complex, tilt: complex, width: float, height: float
    ) -> list[Shape]:
        """Ears, horns and antlers on both sides of the head."""
        size = self.ear_size
        outline, root = {
            "pointed": (
                polygon(-0.55 * size, 0.5 * size, 0.15 * size + 1.25j * size),
                0.6 * width + 0.65j * height,
            ),
            "floppy": (
                limb(0, complex(0.3, -1.3) * size, 0.38 * size, 0.5 * size),
                0.9 * width + 0.5j * height,
            ),
            "long": (
                ellipse(complex(0.25, 1.4) * size, 1.6 * size, 0.42 * size, 80),
                0.45 * width + 0.8j * height,
            ),
            "large": (ellipse(0.75 * size, 0.95 * size, 1.1 * size), 0.6 * width + 0.1j * height),
            "leaf": (
                ellipse(complex(0.75, 0.15) * size, 0.85 * size, 0.4 * size, 15),
                0.75 * width + 0.6j * height,
            ),
        }[self.ear]
        shapes = []
        for side in (-1, 1):
            spot = root + outline * turn(pose.between(-10, 10))
            parts = [("ear", spot, 0.88)]
            top = complex(0.5 * width, 0.8 * height)
            if "horn" in self.parts:
                reach = (0, 0.02 + 0.08j, 0.03 + 0.16j) if self.neck > 0.5 else (0, 0.16, 0.15 + 0.2j)
                parts.append(("horn", ribbon(tuple(top + point for point in reach), 0.06, 0.03), 1.2))
            if "antler" in self.parts:
                parts.append(
                    ("antler", ribbon((top, top + 0.2 + 0.15j, top + 0.2 + 0.42j), 0.06, 0.03), 1.15)
                )
                for low, way in (
                    (0.1 + 0.12j, 0.03 + 0.17j),
                    (0.17 + 0.24j, 0.13 + 0.11j),
                    (0.17 + 0.28j, -0.09 + 0.13j),
                ):
                    parts.append(("antler", limb(top + low, top + low + way, 0.025, 0.014), 1.15))
            shapes += [
                Shape(part, face + (line if side > 0 else -line.conj()) * tilt, tone)
                for part, line, tone in parts
            ]
        return shapes
