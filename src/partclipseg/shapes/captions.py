"""Sentences about scenes, for training a backbone from nothing: whole objects only, never a part word."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from partclipseg.shapes.chance import Chance
from partclipseg.shapes.paint import COLOURS
from partclipseg.shapes.scene import POSITIONS, SIZES, Scene, SceneObject
from partclipseg.shapes.world import partshapes_world

_OPENINGS = ("", "", "a picture of", "a photo of", "here is")
_LINKS = ("and", "beside", "near", "with")
_EMPTY = "a picture of nothing"
_PLACES = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "middle": "in the middle",
}
_VOWELS = tuple("aeiou")


def caption(scene: Scene, generator: np.random.Generator) -> str:
    """Draw one of many true sentences about a scene, such as *a small dog beside a red bus on the left*.

    It names every visible object, in random order, with some of their colours, sizes and places.
    """
    if not scene.members:
        return _EMPTY
    chance = Chance(generator)
    order = sorted(scene.members, key=lambda _: chance())
    words = [chance.pick(_OPENINGS), _describe(order[0], chance)]
    for before, member in pairwise(order):
        words += [_link(before, member, chance), _describe(member, chance)]
    return " ".join(filter(None, words))


def words() -> list[str]:
    """Return every word that captions, objects and parts can contain, sorted: a tokenizer is built from it."""
    vocabulary = partshapes_world().vocabulary
    texts = [*vocabulary.objects, *vocabulary.parts, *COLOURS, *SIZES, *POSITIONS]
    texts += [
        *_OPENINGS,
        *_LINKS,
        *_PLACES.values(),
        _EMPTY,
        "a",
        "an",
        "left of",
        "right of",
        "above",
        "below",
        "of the",
    ]
    return sorted({word for text in texts for word in text.split()})


def _describe(member: SceneObject, chance: Chance) -> str:
    size = member.size if chance() < 0.4 else ""
    colour = member.colour if chance() < 0.5 else ""
    place = _PLACES[member.position] if chance() < 0.25 else ""
    phrase = " ".join(filter(None, (size, colour, member.object, place)))
    return f"{'an' if phrase.startswith(_VOWELS) else 'a'} {phrase}"


def _link(before: SceneObject, after: SceneObject, chance: Chance) -> str:
    if chance() < 0.5:
        return chance.pick(_LINKS)
    (left, top, right, bottom), (left2, top2, right2, bottom2) = before.box, after.box
    across, down = left + right - left2 - right2, top + bottom - top2 - bottom2
    if abs(across) > abs(down):
        return "left of" if across < 0 else "right of"
    return "above" if down < 0 else "below"
