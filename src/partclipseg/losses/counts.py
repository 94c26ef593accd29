"""What the means of the losses are over, so that the shares of a batch can add up to the whole batch's loss."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LossCounts(NamedTuple):
    """Numbers of pixels and objects, float32 scalars; those of a batch are the sums of its shares'.

    float32 counts exactly to 2^24, and to 7 digits beyond.
    """

    labelled: Tensor
    """Pixels with an object-part label."""
    on_object: Tensor
    """Pixels with an object label."""
    background: Tensor
    """Pixels that are background."""
    counted: Tensor
    """Pixels that take part in the loss at all."""
    separated: Tensor
    """Objects of which the token grid shows two parts or more."""
    enhanced: Tensor
    """Objects of which the token grid shows a part."""
    listed: Tensor
    """Objects that the released attention control goes through."""
    photos: Tensor
