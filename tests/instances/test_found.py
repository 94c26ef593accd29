"""Objects that were found: what they may be, and which of several are kept."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partclipseg.errors import UsageError
from partclipseg.instances import found as rules
from partclipseg.instances.found import FoundObject, box_ious, select, suppress

WHOLE = np.ones((20, 20), bool)


def boxes(objects: list[FoundObject]) -> list[tuple[float, ...]]:
    return [some.box for some in objects]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"object": ""}, "an object is named by a word, not by ''"),
        ({"object": 3}, "named by a word, not by 3"),
        ({"box": (0, 0, 5)}, r"box of a dog must be four finite numbers x, y, width, height, not \(0, 0, 5\)"),
        ({"box": (0, 0, -1, 5)}, r"must have a width and a height of 0 or more, not \(0, 0, -1, 5\)"),
        ({"box": (9, 9, 0, -0.5)}, "a width and a height of 0 or more"),
        ({"box": (0, float("nan"), 1, 5)}, "four finite numbers"),
        ({"box": "0, 0, 1, 5"}, "four finite numbers"),
        ({"score": 1.5}, "score of a dog must be a number from 0 to 1, not 1.5"),
        ({"score": None}, "from 0 to 1, not None"),
        ({"mask": np.ones((3, 3))}, r"must be a bool array \[H, W\], not float64 \[3, 3\]"),
        ({"mask": np.ones(3, bool)}, r"not bool \[3\]"),
    ],
)
def test_what_is_no_object(values, message):
    with pytest.raises(UsageError, match=message):
        FoundObject(**{"object": "dog", "box": (0, 0, 5, 5), **values})


def test_other_ways_to_make_one():
    assert FoundObject.from_corners("dog", 2, 3, 7, 5).box == (2, 3, 5, 2)
    assert FoundObject("dog", (2, 3, 5, 2)).corners == (2, 3, 7, 5)
    mask = np.zeros((6, 8), bool)
    mask[1:3, 4:7] = True
    assert FoundObject.from_mask("dog", mask, 0.5).box == (4, 1, 3, 2)
    with pytest.raises(UsageError, match="the mask of a dog has no pixel"):
        FoundObject.from_mask("dog", np.zeros((6, 8), bool))


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        (FoundObject("dog", (0, 0, 10, 10), 0.5), 1),
        (FoundObject("dog", (0, 0, 10, 6), 0.5), 1),
        (FoundObject("dog", (0, 0, 10, 5), 0.5), 2),  # just half of it
        (FoundObject("dog", (5, 0, 10, 10), 0.5), 2),
        (FoundObject("cat", (0, 0, 10, 8), 0.5), 2),
        (FoundObject("cat", (0, 0, 10, 9), 0.5), 1),  # one thing, two words
        (FoundObject("dog", (0, 0, 0, 10), 0.5), 2),
    ],
)
def test_what_is_found_twice_is_dropped(second, kept):
    first = FoundObject("dog", (0, 0, 10, 10), 0.9)
    assert suppress([first, second]) == [first, second][:kept]
    assert suppress([second, first]) == [first, second][:kept]


def test_masks_decide_where_both_have_one():
    left, right = np.zeros((2, 20, 20), bool)
    left[:, :10], right[:, 10:] = True, True
    first, second = (FoundObject("dog", (0, 0, 20, 20), score, mask) for score, mask in ((0.9, left), (0.8, right)))
    boxed = FoundObject("dog", (0, 0, 20, 20), 0.7)
    assert suppress([first, second]) == [first, second], "two dogs in each other's arms"
    assert suppress([first, boxed]) == [first]
    assert len(suppress([first, FoundObject("dog", (0, 0, 20, 20), 0.5, WHOLE)])) == 2, "just half of it"
    assert len(suppress([first, FoundObject("dog", (0, 0, 20, 20), 0.5, left.copy())])) == 1


def test_equal_scores_keep_their_order():
    first, second = (FoundObject("dog", (0, 0, 10, size)) for size in (9, 10))
    assert suppress([first, second]) == [first]
    assert suppress([second, first]) == [second]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((-75, -5, 200, 40), [(0, 0, 60, 35)]),  # detectors leave the photo
        ((50, 30, 20, 20), [(50, 30, 10, 10)]),
        ((57, 0, 20, 20), []),  # three pixels wide within the photo
        ((56, 0, 20, 20), [(56, 0, 4, 20)]),
        ((60, 0, 20, 20), []),
        ((-30, 0, 20, 20), []),
    ],
)
def test_boxes_are_cut_to_the_photo(box, expected):
    assert boxes(select([FoundObject("dog", box)], ["dog"], (40, 60))) == expected


def test_other_words_are_dropped_and_masks_must_fit():
    found = [FoundObject("cat", (0, 0, 9, 9)), FoundObject("dog", (0, 0, 9, 9), 0.2)]
    assert [some.object for some in select(found, ("dog", "bus"), (20, 20))] == ["dog"]
    with pytest.raises(UsageError, match="mask of a dog has 20x20 pixels, the photo 60x40"):
        select([FoundObject("dog", (0, 0, 9, 9), mask=WHOLE)], ["dog"], (40, 60))


def test_only_the_surest_are_kept(caplog):
    found = [FoundObject("dog", (10 * place, 0, 8, 8), 1 - place / 100) for place in range(40)]
    with caplog.at_level(logging.WARNING):
        kept = select(found[::-1], ["dog"], (50, 500))
    assert boxes(kept) == boxes(found[: rules.MOST_OBJECTS])
    assert "40 objects were found in a photo: the 32 surest are kept" in caplog.text


numbers = st.integers(-20, 120)
objects = st.builds(
    FoundObject,
    st.sampled_from(["dog", "cat", "bus"]),
    st.tuples(numbers, numbers, st.integers(0, 90), st.integers(0, 90)),
    st.sampled_from([0.2, 0.5, 0.9]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(objects, max_size=12))
def test_of_what_is_kept_nothing_is_found_twice(found):
    kept = select(found, ["dog", "cat"], (80, 100))
    assert [some.score for some in kept] == sorted((some.score for some in kept), reverse=True)
    for place, some in enumerate(kept):
        x0, y0, x1, y1 = some.corners
        assert 0 <= x0 < x1 <= 100
        assert 0 <= y0 < y1 <= 80
        for other in kept[place + 1 :]:
            (iou,) = box_ious(np.array(some.corners), np.array([other.corners]))
            assert iou <= (0.5 if some.object == other.object else 0.8)
    assert boxes(suppress(kept)) == boxes(kept)
