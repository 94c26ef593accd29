"""Whose a pixel is: the rules, played with a model that knows the answer, and their invariants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partclipseg.instances.components import find_components
from partclipseg.instances.found import FoundObject
from partclipseg.instances.owners import in_order, look_at_objects
from partclipseg.maps.label_maps import BACKGROUND, LabelMaps, no_object

SIZE = (40, 60)
INPUT = (32, 32)
WORDS = ("cat", "dog")
CPU = torch.device("cpu")


class Player:
    """Stands for a model. A photo's first channel says which pixels it takes for which object, 255 for background."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, bool]] = []

    def __call__(self, crops, sizes, present, with_background, masks=None) -> list[LabelMaps]:
        self.calls.append((len(crops), with_background))
        asked = zip(crops, sizes, present, strict=True)
        return [self.look(crop[..., 0], size, some, with_background) for crop, size, some in asked]

    def look(self, channel, size, present: Sequence[int], with_background: bool) -> LabelMaps:
        rows, columns = (np.arange(n) * old // n for n, old in zip(size, channel.shape, strict=True))
        seen = torch.from_numpy(channel[rows[:, None], columns].astype(np.int64))
        (only,) = present if len(present) == 1 else (None,)
        if only is not None and not with_background:
            objects = torch.full(size, only)
        else:
            objects = torch.where(torch.isin(seen, torch.tensor(list(present))), seen, BACKGROUND)
        # Each object has two parts, 2 · object and one more, by columns.
        labels = torch.where(objects < 0, BACKGROUND, 2 * objects + torch.arange(size[1])[None] % 2)
        return LabelMaps(labels, objects, torch.full(size, 0.75))


def photo(*rectangles: tuple[int, int, int, int, int]) -> np.ndarray:
    """Background, with rectangles (object, left, top, right, bottom) on it."""
    made = np.full((*SIZE, 3), 255, np.uint8)
    for index, left, top, right, bottom in rectangles:
        made[top:bottom, left:right, 0] = index
    return made


def owners(found: list[FoundObject], picture: np.ndarray, first: LabelMaps | None = None, growth: float = 0.0):
    start = first or no_object(SIZE, CPU)
    [owned] = look_at_objects(Player(), [picture], [found], WORDS.index, [start], INPUT, growth)
    return owned


def area(owned, index: int) -> int:
    return int((owned.instance_map == index).sum())


def mask(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    made = np.zeros(SIZE, bool)
    made[top:bottom, left:right] = True
    return made


DOG = FoundObject("dog", (10, 10, 20, 20))


def test_in_a_box_background_competes():
    owned = owners([DOG], photo((1, 5, 5, 20, 40)))
    assert np.array_equal(owned.instance_map.numpy() == 0, mask(10, 10, 20, 30)), "what is a dog, within the box"
    assert np.array_equal(owned.maps.object_map.numpy() == 1, mask(10, 10, 20, 30))
    assert not owned.in_mask.any()


def test_a_found_box_is_grown():
    owned = owners([DOG], photo((1, 0, 0, 60, 40)), growth=0.1)
    assert np.array_equal(owned.instance_map.numpy() == 0, mask(8, 8, 32, 32))


def test_a_grown_box_is_looked_at_as_closely():
    seen = []

    class Watcher(Player):
        def __call__(self, crops, sizes, present, with_background, masks=None) -> list[LabelMaps]:
            seen.append([crop.shape for crop in crops])
            return super().__call__(crops, sizes, present, with_background)

    for growth in (0.0, 0.1):
        look_at_objects(Watcher(), [photo()], [[DOG]], WORDS.index, [no_object(SIZE, CPU)], INPUT, growth)
    assert seen[0] == seen[1] == [(30, 30, 3)]


def test_in_a_mask_the_parts_share_all_pixels():
    owned = owners([FoundObject.from_mask("dog", mask(10, 10, 30, 30))], photo(), growth=0.1)
    assert np.array_equal(owned.instance_map.numpy() == 0, mask(10, 10, 30, 30))
    assert torch.equal(owned.maps.label_map >= 2, owned.instance_map == 0)
    assert torch.equal(owned.in_mask, owned.instance_map == 0)


def test_a_mask_beyond_its_box_is_seen_whole():
    owned = owners([FoundObject("dog", (10, 10, 3, 3), mask=mask(0, 0, 60, 40))], photo())
    assert (owned.instance_map == 0).all()


@pytest.mark.parametrize("order", [1, -1])
def test_two_claims_on_a_pixel(order):
    everywhere = photo((1, 0, 0, 60, 40))
    large, small = (FoundObject.from_mask("dog", mask(0, 0, right, 40)) for right in (30, 10))
    box = FoundObject("dog", (0, 0, 40, 40))
    for first, second, kept in (
        (large, small, (20 * 40, 10 * 40)),  # a rider on a horse
        (large, box, (30 * 40, 10 * 40)),
    ):
        found = [first, second][::order]
        assert (area(owners(found, everywhere), 0), area(owners(found, everywhere), 1)) == kept[::order]
    # Of two boxes the one in which a pixel lies more centrally: the border is half way between equal boxes.
    left, right = FoundObject("dog", (0, 0, 30, 40)), FoundObject("dog", (20, 0, 30, 40))
    owned = owners([left, right][::order], everywhere)
    is_left = owned.instance_map.numpy() == (0 if order == 1 else 1)
    assert np.array_equal(is_left[:, :25], mask(0, 0, 25, 40)[:, :25])
    assert not is_left[:, 25:].any()


def test_what_is_nearer_to_another_core_is_not_claimed():
    """Of two boxes over each other: an object of which the core is known is not cut off, nor leaves it specks."""
    everywhere, cores = photo((1, 0, 0, 60, 40)), np.zeros((2, 20, 30), bool)
    cores[0, :, :8], cores[1, :, 12:] = True, True
    left = FoundObject("dog", (0, 0, 35, 40), core=cores[0])
    right = FoundObject("dog", (5, 0, 55, 40), core=cores[1])
    owned = owners([right, left], everywhere)
    assert np.array_equal(owned.instance_map.numpy()[:, :19] == 1, mask(0, 0, 19, 40)[:, :19])
    assert (owned.instance_map[:, 21:] == 0).all()
    assert not owned.in_mask.any()
    without = owners([FoundObject(some.object, some.box) for some in (right, left)], everywhere)
    assert area(without, 1) != area(owned, 1)


def test_equal_claims_go_to_the_first():
    owned = owners([DOG, DOG], photo((1, 0, 0, 60, 40)))
    assert (area(owned, 0), area(owned, 1)) == (400, 0)


def test_what_the_first_look_said_elsewhere_stays():
    picture = photo((1, 0, 0, 20, 40), (0, 40, 0, 60, 40))
    first = Player().look(picture[..., 0], SIZE, (0, 1), True)
    wrong = LabelMaps(first.label_map.clone(), first.object_map.clone(), first.scores)
    wrong.object_map[10:30, 20:30], wrong.label_map[10:30, 20:30] = 1, 2
    owned = owners([DOG], picture, wrong)
    assert torch.equal(owned.maps.object_map, first.object_map), "in the box the look corrects the first one"
    assert (owned.instance_map[:, 40:] == -1).all()


def test_looks_of_all_photos_go_together_those_at_masks_apart():
    player = Player()
    found = [[DOG] * 7, [FoundObject.from_mask("dog", mask(0, 0, 9, 9))], [DOG] * 3]
    starts = [no_object(SIZE, CPU)] * 3
    look_at_objects(player, [photo()] * 3, found, WORDS.index, starts, INPUT)
    assert player.calls == [(1, False), (8, True), (2, True)]


def test_masks_of_the_caller_are_not_changed():
    given = mask(0, 0, 60, 40)
    owners([FoundObject("dog", (0, 0, 60, 40), mask=given), FoundObject.from_mask("cat", mask(0, 0, 9, 9))], photo())
    assert given.all()


def test_no_objects():
    player = Player()
    [owned] = look_at_objects(player, [photo()], [[]], WORDS.index, [no_object(SIZE, CPU)], INPUT)
    assert player.calls == []
    assert (owned.instance_map == -1).all()


def test_order_of_numbers():
    found = [FoundObject("dog", (0, 0, side, side), score) for side, score in ((5, 0.5), (9, 0.5), (4, 0.9))]
    assert [some.box[2] for some in in_order(found)] == [4, 9, 5]


@st.composite
def scenes(draw):
    def box(index):
        left, top = draw(st.integers(0, 50)), draw(st.integers(0, 32))
        return (index, left, top, left + draw(st.integers(2, 40)), top + draw(st.integers(2, 30)))

    rectangles = [box(draw(st.integers(0, 1))) for _ in range(draw(st.integers(0, 4)))]
    found = []
    for _ in range(draw(st.integers(0, 5))):
        index, left, top, right, bottom = box(draw(st.integers(0, 1)))
        some = FoundObject.from_corners(WORDS[index], left, top, right, bottom).within(SIZE)
        if draw(st.booleans()):
            some = FoundObject.from_mask(WORDS[index], mask(left, top, right, bottom))
        found.append(some)
    return photo(*rectangles), found, draw(st.booleans()), draw(st.sampled_from([0.0, 0.1]))


@settings(max_examples=60, deadline=None)
@given(scenes(), st.randoms(use_true_random=False))
def test_invariants(scene, random):
    picture, found, with_first, growth = scene
    first = Player().look(picture[..., 0], SIZE, (0, 1), True) if with_first else no_object(SIZE, CPU)
    owned = owners(found, picture, first, growth)
    numbers = owned.instance_map.numpy()
    assert numbers.min() >= -1
    assert numbers.max() < len(found)
    for place, some in enumerate(found):
        mine = numbers == place
        assert (owned.maps.object_map.numpy()[mine] == WORDS.index(some.object)).all()
        assert (owned.maps.label_map.numpy()[mine] // 2 == WORDS.index(some.object)).all()
        if some.mask is not None:
            assert not (mine & ~some.mask).any()
    masks = [some.mask for some in found if some.mask is not None]
    if masks:
        assert np.array_equal(owned.in_mask.numpy(), np.any(masks, 0)), "each pixel of a mask has an owner"
    # Who owns what does not depend on the order, but where claims are equal.
    order = list(range(len(found)))
    random.shuffle(order)
    again = owners([found[place] for place in order], picture, first, growth)
    there = np.append(order, -1)[again.instance_map.numpy()]
    assert np.array_equal(numbers >= 0, there >= 0)
    assert torch.equal(owned.in_mask, again.in_mask)


def test_components_are_regions():
    picture = photo((1, 0, 0, 20, 20), (1, 30, 10, 50, 40), (0, 52, 0, 60, 12))
    first = Player().look(picture[..., 0], SIZE, (0, 1), True)
    [found] = find_components(Player(), [picture], [first], WORDS, None, INPUT, least_area=4)
    assert [(some.object, some.score) for some in found] == [("dog", 0.75), ("dog", 0.75), ("cat", 0.75)]
    for some, (_, *edges) in zip(found, [(1, 30, 10, 50, 40), (1, 0, 0, 20, 20), (0, 52, 0, 60, 12)], strict=True):
        np.testing.assert_allclose(some.corners, edges, atol=60 / 32)
    [large] = find_components(Player(), [picture], [first], WORDS, None, INPUT, least_area=200)
    assert len(large) == 1
    assert find_components(Player(), [picture], [first], WORDS, None, INPUT, 4, threshold=0.8) == [[]]


def test_components_of_known_objects_need_another_look():
    """Where objects are known the first look has no background, and everything would be one region."""
    picture, player = photo((1, 0, 0, 20, 20), (1, 30, 10, 50, 40)), Player()
    first = player.look(picture[..., 0], SIZE, (1,), False)
    [found] = find_components(player, [picture], [first], WORDS, [[1]], INPUT, least_area=4)
    assert len(found) == 2
    assert player.calls == [(1, True)]
