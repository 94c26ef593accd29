"""Binary cross-entropy over label maps: of object-parts, objects, generalized parts, and the baseline's.

A target has at most two ones in hundreds of channels, so none is built: for logits x and target channels t,
Σ_k BCE(x_k) = Σ_k softplus(x_k) - Σ_{k in t} x_k. Pixels that take no part are weighed 0 instead of being
selected, so nothing here waits for the device, and a term without any pixel is 0 with a gradient of 0.

The logits are the largest maps of a training step, so no copy of all of them is made, in float32 least of all: sums
and gradients are computed in float32 photo by photo, or by compiled kernels that read each logit once, and the backward
pass starts from the logits alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from partclipseg.maps.precision import full_precision


class LossCounts(NamedTuple):
    """Denominators of the loss means, float32 scalars; those of a batch are the sums over its micro-batches.

    float32 counts exactly to 2^24, and to 7 digits beyond.
    """

    labelled: Tensor
    """Number of pixels with an object-part label."""
    on_object: Tensor
    """Number of pixels with an object label."""
    background: Tensor
    """Number of background pixels."""
    counted: Tensor
    """Number of pixels that take part in the loss."""
    separated: Tensor
    """Number of objects with two parts or more on the token grid."""
    enhanced: Tensor
    """Number of objects with a part on the token grid."""
    listed: Tensor
    """Number of objects that the released attention control loops over."""
    photos: Tensor
    masks: Tensor
    """Number of part masks of the photos' objects, for losses that match masks."""


class Passes(NamedTuple):
    """Functions that process logits `[B, K, h, w]` of any float type: `by_photo` or `compiled`."""

    total: Callable[[Tensor], Tensor]
    """Σ_k softplus(x_k), at least float32, `[B, h, w]`."""
    slopes: Callable[[Tensor, Tensor], Tensor]
    """Gradient for the logits, `[B, K, h, w]` of their type, from a gradient `[B, h, w]` of `total`."""


def object_part_loss(
    logits: Tensor,
    classes: Tensor,
    labelled: Tensor,
    background: Tensor,
    background_weight: float,
    counts: LossCounts,
    passes: Passes,
) -> Tensor:
    """Return the mean over part-labelled pixels plus the mean over background pixels, over all channels each.

    The second mean counts only if some pixel lies on an object.

    Args:
        logits: `[B, N_c + 1, h, w]`, background last.
        classes: int64 `[B, h, w]`, object-part index; read where `labelled`.
        labelled: bool `[B, h, w]`, pixels with an object-part label.
        background: bool `[B, h, w]`, pixels that are background.
        background_weight: weight of the background channel.
        counts: denominators of the means.
        passes: functions that process the logits.
    """
    value = _channel_sum(logits, classes, labelled, background, background_weight, passes)  # [B, h, w]
    channels = logits.shape[1]
    off_object = _mean(value, background, counts.background, channels)
    return _mean(value, labelled, counts.labelled, channels) + off_object * (counts.on_object > 0)


def object_loss(
    logits: Tensor,
    objects: Tensor,
    on_object: Tensor,
    background: Tensor,
    background_weight: float,
    counts: LossCounts,
    passes: Passes,
) -> Tensor:
    """Return the mean over object and background pixels; `logits [B, N_o + 1, h, w]`, the rest as above."""
    value = _channel_sum(logits, objects, on_object, background, background_weight, passes)
    return _mean(value, on_object | background, counts.on_object + counts.background, logits.shape[1])


def part_loss(logits: Tensor, parts: Tensor, labelled: Tensor, counts: LossCounts, passes: Passes) -> Tensor:
    """Return the mean over part-labelled pixels; `logits [B, N_p, h, w]`, no background; `parts` int64 `[B, h, w]`."""
    value = _channel_sum(logits, parts, labelled, torch.zeros_like(labelled), 1.0, passes)
    return _mean(value, labelled, counts.labelled, logits.shape[1])


def baseline_loss(
    logits: Tensor,
    classes: Tensor,
    labelled: Tensor,
    counted: Tensor,
    background_weight: float,
    pixels: Tensor,
    passes: Passes,
) -> Tensor:
    """Return the mean over the `counted` pixels, `pixels` in number; pixels without a part label are background."""
    value = _channel_sum(logits, classes, labelled, ~labelled, background_weight, passes)
    return _mean(value, counted, pixels, logits.shape[1])


def by_photo() -> Passes:
    """Return passes with PyTorch's own kernels, one photo at a time, since each step makes a float32 copy."""
    return Passes(_total_by_photo, _slopes_by_photo)


@cache
def compiled() -> Passes:
    """Return passes over all photos at once with `torch.compile`, whose kernels keep float32 values in registers."""
    return Passes(torch.compile(_total, dynamic=True), torch.compile(_slopes, dynamic=True))


def _total(logits: Tensor) -> Tensor:
    return F.softplus(full_precision(logits)).sum(1)


def _total_by_photo(logits: Tensor) -> Tensor:
    return torch.cat([_total(photo) for photo in logits.split(1)])


def _slopes(logits: Tensor, gradient: Tensor) -> Tensor:
    return (full_precision(logits).sigmoid() * gradient.unsqueeze(1)).to(logits.dtype)


def _slopes_by_photo(logits: Tensor, gradient: Tensor) -> Tensor:
    slopes = torch.empty_like(logits)
    for slope, photo, above in zip(slopes.split(1), logits.split(1), gradient.split(1), strict=True):
        slope.copy_(_slopes(photo, above))
    return slopes


def _channel_sum(
    logits: Tensor, index: Tensor, indexed: Tensor, background: Tensor, background_weight: float, passes: Passes
) -> Tensor:
    """Sum the weighted cross-entropy over channels, `[B, h, w]`.

    The target is 1 at `index` where `indexed`, and 1 in the last channel, with weight `background_weight`, where
    `background`.
    """
    arguments = logits, index.clamp(min=0), indexed, background, background_weight, passes
    return _ChannelSum.apply(*arguments)  # pyright: ignore


class _ChannelSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, index: Tensor, indexed: Tensor, background: Tensor, weight: float, passes: Passes
    ) -> Tensor:
        ctx.save_for_backward(logits, index, indexed, background)
        ctx.weight, ctx.passes = weight, passes
        last = full_precision(logits[:, -1])
        everywhere = passes.total(logits) + (weight - 1) * F.softplus(last)  # [B, h, w]
        return everywhere - _at(logits, index) * indexed - weight * last * background

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        logits, index, indexed, background = ctx.saved_tensors
        slopes = ctx.passes.slopes(logits, gradient)
        last = full_precision(logits[:, -1]).sigmoid() - background.to(gradient.dtype)
        slopes[:, -1] = ctx.weight * last * gradient
        # Where a target is 1, the difference is rounded once, not the sigmoid and then the difference. After the last
        # channel, which is an index like any other where there is no background.
        at = (_at(logits, index).sigmoid() - indexed.to(gradient.dtype)) * gradient
        slopes.scatter_(1, index.unsqueeze(1), at.unsqueeze(1).to(slopes.dtype))
        return slopes, None, None, None, None, None


def _at(logits: Tensor, index: Tensor) -> Tensor:
    """Return the logits `[B, h, w]` of channel `index`."""
    return full_precision(logits.gather(1, index.unsqueeze(1)).squeeze(1))


def _mean(value: Tensor, pixels: Tensor, count: Tensor, channels: int) -> Tensor:
    """Sum a channel sum over `pixels`, divided by `count` and channels; 0 without any pixel."""
    return (value * pixels).sum() / (count.clamp(min=1) * channels)
