"""The world's counts and the rules that make it a benchmark."""

from collections import Counter

import numpy as np
import pytest

from partclipseg.shapes.figures.animals import Quadruped
from partclipseg.shapes.pose import Pose
from partclipseg.shapes.renderer import render_portrait
from partclipseg.shapes.world import ShapeObject, partshapes_world

WORLD = partshapes_world()


@pytest.mark.parametrize(
    ("what", "count", "low", "high"),
    [
        ("objects", len(WORLD.objects), 48, 56),
        ("families", len({item.family for item in WORLD.objects}), 7, 12),
        ("unseen objects", len(WORLD.unseen_objects), 11, 12),
        ("part words", len(WORLD.vocabulary.parts), 40, 80),
        ("families with an unseen object", len({item.family for item in WORLD.unseen_items}), 7, 12),
        (
            "shared part words",
            sum(n > 1 for n in Counter(p for _, p in WORLD.vocabulary.object_parts).values()),
            45,
            80,
        ),
    ],
)
def test_counts(what: str, count: int, low: int, high: int) -> None:
    assert low <= count <= high, what


def test_one_part_word_is_unseen() -> None:
    assert set(WORLD.vocabulary.parts) - set(WORLD.seen_vocabulary.parts) == {"antler"}


def test_seen_indices_make_the_seen_vocabulary() -> None:
    seen = [WORLD.vocabulary.object_parts[index] for index in WORLD.seen]
    assert tuple(seen) == WORLD.seen_vocabulary.object_parts
    assert not {pair.object for pair in seen} & set(WORLD.unseen_objects)
    assert set(WORLD.seen_vocabulary.objects) | set(WORLD.unseen_objects) == set(WORLD.vocabulary.objects)


def test_labels_follow_the_vocabulary() -> None:
    for item in WORLD.objects:
        first = WORLD.first_class[item.word]
        pairs = WORLD.vocabulary.object_parts[first : first + len(item.parts)]
        assert [tuple(pair) for pair in pairs] == [(item.word, part) for part in item.parts]
        assert WORLD.vocabulary.objects[WORLD.label[item.word]] == item.word


def test_label_maps_hold_every_class() -> None:
    assert len(WORLD.vocabulary) <= np.iinfo(np.int16).max
    assert len(WORLD.objects) <= np.iinfo(np.int8).max


@pytest.mark.parametrize("item", WORLD.objects, ids=lambda item: item.word)
def test_every_part_shows_in_the_canonical_pose(item: ShapeObject) -> None:
    assert 4 <= len(item.parts) <= 9
    scene = render_portrait(item.word)
    first = WORLD.first_class[item.word]
    assert set(np.unique(scene.parts)) == {-1, *range(first, first + len(item.parts))}
    # Outlines of 128-pixel portraits: fewer than 5 pixels would be a part that no one can see.
    areas = np.bincount(scene.parts[scene.parts >= 0], minlength=first + len(item.parts))[first:]
    assert areas.min() >= 5, dict(zip(item.parts, areas.tolist(), strict=True))


@pytest.mark.parametrize("item", WORLD.objects, ids=lambda item: item.word)
def test_figures_draw_their_own_parts_only(item: ShapeObject) -> None:
    random = np.random.default_rng(7)
    for _ in range(40):
        shapes = item.draw(Pose(random.random(Pose.COUNT).tolist()))
        assert {shape.part for shape in shapes} <= set(item.parts)
        # Four objects, clutter and background must fit into the 256 numbers of one 8-bit map.
        assert len(shapes) <= 55
        assert all(np.isfinite(shape.outline).all() for shape in shapes)


def test_poses_move_a_figure() -> None:
    dog = Quadruped(("body", "leg", "tail"))
    random = np.random.default_rng(3)
    outlines = {dog(Pose(random.random(Pose.COUNT).tolist()))[-1].outline.tobytes() for _ in range(8)}
    assert len(outlines) == 8
    assert all(np.array_equal(a.outline, b.outline) for a, b in zip(dog(Pose()), dog(Pose()), strict=True))
