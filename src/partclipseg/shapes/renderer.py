"""Scenes of PartShapes: picture and exact labels of (split, index), the same bytes on every machine.

Six splits, each an endless list of scenes:

- ``base``: what a backbone is trained on; objects drawn uniformly from all.
- ``train``: objects drawn from the seen ones; about one scene in four shows an unseen one besides, as the photos
  of the real benchmarks do.
- ``val``: other scenes by the same rule, for watching a training.
- ``test``: objects drawn uniformly from all; the benchmark, seen and unseen.
- ``detection``: as ``base``, but in every second scene all objects are of one kind; what a detector is trained on.
- ``instances``: two to four objects of one kind, drawn uniformly from all; to measure whose part is found.

Labels come from one map of outline numbers: an outline drawn later hides what lies under it, and a pixel belongs
to exactly one outline. Only the colours are smoothed at edges.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from partclipseg.errors import UsageError
from partclipseg.shapes.chance import Chance, scene_generator
from partclipseg.shapes.composition import Composition, compose, compose_portrait
from partclipseg.shapes.geometry import Outline
from partclipseg.shapes.scene import SPLITS, Scene, SceneObject, SceneSplit
from partclipseg.shapes.shading import shade
from partclipseg.shapes.world import ShapeObject, World, partshapes_world

UNSEEN_SHARE = 0.25
"""Share of the scenes of ``train`` and ``val`` that show an unseen object besides seen ones."""

_VISIBLE = 1 / 400
"""An object is a member of the scene from this share of the picture's pixels."""


def render_scene(split: SceneSplit, index: int, size: int = 128) -> Scene:
    """Render one scene.

    Args:
        split: one of `SPLITS`.
        index: 0 or more; there is no end.
        size: side of the square picture in pixels, at least 16. The same scene at another size shows the same.

    Raises:
        UsageError: for an unknown split, a negative index or a size out of range.
    """
    if split not in SPLITS:
        raise UsageError(f"PartShapes has no split {split!r}: choose one of {', '.join(SPLITS)}")
    if index < 0:
        raise UsageError(f"scene {index} does not exist: count from 0")
    world = partshapes_world()
    generator = scene_generator(split, index)
    chance = Chance(generator)
    composition = compose(world, _cast(world, split, chance), chance)
    return _render(world, composition, chance, generator, size, f"{split}/{index}")


def render_portrait(word: str, size: int = 128, seed: int = 0) -> Scene:
    """Render one object alone in its canonical pose, whole, on a plain ground; ``seed`` changes its colours.

    Raises `UsageError` for a word that is no object of the world.
    """
    world = partshapes_world()
    generator = scene_generator(f"portrait of {word}", seed)
    chance = Chance(generator)
    item = world.objects_by_word.get(word)
    if item is None:
        raise UsageError(
            f"PartShapes has no object {word!r}: choose one of {', '.join(world.vocabulary.objects)}"
        )
    composition = compose_portrait(world, item, chance)
    return _render(world, composition, chance, generator, size, f"portrait/{word}", plain=True)


def _cast(world: World, split: SceneSplit, chance: Chance) -> list[ShapeObject]:
    """Choose the objects of a scene."""
    if split == "instances":
        return [chance.pick(world.objects)] * (2 + int(3 * chance()))
    draw = chance()
    count = 1 + (draw > 0.35) + (draw > 0.66) + (draw > 0.86)
    if split == "detection" and chance() < 0.5:
        return [chance.pick(world.objects)] * count
    if split in ("base", "test", "detection"):
        return [chance.pick(world.objects) for _ in range(count)]
    cast = [chance.pick(world.seen_items) for _ in range(count)]
    if chance() < UNSEEN_SHARE:
        stranger = chance.pick(world.unseen_items)
        cast = [*cast[:3], stranger] if chance() < 0.5 else [stranger, *cast[:3]]
    return cast


def _render(
    world: World,
    composition: Composition,
    chance: Chance,
    generator: np.random.Generator,
    size: int,
    key: str,
    plain: bool = False,
) -> Scene:
    if not 16 <= size <= 4096:
        raise UsageError(f"scenes of {size} pixels cannot be rendered: choose a size between 16 and 4096")
    ids, boxes = _draw(composition.outlines, 2 * size)
    image = shade(ids, composition.paints, boxes, chance, generator, plain)
    ids = ids[::2, ::2].astype(np.intp)
    parts = np.array(composition.parts, dtype=np.int16)
    owners = np.array(composition.owners, dtype=np.int8)
    members, ranks = _members(world, composition, ids, owners)
    object_of = np.array([world.label[item.word] for item in composition.objects] + [-1], dtype=np.int8)
    return Scene(
        image=image,
        parts=parts.take(ids),
        objects=object_of[owners].take(ids),
        instances=ranks[owners].take(ids),
        members=members,
        key=key,
    )


def _draw(outlines: list[Outline], pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw outline numbers, uint8 `[pixels, pixels]`; return them and the boxes of the outlines, float32 `[4, n]`."""
    points = np.concatenate(outlines)
    counts = [len(outline) for outline in outlines]
    starts = np.concatenate(([0], np.cumsum(counts[:-1])))
    x, y = points.real, points.imag
    boxes = np.stack(
        [
            edge.reduceat(values, starts)
            for edge, values in ((np.minimum, x), (np.minimum, y), (np.maximum, x), (np.maximum, y))
        ]
    ).astype(np.float32)
    flat = (points * pixels).view(np.float64).tolist()
    canvas = Image.new("L", (pixels, pixels))
    pen = ImageDraw.Draw(canvas)
    position = 2 * counts[0]
    for number, count in enumerate(counts[1:], start=1):
        pen.polygon(flat[position : position + 2 * count], fill=number)
        position += 2 * count
    return np.asarray(canvas), boxes


def _members(
    world: World, composition: Composition, ids: np.ndarray, owners: np.ndarray
) -> tuple[tuple[SceneObject, ...], np.ndarray]:
    """Return the objects that can be seen, largest first, and each owner's place among them, int8 `[owners + 1]`."""
    areas = np.bincount(ids.reshape(-1), minlength=len(owners))
    size = len(ids)
    found: list[tuple[int, int, SceneObject]] = []
    owner_map = owners.take(ids)
    for owner, item in enumerate(composition.objects):
        mine = np.flatnonzero(owners == owner)
        area = int(areas.take(mine).sum())
        if area < _VISIBLE * size * size:
            continue
        shown = owner_map == owner
        columns, rows = np.flatnonzero(shown.any(axis=0)), np.flatnonzero(shown.any(axis=1))
        left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        by_colour: dict[str, int] = {}
        for number in mine.tolist():
            name = composition.colours[number]
            by_colour[name] = by_colour.get(name, 0) + int(areas[number])
        extent = max(right - left, bottom - top) / size
        instance = SceneObject(
            object=item.word,
            box=(left, top, right, bottom),
            colour=max(by_colour, key=lambda name: by_colour[name]),
            size="small" if extent < 0.36 else "large" if extent > 0.72 else "",
            position=_position((left + right) / 2 / size, (top + bottom) / 2 / size),
        )
        found.append((-area, owner, instance))
    found.sort(key=lambda entry: entry[:2])
    ranks = np.full(len(composition.objects) + 1, -1, dtype=np.int8)
    for rank, (_, owner, _) in enumerate(found):
        ranks[owner] = rank
    return tuple(instance for _, _, instance in found), ranks


def _position(x: float, y: float) -> str:
    if max(abs(x - 0.5), abs(y - 0.5)) < 0.12:
        return "middle"
    if abs(x - 0.5) > abs(y - 0.5):
        return "left" if x < 0.5 else "right"
    return "top" if y < 0.5 else "bottom"
