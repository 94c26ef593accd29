"""Attention control as intended: what it rewards, what it leaves alone, and what cannot break it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from partclipseg.losses.attention import differentiable_control, reference_control
from partclipseg.losses.labels import present_pairs

GAMMA, SIGMA, PATCH = 0.3, 0.5, 2
CLASS_TO_OBJECT = torch.tensor([0, 0, 1, 1, 1])
CONTROLS = [differentiable_control, reference_control]


def labels_of(rows: list[str]) -> tuple[Tensor, Tensor]:
    """One photo drawn in letters on the token grid, a class each; upper case X: object 0 without a part."""
    parts = torch.tensor([["abcde".find(letter) for letter in row] for row in rows])
    objects = torch.where(parts >= 0, CLASS_TO_OBJECT[parts.clamp(min=0)], -1)
    objects[torch.tensor([[letter == "X" for letter in row] for row in rows])] = 0
    return (x.repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1).unsqueeze(0) for x in (parts, objects))


TWO_PARTS = ["aaa...", "aaa...", "aaa...", "...bbb", "...bbb", "...bbb"]
TWO_PARTS = [row.replace(".", "X") for row in TWO_PARTS]


def attending(maps: dict[int, Tensor], pairs: Tensor, tokens: int) -> Tensor:
    """Attention `[P, T, T]` whose every row is the class's map (a share for each token)."""
    attention = torch.zeros(len(pairs), tokens + 1, tokens + 1)
    for row, (_, index) in enumerate(pairs.tolist()):
        attention[row, :, 1:] = maps[index].flatten() / maps[index].sum()
    return attention


def block(top: int, left: int, side: int = 3, grid: int = 6) -> Tensor:
    share = torch.zeros(grid, grid)
    share[top : top + side, left : left + side] = 1
    return share


def control(
    attention: Tensor, pairs: Tensor, parts: Tensor, objects: Tensor, function: Callable = differentiable_control
) -> tuple[Tensor, Tensor]:
    return function(attention, pairs, parts, objects, CLASS_TO_OBJECT, GAMMA, SIGMA)


@pytest.mark.parametrize(
    ("second", "low", "high"),
    [
        (block(3, 3), 0.0, 0.15),  # on its own part: only the smoothed corners meet
        (block(0, 3), 0.0, 0.15),
        (block(1, 1), 0.15, 0.7),
        (block(0, 0), 0.999, 1.0),
    ],
)
def test_separation_measures_overlap(second: Tensor, low: float, high: float) -> None:
    parts, objects = labels_of(TWO_PARTS)
    pairs = present_pairs(parts, 5)
    separation, _ = control(attending({0: block(0, 0), 1: second}, pairs, 36), pairs, parts, objects)
    assert low <= separation <= high


def test_separation_is_exactly_zero_for_maps_that_do_not_touch() -> None:
    parts, objects = labels_of(TWO_PARTS)
    pairs = present_pairs(parts, 5)
    maps = {0: block(0, 0, side=2), 1: block(4, 4, side=2)}
    separation, enhancement = control(attending(maps, pairs, 36), pairs, parts, objects)
    assert separation == 0
    assert enhancement == 0  # each peaks on its own part, higher than even attention to it would


def test_equal_maps_of_many_parts_are_full_overlap() -> None:
    parts, objects = labels_of(["ccccXX", "ccccXX", "ddddXX", "ddddXX", "eeeeXX", "eeeeXX"])
    objects = torch.where(objects == 0, 1, objects)
    pairs = present_pairs(parts, 5)
    maps = {index: block(0, 0, 5) for index in (2, 3, 4)}
    separation, _ = control(attending(maps, pairs, 36), pairs, parts, objects)
    torch.testing.assert_close(separation, torch.tensor(1.0))


def test_overlap_off_the_object_does_not_count() -> None:
    parts, objects = labels_of(["aa....", "bb....", "......", "......", "......", "......"])
    pairs = present_pairs(parts, 5)
    maps = {index: block(3, 3) for index in (0, 1)}
    assert control(attending(maps, pairs, 36), pairs, parts, objects)[0] == 0
    objects = torch.zeros_like(objects)
    assert control(attending(maps, pairs, 36), pairs, parts, objects)[0] > 0.99


def test_parts_of_different_objects_are_not_compared() -> None:
    parts, objects = labels_of(["aabb", "aabb", "ccdd", "ccdd"])
    swapped = CLASS_TO_OBJECT.clone()
    pairs = present_pairs(parts, 5)
    same = {index: block(0, 0, 2, grid=4) for index in range(4)}
    attention = attending(same, pairs, 16)
    separation, _ = control(attention, pairs, parts, objects)
    assert separation > 0.1
    swapped = torch.arange(5)  # every class an object of its own
    objects = torch.where(parts >= 0, swapped[parts.clamp(min=0)], -1)
    separation, _ = differentiable_control(attention, pairs, parts, objects, swapped, GAMMA, SIGMA)
    assert separation == 0


def random_case(seed: int = 0, photos: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of every class in every photo `[B, N_c, 37, 37]`, and label maps `[B, 12, 12]`."""
    generator = torch.Generator().manual_seed(seed)
    attention = (torch.randn(photos, 5, 37, 37, generator=generator) * 2).softmax(-1)
    parts = torch.randint(-1, 5, (photos, 6, 6), generator=generator)
    parts[-1][parts[-1] >= 2] = -1  # a photo with one object only
    objects = torch.where(parts >= 0, CLASS_TO_OBJECT[parts.clamp(min=0)], -1)
    parts, objects = (x.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2) for x in (parts, objects))
    return attention, parts, objects


@pytest.mark.parametrize("function", CONTROLS)
def test_order_of_photos_classes_and_pairs_does_not_matter(function: Callable) -> None:
    attention, parts, objects = random_case()
    pairs = present_pairs(parts, 5)
    expected = control(attention[pairs[:, 0], pairs[:, 1]], pairs, parts, objects, function)
    assert expected[0] > 0
    assert expected[1] > 0

    photos, classes, rows = torch.tensor([2, 0, 1]), torch.tensor([3, 0, 4, 1, 2]), torch.randperm(len(pairs))
    where_photo, where_class = photos.argsort(), classes.argsort()
    new_pairs = torch.stack([where_photo[pairs[:, 0]], where_class[pairs[:, 1]]], 1)[rows]
    new_parts = torch.where(parts >= 0, where_class[parts.clamp(min=0)], -1)[photos]
    new_attention = attention[photos][:, classes][new_pairs[:, 0], new_pairs[:, 1]]
    actual = function(new_attention, new_pairs, new_parts, objects[photos], CLASS_TO_OBJECT[classes], GAMMA, SIGMA)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7)  # float32 sums in another order


def test_objects_are_averaged() -> None:
    """A batch's terms are the mean over its objects, however many parts each has."""
    attention, parts, _ = random_case(seed=1)
    parts = parts[:2]
    parts[0][parts[0] >= 2] = -1  # object 0 with two parts
    parts[1][parts[1] < 2] = -1  # object 1 with three
    objects = torch.where(parts >= 0, CLASS_TO_OBJECT[parts.clamp(min=0)], -1)
    pairs = present_pairs(parts, 5)
    together = torch.stack(control(attention[pairs[:, 0], pairs[:, 1]], pairs, parts, objects))
    alone = []
    for b in range(2):
        own = present_pairs(parts[b : b + 1], 5)
        alone.append(torch.stack(control(attention[b, own[:, 1]], own, parts[b : b + 1], objects[b : b + 1])))
    torch.testing.assert_close(together, torch.stack(alone).mean(0))


@pytest.mark.parametrize("term", [0, 1])
def test_each_term_falls_under_gradient_descent(term: int) -> None:
    parts, objects = labels_of(TWO_PARTS)
    pairs = present_pairs(parts, 5)
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 37, 37, generator=generator)
    logits[:, :, 1:] += 3 * block(1, 1).flatten()  # both parts attend to the same place
    logits.requires_grad_()
    optimiser = torch.optim.SGD([logits], lr=5)
    values = []
    for _ in range(200):
        value = control(logits.softmax(-1), pairs, parts, objects)[term]
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[0] > 0.3
    assert values[-1] < 0.5 * values[0]


def test_a_part_keeps_its_own_tokens() -> None:
    parts, objects = labels_of(TWO_PARTS)
    pairs = present_pairs(parts, 5)
    maps = attending({0: block(0, 0, 4), 1: block(1, 1, 5)}, pairs, 36).requires_grad_()
    (gradient,) = torch.autograd.grad(control(maps, pairs, parts, objects)[0], maps)
    gradient = gradient[:, 1:, 1:]  # [2, n, n]
    own = torch.stack([block(0, 0).flatten(), block(3, 3).flatten()]).bool()
    for index in range(2):
        assert (gradient[index, :, ~own[index]] > 0).any()  # descent takes attention from the other's tokens
        assert (gradient[index] >= 0).all()
    # A token and its smoothing neighbours: the part's inner tokens are out of reach of any gradient.
    assert (gradient[0].unflatten(1, (6, 6))[:, :2, :2] == 0).all()


def test_enhancement_is_the_weakest_part_in_units_of_its_own_size() -> None:
    parts, objects = labels_of(["aaaaXX", "aaaaXX", "aaaaXX", "aaaaXX", "XXXXXb", "XXXXXX"])
    pairs = present_pairs(parts, 5)
    big, small = block(0, 0, 4), block(4, 5, 1)
    even = control(attending({0: big, 1: small}, pairs, 36), pairs, parts, objects)[1]
    # Even attention to one's own part is enough for a part of 16 tokens and for one of a single token.
    torch.testing.assert_close(even, torch.tensor(0.0), atol=1e-6, rtol=0)

    everywhere = torch.ones(6, 6)
    sharper = [attending({0: big, 1: everywhere + k * small}, pairs, 36) for k in (0, 9, 99)]
    weak = [control(attention, pairs, parts, objects)[1] for attention in sharper]
    assert weak[0] > weak[1] > weak[2] > 0
    unmoved = control(attending({0: 2 * big + 0.01, 1: everywhere}, pairs, 36), pairs, parts, objects)[1]
    torch.testing.assert_close(unmoved, weak[0])  # sharpening the stronger part does not count


@pytest.mark.parametrize("function", CONTROLS)
@pytest.mark.parametrize(
    "rows",
    [
        ["....", "....", "....", "...."],
        ["XX..", "XX..", "....", "...."],
        ["aaXX", "aaXX", "....", "...."],
        ["aabb", "ccdd", "eeee", "XXXX"],
        ["aabbcc"],  # a grid of one row
        ["ab", "cd", "ee"],
    ],
)
def test_poor_photos(function: Callable, rows: list[str]) -> None:
    parts, objects = labels_of(rows)
    pairs = present_pairs(parts, 5)
    tokens = len(rows) * len(rows[0])
    logits = torch.randn(len(pairs), tokens + 1, tokens + 1, requires_grad=True)
    separation, enhancement = control(logits.softmax(-1), pairs, parts, objects, function)
    assert 0 <= separation <= 1
    assert 0 <= enhancement <= 1
    (gradient,) = torch.autograd.grad(separation + enhancement, logits)
    assert gradient.isfinite().all()
    if len(pairs) < 2:
        assert separation == 0
    if len(pairs) == 0:
        assert enhancement == 0


def test_a_part_too_small_for_the_grid_does_not_count() -> None:
    parts, objects = labels_of(["aaa", "aaa", "XXX"])
    lost = parts.clone()
    lost[0, 1, 1] = 1  # nearest neighbour reads pixel (0, 0) of each 2 x 2 patch
    attention = torch.randn(2, 10, 10).softmax(-1).requires_grad_()
    pairs = present_pairs(lost, 5)
    assert pairs.tolist() == [[0, 0], [0, 1]]
    actual = control(attention, pairs, lost, objects)
    expected = control(attention[:1], pairs[:1], parts, objects)
    torch.testing.assert_close(actual, expected)
    (gradient,) = torch.autograd.grad(actual[0] + actual[1], attention)
    assert gradient.isfinite().all()
    assert (gradient[1] == 0).all()


def test_even_attention_has_a_bounded_gradient() -> None:
    """Stretched to full scale by min and max, noise of 1e-6 would have a gradient of about 1e6 · n."""
    parts, objects = labels_of(TWO_PARTS)
    pairs = present_pairs(parts, 5)
    logits = (torch.randn(2, 37, 37) * 1e-6).requires_grad_()
    (gradient,) = torch.autograd.grad(sum(control(logits.softmax(-1), pairs, parts, objects)), logits)
    assert gradient.norm() < 1


@pytest.mark.parametrize("function", CONTROLS)
def test_present_pairs_from_a_larger_map_change_nothing(function: Callable) -> None:
    """A class that only the full photo shows, not the logits' size, is as if it were not asked for."""
    attention, parts, objects = random_case(seed=4)
    parts[parts == 4] = -1
    pairs = present_pairs(parts, 5)
    more = torch.cat([pairs, torch.tensor([[0, 4]])])
    expected = control(attention[pairs[:, 0], pairs[:, 1]], pairs, parts, objects, function)
    actual = control(attention[more[:, 0], more[:, 1]], more, parts, objects, function)
    torch.testing.assert_close(actual, expected)


def test_reference_drops_the_last_object_of_a_photo_without_unlabelled_pixels() -> None:
    parts, objects = labels_of(["aabb", "aabb", "ccdd", "ccdd"])
    pairs = present_pairs(parts, 5)
    attention = attending({index: block(0, 0, 4, grid=4) + block(2, 2, 2, grid=4) for index in range(4)}, pairs, 16)
    full = control(attention, pairs, parts, objects, reference_control)
    marked = objects.clone()
    marked[0, 1, 1] = -1  # off the sampled pixels: the masks on the grid stay as they are
    both = control(attention, pairs, parts, marked, reference_control)
    # All parts claim the lower right quarter, so object 1 overlaps in full and object 0 nowhere.
    assert full[0] == 0
    assert both[0] == 0.5
