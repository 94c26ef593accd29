"""The second world: the scenes of PartShapes in other, coarser words, as another data set would label them.

A model of the first world is asked these words across data sets. Every word is known to the first world's towers, but
most object-parts are not its own: *dog: torso* for body and neck, *car: frame* for all of it but wheels, windows and
lights. Some objects go by the word of another one, as *armchair* by *chair*.
"""

from __future__ import annotations

from functools import cache, cached_property

from partclipseg.errors import UsageError
from partclipseg.shapes.cache import SceneArrays
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.shapes.labels import LabelTable, WordSet
from partclipseg.shapes.scene import SceneSplit
from partclipseg.shapes.world import partshapes_world
from partclipseg.vocabulary import ObjectPart, Vocabulary

PARTS = {
    "animal": {
        "head": "head ear eye muzzle horn antler trunk tusk", "torso": "body neck mane udder", "foot": "leg paw hoof",
        "tail": "tail",
    },
    "bird": {"head": "head ear beak eye comb", "torso": "body neck", "wing": "wing tail", "leg": "leg foot"},
    "fish": {"head": "head eye mouth gill", "torso": "body", "fin": "fin tail"},
    "sea animal": {"head": "head eye neck mouth", "torso": "shell", "arm": "leg claw tail"},
    "insect": {"head": "head eye antenna", "torso": "body shell", "wing": "wing", "leg": "leg"},
    "person": {"head": "head hair hat crown eye mouth beard antenna", "body": "torso skirt robe", "arm": "arm hand",
               "leg": "leg foot"},
    "vehicle": {
        "frame": "body frame cab trailer hull bumper mirror roof chimney engine door seat handlebar pedal",
        "wheel": "wheel", "window": "window", "light": "light", "wing": "wing tail blade", "sail": "sail mast flag",
    },
    "furniture": {
        "seat": "seat pillow mattress blanket", "back": "back armrest", "frame": "leg frame top",
        "door": "door drawer handle mirror",
    },
    "building": {"body": "wall tower light", "top": "roof chimney flag blade", "door": "door window"},
    "thing": {
        "body": "body lid base frame petal stem leaf antenna leg", "arm": "spout handle neck head",
        "screen": "screen button string", "base": "pot",
    },
}  # fmt: skip
"""Part words of the second world in each family of the first: the first world's words that each stands for."""

OBJECTS = {"armchair": "chair", "kettle": "teapot", "deer": "giraffe", "queen": "girl"}
"""Objects that go by another's word; all others keep theirs."""


def other_pair(family: str, pair: ObjectPart) -> ObjectPart:
    """Return the object-part of the second world that an object-part of the first is labelled as."""
    part = next(word for word, those in PARTS[family].items() if pair.part in those.split())
    return ObjectPart(OBJECTS.get(pair.object, pair.object), part)


@cache
def _pairs() -> tuple[ObjectPart, ...]:
    """Return the second world's object-part of each one of the first, in its order."""
    world = partshapes_world()
    return tuple(other_pair(world.objects_by_word[pair.object].family, pair) for pair in world.vocabulary.object_parts)


@cache
def coarse_vocabulary() -> Vocabulary:
    """Return the object-parts of the second world."""
    return Vocabulary(tuple(dict.fromkeys(_pairs())))


class CoarseShapesDataset(PartShapesDataset):
    """The scenes of `PartShapesDataset` in the words of the second world, to score models on."""

    def __init__(
        self,
        split: SceneSplit,
        length: int,
        size: int = 128,
        vocabulary: WordSet = "all",
        scenes: SceneArrays | None = None,
    ) -> None:
        """Make the data set; arguments and errors as for `PartShapesDataset`, but "all" is the only choice of words."""
        super().__init__(split, length, size, vocabulary, scenes)
        if vocabulary != "all":
            raise UsageError(f"the words of partshapes-coarse are one set, not {vocabulary!r}: leave --vocabulary out")
        self.vocabulary = coarse_vocabulary()
        world = partshapes_world().vocabulary
        self._table = LabelTable(world, self.vocabulary, dict(zip(world.object_parts, _pairs(), strict=True)))

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """Indices of the object-parts that only seen objects of the first world have."""
        unseen = set(partshapes_world().unseen_objects)
        first = zip(_pairs(), partshapes_world().vocabulary.object_parts, strict=True)
        strange = {pair for pair, of_first in first if of_first.object in unseen}
        return tuple(index for index, pair in enumerate(self.vocabulary.object_parts) if pair not in strange)
