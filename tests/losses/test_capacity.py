"""A fixed number of attention pairs gives the losses of exactly the shown ones."""

import pytest
import torch

from partclipseg.losses.attention import differentiable_control, reference_control
from partclipseg.losses.labels import present_pairs


@pytest.mark.parametrize("control", [differentiable_control, reference_control])
def test_pairs_that_no_photo_shows_count_nothing(control):
    parts = torch.full((2, 16, 16), -1)
    parts[0, :4], parts[0, 4:8], parts[1, 2:9, 3:9] = 0, 3, 5
    class_to_object = torch.tensor([0, 0, 1, 0, 1, 1])
    objects = torch.where(parts >= 0, class_to_object[parts.clamp(min=0)], -1)
    attention = torch.rand(2, 6, 17, 17).softmax(-1)

    def terms(pairs):
        return control(attention[pairs[:, 0], pairs[:, 1]], pairs, parts, objects, class_to_object, 0.3, 0.5)

    shown = present_pairs(parts, 6)
    padded = present_pairs(parts, 6, capacity=9)
    assert shown.tolist() == [[0, 0], [0, 3], [1, 5]]
    assert len(padded) == 9
    assert len({tuple(pair) for pair in padded.tolist()}) == 9
    assert {tuple(pair) for pair in shown.tolist()} <= {tuple(pair) for pair in padded.tolist()}
    # The same terms summed in another order.
    torch.testing.assert_close(terms(padded), terms(shown), atol=1e-6, rtol=1e-5)
    assert terms(shown)[1] > 0


def test_the_capacity_is_never_more_than_there_is():
    assert len(present_pairs(torch.zeros(2, 4, 4, dtype=torch.long), 3, capacity=100)) == 6
    assert present_pairs(torch.zeros(2, 4, 4, dtype=torch.long), 3, capacity=1).shape == (1, 2)
