"""Composition of a scene: objects, poses, clutter; all in unit coordinates.

A composition lists filled outlines in drawing order with the numbers that colour them. Nothing here depends on
the picture's size, so one scene can be rendered at any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from partclipseg.shapes.chance import Chance
from partclipseg.shapes.geometry import Outline, box, ellipse, limb, polygon, turn
from partclipseg.shapes.paint import COLOURS, Paint, colour, paint
from partclipseg.shapes.pose import Pose
from partclipseg.shapes.world import ShapeObject, World

_EXTENT = {1: (0.5, 1.05), 2: (0.36, 0.82), 3: (0.3, 0.66), 4: (0.26, 0.56)}
"""Range of an object's larger side, as a share of the picture's, by the number of objects."""


@dataclass
class Composition:
    """Outlines in drawing order; the first is the background, which fills the picture."""

    outlines: list[Outline] = field(default_factory=list)
    """complex128 `[n]` each, x to the right and y downwards; the picture is the unit square."""
    paints: list[Paint] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    """Object-part of each outline, −1 for background and clutter."""
    owners: list[int] = field(default_factory=list)
    """Index into `objects` of each outline, −1 for background and clutter."""
    colours: list[str] = field(default_factory=list)
    """Colour word of each outline."""
    objects: list[ShapeObject] = field(default_factory=list)

    def add(self, outline: Outline, paint: Paint, colour: str, part: int = -1, owner: int = -1) -> None:
        """Add an outline on top of the others."""
        self.outlines.append(outline)
        self.paints.append(paint)
        self.colours.append(colour)
        self.parts.append(part)
        self.owners.append(owner)


def compose(world: World, objects: list[ShapeObject], chance: Chance) -> Composition:
    """Place objects at random, in random poses, views and colours, between clutter behind and in front of them."""
    scene = Composition()
    _background(scene, chance)
    low, high = _EXTENT[len(objects)]
    placed: list[tuple[complex, float]] = []
    for _ in objects:
        extent = low + (high - low) * chance()
        placed.append((_free_spot(placed, extent, chance), extent))
    # Smaller ones mostly come last, in front: a large object would hide them.
    for place in sorted(range(len(objects)), key=lambda k: chance.between(0, 0.35) - placed[k][1]):
        _place(scene, world, objects[place], *placed[place], chance)
    if chance() < 0.25:
        for _ in range(1 + (chance() < 0.4)):
            _clutter(scene, chance, reach=0.3, thin=True)
    return scene


def compose_portrait(world: World, item: ShapeObject, chance: Chance) -> Composition:
    """Place one object alone in its canonical pose, whole and upright, on a plain background."""
    scene = Composition()
    name = chance.pick(tuple(COLOURS))
    scene.add(box(0, 0, 1, 1), paint((225, 225, 220), chance, 1.0, "plain")._replace(rough=0.03), name)
    outlines, shapes = _figure(item, Pose())
    _dress(
        scene,
        world,
        item,
        shapes,
        [0.5 + 0.5j + 0.86 * outline.conj() for outline in outlines],
        chance,
        0.86,
    )
    return scene


def _background(scene: Composition, chance: Chance) -> None:
    name, rgb = colour(chance)
    scene.add(box(0, 0, 1, 1), paint(rgb, chance, 1.0), name)
    if chance() < 0.45:
        name, rgb = colour(chance)
        horizon, slope = chance.between(0.3, 0.85), chance.bell(0.1)
        ground = polygon(
            complex(-0.1, horizon - slope), complex(1.1, horizon + slope), 1.1 + 1.1j, -0.1 + 1.1j
        )
        scene.add(ground, paint(rgb, chance, 1.0), name)
    for _ in range(int(chance.between(2, 13))):
        _clutter(scene, chance, reach=0.45)


def _clutter(scene: Composition, chance: Chance, reach: float, thin: bool = False) -> None:
    """Add an abstract form that is no object: disc, bar or crooked polygon."""
    name, rgb = colour(chance)
    center = complex(chance.between(-0.05, 1.05), chance.between(-0.05, 1.05))
    size = 0.02 + reach * chance() * chance()
    kind = chance()
    if thin or kind < 0.35:
        way = turn(360 * chance()) * (size + 0.15)
        outline = limb(
            center - way, center + way, 0.005 + 0.1 * size * chance(), 0.005 + 0.1 * size * chance()
        )
    elif kind < 0.65:
        outline = ellipse(center, size, size * chance.between(0.4, 1), 360 * chance())
    else:
        count = 3 + int(4 * chance())
        start = 360 * chance()
        outline = np.array(
            [center + size * chance.between(0.4, 1.2) * turn(start + 360 * k / count) for k in range(count)]
        )
    scene.add(outline, paint(rgb, chance, size), name)


def _free_spot(placed: list[tuple[complex, float]], extent: float, chance: Chance) -> complex:
    """Return the one of some random centres that is least covered by earlier objects."""
    margin = 0.5 - max(0.1, 0.5 - 0.4 * extent)
    best, least = 0.5 + 0.5j, math.inf
    for _ in range(6 if placed else 1):
        spot = complex(chance.between(margin, 1 - margin), chance.between(margin, 1 - margin))
        overlap = sum(max(0.0, 0.45 * (extent + other) - abs(spot - center)) for center, other in placed)
        if overlap < least:
            best, least = spot, overlap
    return best


def _figure(item: ShapeObject, pose: Pose) -> tuple[list[Outline], list[tuple[str, float]]]:
    """Return the posed outlines, centred and with a larger side of 1, and the part and tone of each."""
    shapes = item.draw(pose)
    points = np.concatenate([shape.outline for shape in shapes])
    x, y = points.real, points.imag
    left, right, bottom, top = x.min(), x.max(), y.min(), y.max()
    points = (points - complex(left + right, bottom + top) / 2) / max(right - left, top - bottom)
    ends = np.cumsum([len(shape.outline) for shape in shapes]).tolist()
    return [points[a:b] for a, b in zip([0, *ends], ends, strict=False)], [(s.part, s.tone) for s in shapes]


def _place(
    scene: Composition, world: World, item: ShapeObject, center: complex, extent: float, chance: Chance
) -> None:
    outlines, shapes = _figure(item, Pose(chance.numbers(Pose.COUNT)))
    # Seen from the side or the front is the figure's affair; the view adds mirror, foreshortening, shear, turn.
    squeeze = chance.between(0.68, 1.0) if chance() < 0.5 else 1.0
    shear = chance.bell(0.13) if chance() < 0.5 else 0.0
    angle = turn(chance.bell(15) if chance() < 0.7 else 0.0)
    side = -1 if chance() < 0.5 else 1
    # x' = side * squeeze * x + shear * y, y' = -y (pictures count downwards), as a pair of complex factors.
    straight = extent * angle * complex(side * squeeze - 1, -shear) / 2
    mirrored = extent * angle * complex(side * squeeze + 1, shear) / 2
    moved = [center + straight * outline + mirrored * outline.conj() for outline in outlines]
    _dress(scene, world, item, shapes, moved, chance, extent)


def _dress(
    scene: Composition,
    world: World,
    item: ShapeObject,
    shapes: list[tuple[str, float]],
    outlines: Sequence[Outline],
    chance: Chance,
    extent: float,
) -> None:
    """Give every part a colour and texture of the instance's random palette; neither depends on what it is."""
    owner = len(scene.objects)
    scene.objects.append(item)
    palette = [colour(chance) for _ in range(1 + int(3.2 * chance()))]
    coats = {}
    for part in item.parts:
        name, rgb = palette[0] if chance() < 0.4 else chance.pick(palette)
        coats[part] = (name, paint(rgb, chance, extent))
    first = world.first_class[item.word]
    index = {part: first + k for k, part in enumerate(item.parts)}
    for outline, (part, tone) in zip(outlines, shapes, strict=True):
        name, coat = coats[part]
        scene.add(outline, coat.toned(tone), name, index[part], owner)
