"""Focal and dice loss at the size of the label maps, without keeping maps of that size."""

import torch
from torch.nn import functional as F

from partclipseg.losses import sets


def test_large_maps_are_made_again_in_the_backward_pass():
    torch.manual_seed(0)
    logits, truth = torch.randn(2, 3, 6, 8), torch.rand(2, 3, 24, 32) > 0.5
    resized = F.interpolate(given := logits.clone().requires_grad_(), (24, 32), mode="bilinear").flatten(2)
    flat = truth.flatten(2).float()
    expected = sets.focal(resized, flat), sets.dice(resized, flat)
    (expected[0] + 2 * expected[1]).sum().backward()

    kept = []

    def keep(tensor):
        kept.append(tensor.numel() * tensor.is_floating_point())
        return tensor

    small = logits.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = sets.at_label_size(small, truth)
        total = (found[0] + 2 * found[1]).sum()
    assert max(kept, default=0) <= small.numel(), "a map of the labels' size was kept"
    total.backward()
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    # Photos pass one by one, so that nothing is summed in another order.
    assert small.grad is not None
    assert torch.equal(small.grad, given.grad)
