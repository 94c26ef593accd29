"""People and people-like figures, seen from the front."""

from __future__ import annotations

from dataclasses import dataclass

from partclipseg.shapes.figures.animals import eye
from partclipseg.shapes.geometry import Shape, box, ellipse, limb, polygon, rounded, smooth, turn
from partclipseg.shapes.pose import Pose


@dataclass(frozen=True)
class Person:
    """Proportions of a person; the whole figure is about one unit high."""

    parts: tuple[str, ...]
    head: float = 0.105
    width: float = 0.13
    """Half width of the shoulders."""
    long_hair: bool = False
    boxy: bool = False

    def __call__(self, pose: Pose) -> list[Shape]:
        """The shapes in the order they are drawn."""
        face = 0.78j + pose.between(-0.02, 0.02)
        nod = turn(pose.between(-10, 10))
        shapes: list[Shape] = []
        if "hair" in self.parts and self.long_hair:
            shapes.append(
                Shape(
                    "hair",
                    smooth(
                        -0.13 + 0.04j,
                        -0.07 + 0.14j,
                        0.07 + 0.14j,
                        0.13 + 0.04j,
                        0.15 - 0.2j,
                        0.0 - 0.14j,
                        -0.15 - 0.2j,
                    )
                    * nod
                    + face,
                    0.85,
                )
            )
        for side in (-1, 1):
            shapes += self._leg(pose, side)
        raised = pose.chance(0.35)
        for side in (-1, 1):
            shapes += self._arm(pose, side, raised and side > 0)
        shapes += self._clothes()
        shapes += self._head(face, nod)
        return [shape for shape in shapes if shape.part in self.parts]

    def _leg(self, pose: Pose, side: int) -> list[Shape]:
        hip = complex(0.065 * side, 0.32)
        spread = side * pose.between(0, 16)
        knee = hip + 0.16 * turn(-90 + spread)
        ankle = knee + 0.15 * turn(-90 + 0.5 * spread + pose.between(-8, 8))
        shoe = ellipse(ankle + complex(0.035 * side, -0.02), 0.068, 0.038)
        if self.boxy:
            outlines = [polygon(hip - 0.045, hip + 0.045, ankle + 0.045, ankle - 0.045)]
            shoe = polygon(
                *(ankle + c for c in (-0.06 + 0.03j, 0.06 + 0.03j, 0.085 - 0.04j, -0.085 - 0.04j))
            )
        else:
            outlines = [limb(hip, knee, 0.058, 0.046), limb(knee, ankle, 0.046, 0.036)]
        return [*(Shape("leg", outline, 0.95) for outline in outlines), Shape("foot", shoe, 0.75)]

    def _arm(self, pose: Pose, side: int, raised: bool) -> list[Shape]:
        shoulder = complex((self.width - 0.01) * side, 0.615)
        down = pose.between(8, 55) if not raised else pose.between(95, 150)
        elbow = shoulder + 0.145 * turn(-90 + side * down)
        wrist = elbow + 0.13 * turn(-90 + side * (down + pose.between(-30, 45)))
        if self.boxy:
            upper, lower = limb(shoulder, elbow, 0.04), limb(elbow, wrist, 0.032)
        else:
            upper, lower = limb(shoulder, elbow, 0.047, 0.038), limb(elbow, wrist, 0.038, 0.03)
        along = (wrist - elbow) / abs(wrist - elbow)
        hand = [Shape("hand", ellipse(wrist + 0.02 * along, 0.042), 1.1)]
        hand.append(
            Shape("hand", limb(wrist + 0.02 * along, wrist + (0.045 + 0.045j * side) * along, 0.017), 1.1)
        )
        return [Shape("arm", upper, 0.9), Shape("arm", lower, 0.9), *hand]

    def _clothes(self) -> list[Shape]:
        w = self.width
        if self.boxy:
            chest = [Shape("torso", box(-w - 0.02, 0.31, w + 0.02, 0.66))]
            return [*chest, Shape("torso", rounded(-w * 0.6, 0.46, w * 0.6, 0.6, 0.02), 1.4)]
        torso = smooth(
            -w - 0.01 + 0.64j,
            0.0 + 0.675j,
            w + 0.01 + 0.64j,
            w * 0.8 + 0.48j,
            w * 0.85 + 0.31j,
            -w * 0.85 + 0.31j,
            -w * 0.8 + 0.48j,
        )
        shapes = [Shape("torso", torso)]
        if "skirt" in self.parts:
            long = 0.1 if "leg" not in self.parts else 0.2
            flare = 0.25 if "leg" not in self.parts else 0.2
            shapes.append(
                Shape(
                    "skirt",
                    smooth(
                        -w * 0.72 + 0.42j,
                        w * 0.72 + 0.42j,
                        flare + 1j * long,
                        0 + 1j * long - 0.03j,
                        -flare + 1j * long,
                    ),
                    0.9,
                )
            )
        if "robe" in self.parts:
            shapes.append(
                Shape("robe", polygon(-w * 0.9 + 0.48j, w * 0.9 + 0.48j, 0.22 + 0.04j, -0.22 + 0.04j), 0.9)
            )
            shapes.append(
                Shape("robe", polygon(-0.02 + 0.48j, 0.02 + 0.48j, 0.04 + 0.04j, -0.04 + 0.04j), 0.55)
            )
        return shapes

    def _head(self, face: complex, nod: complex) -> list[Shape]:
        r = self.head
        shapes: list[Shape] = []
        if "antenna" in self.parts:
            tip = face + (0.02 + 0.24j) * nod
            shapes += [
                Shape("antenna", limb(face, tip, 0.014), 0.5),
                Shape("antenna", ellipse(tip, 0.028), 0.5),
            ]
        outline = (
            rounded(-r * 1.1, -r * 0.95, r * 1.1, r, 0.025) if self.boxy else ellipse(0, r * 0.95, r * 1.1)
        )
        shapes.append(Shape("head", outline * nod + face))
        if "hair" in self.parts:
            tuft = smooth(
                -r + 0.1j * r,
                -0.9 * r + 0.9j * r,
                0.3 * r + 1.35j * r,
                r + 0.8j * r,
                r + 0.15j * r,
                0.5 * r + 0.65j * r,
                -0.4 * r + 0.6j * r,
            )
            shapes.append(Shape("hair", tuft * nod + face, 0.85))
        for side in (-1, 1):
            shapes += eye(face + (0.38 * side + 0.12j) * r * nod, 0.026 if not self.boxy else 0.034)
        if "beard" in self.parts:
            beard = smooth(
                -0.85 * r - 0.15j * r,
                -0.3 * r - 0.3j * r,
                0.3 * r - 0.3j * r,
                0.85 * r - 0.15j * r,
                0.55 * r - 1.2j * r,
                0 - 1.9j * r,
                -0.55 * r - 1.2j * r,
            )
            shapes.append(Shape("beard", beard * nod + face, 1.15))
        if "mouth" in self.parts:
            shapes.append(Shape("mouth", ellipse(-0.5j * r, 0.38 * r, 0.17 * r) * nod + face, 0.35))
        if "crown" in self.parts:
            points = (
                -1 + 0.55j,
                1 + 0.55j,
                1.3 + 2j,
                0.75 + 1.35j,
                0.4 + 2.1j,
                0.0 + 1.4j,
                -0.4 + 2.1j,
                -0.75 + 1.35j,
                -1.3 + 2j,
            )
            shapes.append(Shape("crown", polygon(*points) * (r * nod) + face, 1.25))
            band = polygon(-1.02 + 0.55j, 1.02 + 0.55j, 1.08 + 0.85j, -1.08 + 0.85j)
            shapes.append(Shape("crown", band * (r * nod) + face, 0.55))
            shapes += [
                Shape("crown", ellipse((x + 0.7j) * r * nod + face, 0.015), 1.7) for x in (-0.55, 0, 0.55)
            ]
        if "hat" in self.parts:
            shapes.append(
                Shape("hat", polygon(-0.95 + 0.6j, 0.95 + 0.6j, 0.3 + 2.9j) * (r * nod) + face, 0.9)
            )
            shapes.append(Shape("hat", ellipse(0.62j, 1.7, 0.26) * (r * nod) + face, 0.8))
        return shapes
