"""Objects of PartShapes: their parts, which of them are unseen, and their figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import accumulate, chain
from typing import Any

from partclipseg.shapes.figures import furniture, sea, things, vehicles
from partclipseg.shapes.figures.animals import Quadruped
from partclipseg.shapes.figures.birds import Bird, UprightBird
from partclipseg.shapes.figures.people import Person
from partclipseg.shapes.geometry import Shape
from partclipseg.shapes.pose import Pose
from partclipseg.vocabulary import ObjectPart, Vocabulary

WORLD_VERSION = 1
"""Version of the world; increased whenever a rendered pixel or label changes, so that stored scenes are refused."""


@dataclass(frozen=True)
class ShapeObject:
    """One object category."""

    word: str
    family: str
    parts: tuple[str, ...]
    """Part words in label order."""
    draw: Callable[[Pose], list[Shape]]
    """The figure in a pose: shapes in the order they are drawn."""
    unseen: bool = False
    """Its part labels are never trained on."""


@dataclass(frozen=True)
class World:
    """All categories and the vocabularies they make."""

    objects: tuple[ShapeObject, ...]

    @cached_property
    def objects_by_word(self) -> dict[str, ShapeObject]:
        """Object word to object."""
        return {item.word: item for item in self.objects}

    @cached_property
    def seen_items(self) -> tuple[ShapeObject, ...]:
        """Objects whose parts are trained on."""
        return tuple(item for item in self.objects if not item.unseen)

    @cached_property
    def unseen_items(self) -> tuple[ShapeObject, ...]:
        """Objects whose parts are never trained on."""
        return tuple(item for item in self.objects if item.unseen)

    @cached_property
    def label(self) -> dict[str, int]:
        """Object word to index into ``vocabulary.objects``."""
        return {word: index for index, word in enumerate(self.vocabulary.objects)}

    @cached_property
    def first_class(self) -> dict[str, int]:
        """Object word to the label of its first part; the others follow in the order of `ShapeObject.parts`."""
        ends = accumulate((len(item.parts) for item in self.objects), initial=0)
        return {item.word: first for item, first in zip(self.objects, ends, strict=False)}

    @cached_property
    def unseen_objects(self) -> tuple[str, ...]:
        """Words of the objects whose parts are never trained on."""
        return tuple(item.word for item in self.unseen_items)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Every object-part, object by object."""
        return Vocabulary(tuple(ObjectPart(item.word, part) for item in self.objects for part in item.parts))

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """Indices into `vocabulary` of the object-parts to train on."""
        unseen = set(self.unseen_objects)
        pairs = self.vocabulary.object_parts
        return tuple(index for index, pair in enumerate(pairs) if pair.object not in unseen)

    @cached_property
    def seen_vocabulary(self) -> Vocabulary:
        """The object-parts to train on, in the order of `vocabulary`."""
        return Vocabulary(tuple(self.vocabulary.object_parts[index] for index in self.seen))


@cache
def partshapes_world() -> World:
    """Return the built-in world: 56 objects of ten families, 11 of them unseen."""
    groups = (_animals(), _birds(), _sea_and_insects(), _people(), _vehicles(), _indoors(), _outdoors())
    return World(tuple(chain.from_iterable(groups)))


def _thing(
    family: str, word: str, parts: str, draw: Callable[[Pose], list[Shape]], unseen: bool = False
) -> ShapeObject:
    return ShapeObject(word, family, tuple(parts.split()), draw, unseen)


def _of_plan(
    family: str, plan: Callable[..., Callable[[Pose], list[Shape]]], word: str, parts: str, unseen: bool = False,
    **proportions: Any,
) -> ShapeObject:
    """Return an object drawn by a body plan that many share, in proportions of its own."""
    return _thing(family, word, parts, plan(tuple(parts.split()), **proportions), unseen)


def _animals() -> Iterator[ShapeObject]:
    animal = partial(_of_plan, "animal", Quadruped)
    yield animal("dog", "head ear eye muzzle body leg paw tail",
        ear="floppy", ear_size=0.12, tail=0.36, tail_angle=140, muzzle=0.17, neck=0.2)
    yield animal("cat", "head ear eye muzzle body leg paw tail",
        length=0.72, thickness=0.3, leg=0.3, leg_width=0.085, head=0.15, muzzle=0.04, muzzle_width=0.075,
        ear="pointed", ear_size=0.13, tail=0.62, tail_angle=125, tail_width=0.055, tail_tip=0.03, neck=0.14)
    yield animal("horse", "head ear eye mane neck body leg hoof tail",
        length=0.86, leg=0.52, neck=0.36, neck_angle=52, head=0.19, head_height=0.1, head_angle=-42,
        ear_size=0.1, tail=0.5, tail_angle=235, tail_width=0.06, tail_tip=0.12)
    yield animal("cow", "head ear eye muzzle horn body leg udder tail",
        length=0.95, thickness=0.48, leg=0.32, neck=0.14, neck_angle=30, head_angle=-25, muzzle_width=0.12,
        muzzle=0.12, tail=0.55, tail_angle=262, tail_width=0.035, tail_tip=0.04)
    yield animal("sheep", "head ear eye muzzle body leg hoof tail",
        length=0.72, thickness=0.5, leg=0.24, leg_width=0.08, neck=0.12, neck_angle=25, head=0.14,
        head_height=0.11, head_angle=-28, muzzle=0.08, muzzle_width=0.08, tail=0.16, tail_angle=230,
        tail_width=0.1, tail_tip=0.06, woolly=True)
    yield animal("elephant", "head ear eye trunk tusk body leg tail",
        length=0.92, thickness=0.6, leg=0.34, leg_width=0.19, neck=0.14, neck_angle=25, head=0.22,
        head_height=0.22, head_angle=0, muzzle=0.02, ear="large", ear_size=0.2, tail=0.34, tail_angle=258,
        tail_width=0.045)
    yield animal("giraffe", "head ear eye horn neck body leg hoof tail",
        length=0.66, thickness=0.34, leg=0.62, leg_width=0.085, neck=0.72, neck_angle=66, neck_width=0.17,
        head=0.14, head_height=0.085, head_angle=-22, ear_size=0.08, tail=0.36, tail_angle=255,
        tail_width=0.035, tail_tip=0.04)
    yield animal("lion", "head ear eye muzzle mane body leg paw tail",
        length=0.85, thickness=0.36, leg=0.32, neck=0.2, neck_angle=42, head=0.16, muzzle=0.09,
        muzzle_width=0.095, ear_size=0.08, tail=0.6, tail_angle=175, tail_width=0.04, tail_tip=0.07)
    yield animal("rabbit", "head ear eye muzzle body leg paw tail", unseen=True,
        length=0.56, thickness=0.38, leg=0.14, neck=0.12, neck_angle=48, head=0.145, head_height=0.13,
        muzzle=0.035, muzzle_width=0.07, ear="long", ear_size=0.16, tail=0.1, tail_angle=170,
        tail_width=0.12, tail_tip=0.08)
    yield animal("deer", "head ear eye antler neck body leg hoof tail", unseen=True,
        length=0.7, thickness=0.33, leg=0.52, leg_width=0.075, neck=0.34, neck_angle=62, neck_width=0.15,
        head=0.15, head_height=0.095, head_angle=-20, ear_size=0.11, tail=0.13, tail_angle=215,
        tail_width=0.08)


def _birds() -> Iterator[ShapeObject]:
    bird = partial(_of_plan, "bird", Bird)
    upright = partial(_of_plan, "bird", UprightBird)
    yield bird("duck", "head beak eye body wing tail foot", beak=0.17, leg=0.08, neck=0.13)
    yield bird("swan", "head beak eye neck body wing tail",
        length=0.75, thickness=0.36, tilt=4, neck=0.5, neck_bow=0.16, neck_width=0.1, head=0.085, beak=0.13, leg=0)
    yield bird("rooster", "head comb beak eye body wing leg foot tail",
        length=0.5, thickness=0.4, tilt=22, neck=0.24, neck_width=0.18, head=0.1, beak=0.1,
        beak_kind="short", leg=0.27, tail="plume")
    yield bird("parrot", "head beak eye body wing foot tail",
        thickness=0.34, tilt=48, neck=0.06, head=0.16, beak=0.17, beak_kind="bent", leg=0.06, wings_up=0.45)
    yield upright("owl", "head ear beak eye body wing foot")
    yield upright("penguin", "head beak eye body wing foot tail",
        width=0.42, height=0.82, head=0.16, eye=0.04, flipper=True)
    yield bird("ostrich", "head beak eye neck body wing leg foot tail",
        length=0.56, thickness=0.4, tilt=8, neck=0.5, neck_width=0.085, head=0.085, beak=0.12,
        beak_kind="short", leg=0.5, tail="plume")
    yield bird("flamingo", "head beak eye neck body wing leg foot tail", unseen=True,
        length=0.5, thickness=0.3, tilt=14, neck=0.48, neck_bow=0.15, neck_width=0.075, head=0.08,
        beak=0.15, beak_kind="bent", leg=0.6)


def _sea_and_insects() -> Iterator[ShapeObject]:
    fish = partial(_of_plan, "fish", sea.Fish)
    yield fish("goldfish", "head eye mouth gill body fin tail", height=0.46)
    yield fish("whale", "eye mouth body fin tail", height=0.5, tail="fluke", fin="low", bow=1)
    yield fish("shark", "head eye mouth gill body fin tail", unseen=True, height=0.28, tail="forked", fin="triangle")
    yield _thing("sea animal", "turtle", "head eye neck shell leg tail", sea.turtle)
    yield _thing("sea animal", "crab", "eye mouth shell claw leg", sea.crab)
    yield _thing("insect", "butterfly", "head eye antenna body wing", sea.butterfly)
    yield _thing("insect", "bee", "head eye antenna body wing leg", sea.bee)
    yield _thing("insect", "snail", "head eye antenna body shell", sea.snail)


def _people() -> Iterator[ShapeObject]:
    person = partial(_of_plan, "person", Person)
    yield person("boy", "head hair eye mouth torso arm hand leg foot")
    yield person("girl", "head hair eye torso arm hand skirt leg foot", long_hair=True)
    yield person("wizard", "head hat eye beard torso arm hand robe foot")
    yield person("king", "head crown eye beard torso arm hand leg foot", width=0.15)
    yield person("robot", "head antenna eye mouth torso arm hand leg foot", head=0.12, boxy=True)
    yield person("queen", "head crown hair eye torso arm hand skirt", unseen=True, long_hair=True)


def _vehicles() -> Iterator[ShapeObject]:
    vehicle = partial(_thing, "vehicle")
    yield vehicle("car", "body wheel window door light mirror bumper", vehicles.car)
    yield vehicle("bus", "body wheel window door light mirror bumper", vehicles.bus)
    yield vehicle("truck", "cab trailer wheel window door light mirror bumper", vehicles.truck)
    yield vehicle("train", "body cab wheel window door light chimney roof", vehicles.train)
    yield vehicle("bicycle", "frame wheel seat handlebar pedal", vehicles.bicycle)
    yield vehicle("motorcycle", "body wheel seat handlebar light engine", vehicles.motorcycle, unseen=True)
    yield vehicle("airplane", "body wing tail engine window door", vehicles.airplane)
    yield vehicle("helicopter", "body blade tail window door light", vehicles.helicopter, unseen=True)
    yield vehicle("sailboat", "hull mast sail flag", vehicles.sailboat)


def _indoors() -> Iterator[ShapeObject]:
    item = partial(_thing, "furniture")
    yield item("chair", "seat back leg pillow", furniture.chair)
    yield item("sofa", "seat back armrest pillow leg", furniture.sofa)
    yield item("armchair", "seat back armrest pillow leg", furniture.armchair, unseen=True)
    yield item("bed", "frame mattress pillow blanket leg", furniture.bed)
    yield item("desk", "top drawer handle leg", furniture.desk)
    yield item("wardrobe", "door drawer handle mirror leg", furniture.wardrobe, unseen=True)


def _outdoors() -> Iterator[ShapeObject]:
    building = partial(_thing, "building")
    yield building("house", "wall roof window door chimney", things.house)
    yield building("castle", "wall tower window door flag", things.castle, unseen=True)
    yield building("windmill", "tower roof blade window door", things.windmill)
    yield building("lighthouse", "tower roof light window door", things.lighthouse)
    item = partial(_thing, "thing")
    yield item("teapot", "body spout handle lid base", things.teapot)
    yield item("kettle", "body spout handle lid base", things.kettle, unseen=True)
    yield item("guitar", "body neck head string", things.guitar)
    yield item("television", "frame screen button antenna leg", things.television)
    yield item("flower", "petal stem leaf pot", things.flower)
