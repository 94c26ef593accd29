"""Colours and textures, drawn at random and never from what they cover."""

from __future__ import annotations

from typing import NamedTuple

from partclipseg.shapes.chance import Chance
from partclipseg.shapes.geometry import turn

RGB = tuple[float, float, float]

COLOURS: dict[str, RGB] = {
    "red": (205, 45, 45),
    "orange": (238, 130, 40),
    "yellow": (240, 208, 60),
    "green": (70, 160, 70),
    "blue": (55, 95, 205),
    "purple": (135, 70, 175),
    "pink": (238, 135, 175),
    "brown": (130, 85, 50),
    "white": (235, 235, 230),
    "grey": (138, 138, 142),
    "black": (48, 48, 54),
}
"""Colour word to RGB, 0 to 255."""

_NAMES = tuple(COLOURS)


class Paint(NamedTuple):
    """A base colour with a second one laid over it where the texture is 1.

    With u = frac(u_x x + u_y y + u_0) − ½ and v likewise, the texture is
    clip((radius² − u² − v²) · sharpness + ½, 0, 1): stripes where v is constant, round spots where it is not,
    a soft gradient where both are slow.
    """

    red: float
    green: float
    blue: float
    red_step: float
    green_step: float
    blue_step: float
    u_x: float
    u_y: float
    u_0: float
    v_x: float
    v_y: float
    v_0: float
    radius: float
    """Square of the texture's radius."""
    sharpness: float
    rough: float
    """Strength of the scene's noise."""
    relief: float
    """Strength of the fall of brightness from the lit side of an outline to the other."""

    def toned(self, tone: float) -> Paint:
        """Return the paint, darker (below 1) or nearer to white (above 1)."""
        if tone == 1:
            return self
        keep, white = (tone, 0.0) if tone < 1 else (2 - tone, 255 * (tone - 1))
        red, green, blue, red_step, green_step, blue_step, *texture = self
        return Paint(
            white + keep * red, white + keep * green, white + keep * blue,
            keep * red_step, keep * green_step, keep * blue_step,
            *texture,
        )  # fmt: skip


def colour(chance: Chance) -> tuple[str, RGB]:
    """Draw a colour word and a shade of it."""
    name = chance.pick(_NAMES)
    light = chance.between(-22, 22)
    red, green, blue = COLOURS[name]
    return name, (
        red + light + chance.between(-14, 14),
        green + light + chance.between(-14, 14),
        blue + light + chance.between(-14, 14),
    )


def paint(rgb: RGB, chance: Chance, extent: float, kind: str | None = None) -> Paint:
    """Draw a random texture on a colour, scaled to a thing of this extent (a share of the picture)."""
    shade = chance.between(-10, 10)
    red, green, blue = rgb[0] + shade, rgb[1] + shade, rgb[2] + shade
    rough, relief = chance.between(0.05, 0.35), chance.between(0.02, 0.24)
    draw = chance()
    if kind == "plain" or draw < 0.4:
        return Paint(red, green, blue, 0, 0, 0, 0, 0, 0.5, 0, 0, 0.5, 0, 0, rough, relief)
    step = chance.between(25, 80) * (-1 if red + green + blue > 380 else 1)
    steps = (step + chance.between(-25, 25), step + chance.between(-25, 25), step + chance.between(-25, 25))
    way = turn(360 * chance())
    start, second = chance(), chance()
    if draw < 0.6:  # soft gradient
        way = way * chance.between(0.5, 1.2) / (extent + 0.1)
        return Paint(red, green, blue, *steps, way.real, way.imag, start, 0, 0, 0.5, 0.06, 4, rough, relief)
    way = way * min(26.0, chance.between(4, 13) / (extent + 0.05))
    if draw < 0.8:  # stripes
        width = chance.between(0.015, 0.09)
        return Paint(
            red, green, blue, *steps, way.real, way.imag, start, 0, 0, 0.5, width, 18, rough, relief
        )
    width = chance.between(0.04, 0.12)
    return Paint(
        red,
        green,
        blue,
        *steps,
        way.real,
        way.imag,
        start,
        -way.imag,
        way.real,
        second,
        width,
        18,
        rough,
        relief,
    )
