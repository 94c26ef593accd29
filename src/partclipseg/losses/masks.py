"""Binary cross-entropy over label maps: of object-parts, objects, generalized parts, and the baseline's.

A target has at most two ones in hundreds of channels, so none is built: for logits x and target channels t,
Σ_k BCE(x_k) = Σ_k softplus(x_k) - Σ_{k in t} x_k. Pixels that take no part are weighed 0 instead of being
selected, so nothing here waits for the device, and a term without any pixel is 0 with a gradient of 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.losses.counts import LossCounts


def object_part_loss(
    logits: Tensor,
    classes: Tensor,
    labelled: Tensor,
    background: Tensor,
    background_weight: float,
    counts: LossCounts,
) -> Tensor:
    """Mean over the part-labelled pixels plus mean over the background pixels, all channels each.

    The second mean counts only if some pixel lies on an object.

    Args:
        logits: `[B, N_c + 1, h, w]`, background last.
        classes: int64 `[B, h, w]`, object-part index; read where `labelled`.
        labelled: bool `[B, h, w]`, pixels with an object-part label.
        background: bool `[B, h, w]`, pixels that are background.
        background_weight: weight of the background channel.
        counts: of the batch that the means are over.
    """
    value = _channel_sum(logits, classes, labelled, background, background_weight)  # [B, h, w]
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
) -> Tensor:
    """Mean over the object and background pixels; `logits [B, N_o + 1, h, w]`, the rest as above."""
    value = _channel_sum(logits, objects, on_object, background, background_weight)
    return _mean(value, on_object | background, counts.on_object + counts.background, logits.shape[1])


def part_loss(logits: Tensor, parts: Tensor, labelled: Tensor, counts: LossCounts) -> Tensor:
    """Mean over the part-labelled pixels; `logits [B, N_p, h, w]`, no background; `parts` int64 `[B, h, w]`."""
    logits = _full_precision(logits)
    value = F.softplus(logits).sum(1) - _at(logits, parts) * labelled
    return _mean(value, labelled, counts.labelled, logits.shape[1])


def baseline_loss(
    logits: Tensor, classes: Tensor, labelled: Tensor, counted: Tensor, background_weight: float, pixels: Tensor
) -> Tensor:
    """Mean over the `counted` pixels, `pixels` in number; every pixel without a part label is background."""
    value = _channel_sum(logits, classes, labelled, ~labelled, background_weight)
    return _mean(value, counted, pixels, logits.shape[1])


def _channel_sum(
    logits: Tensor, index: Tensor, indexed: Tensor, background: Tensor, background_weight: float
) -> Tensor:
    """Weighted sum over channels of the cross-entropy `[B, h, w]`: 1 at `index` where `indexed`, and 1 in the
    last channel where `background`."""
    logits = _full_precision(logits)
    last = logits[:, -1]
    everywhere = F.softplus(logits).sum(1) + (background_weight - 1) * F.softplus(last)
    return everywhere - _at(logits, index) * indexed - background_weight * last * background


def _at(logits: Tensor, index: Tensor) -> Tensor:
    """Logits `[B, h, w]` of channel `index`; of channel 0 where `index` is negative."""
    return logits.gather(1, index.clamp(min=0).unsqueeze(1)).squeeze(1)


def _mean(value: Tensor, pixels: Tensor, count: Tensor, channels: int) -> Tensor:
    """Sum of a channel sum over `pixels`, by `count` of them and channels; 0 without any pixel."""
    return (value * pixels).sum() / (count.clamp(min=1) * channels)


def _full_precision(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
