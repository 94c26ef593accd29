"""Losses of detectors: overlaps of boxes, and scores that are to be a box's quality."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from partclipseg.losses.boxes import corners, overlaps, quality_focal_loss

SIDES = st.floats(0.01, 1)
PLACES = st.floats(0, 1)
BOXES = st.tuples(PLACES, PLACES, SIDES, SIDES)


@pytest.mark.parametrize(
    ("box", "other", "iou", "generalised"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1, 1),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3, 1 / 3),  # the frame holds nothing else
        ((0, 0, 1, 1), (1, 1, 2, 2), 0, -1 / 2),  # two of the frame's four squares
        ((0, 0, 1, 1), (3, 0, 4, 1), 0, -1 / 2),
        ((0, 0, 4, 4), (1, 1, 3, 3), 1 / 4, 1 / 4),
        ((1, 1, 1, 1), (1, 1, 1, 1), 0, 0),  # nothing over nothing
    ],
)
def test_overlaps_by_hand(box: tuple, other: tuple, iou: float, generalised: float) -> None:
    found = overlaps(torch.tensor([box], dtype=torch.float32), torch.tensor([other], dtype=torch.float32))
    assert [value.item() for value in found] == pytest.approx([iou, generalised], abs=1e-6)


@given(BOXES, BOXES)
def test_overlaps_are_symmetric_and_in_range(box: tuple, other: tuple) -> None:
    one, two = (corners(torch.tensor([values], dtype=torch.float64)) for values in (box, other))
    iou, generalised = overlaps(one, two)
    assert torch.allclose(torch.stack(overlaps(two, one)), torch.stack([iou, generalised]))
    assert 0 <= iou.item() <= 1 + 1e-9
    assert -1 <= generalised.item() <= iou.item() + 1e-9
    assert torch.allclose(torch.stack(overlaps(one, one)), torch.ones(2, 1, dtype=torch.float64))


@given(BOXES)
def test_corners(box: tuple) -> None:
    x0, y0, x1, y1 = corners(torch.tensor(box, dtype=torch.float64)).tolist()
    assert ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0) == pytest.approx(box)


@given(st.floats(-8, 8), st.floats(0.02, 0.98))
def test_a_score_is_drawn_to_the_quality(logit: float, quality: float) -> None:
    value = torch.tensor([logit], requires_grad=True)
    wanted = torch.tensor([quality])
    loss = quality_focal_loss(value, wanted)
    right = quality_focal_loss(wanted.logit(), wanted)
    assert loss.item() >= right.item() - 1e-6
    assert right.item() == pytest.approx(0, abs=1e-6)
    loss.sum().backward()
    assert value.grad is not None
    if abs(value.sigmoid().item() - quality) > 0.01:
        assert (value.grad.item() > 0) == (value.sigmoid().item() > quality)
