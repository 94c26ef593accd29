"""Losses of detectors: overlap of boxes, and scores that say how good a box is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def corners(boxes: Tensor) -> Tensor:
    """Return the corners x, y, x, y of boxes `[..., 4]` that are given by centre, width and height."""
    centre, size = boxes.split(2, -1)
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def overlaps(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and generalised IoU, `[...]` each, of boxes and others, corners `[..., 4]`, one by one.

    The generalised IoU (Rezatofighi et al., CVPR 2019) is the IoU less the share of their common frame that neither
    covers. It lies from -1 to 1 and draws together boxes that do not touch.
    """
    (low, high), (other_low, other_high) = boxes.split(2, -1), others.split(2, -1)
    area, other_area = _area(high - low), _area(other_high - other_low)
    common = _area((torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0))
    union = (area + other_area - common).clamp(min=1e-9)
    frame = _area(torch.maximum(high, other_high) - torch.minimum(low, other_low)).clamp(min=1e-9)
    iou = common / union
    return iou, iou - (frame - union) / frame


def _area(size: Tensor) -> Tensor:
    """Multiply width and height `[..., 2]`; the gradient of `prod` would wait for the device to look for zeros."""
    return size[..., 0] * size[..., 1]


def quality_focal_loss(logits: Tensor, quality: Tensor, focus: float = 2.0) -> Tensor:
    """Return the quality focal loss (Li et al., NeurIPS 2020) of scores, `[...]`, not yet summed.

    Args:
        logits: `[...]`.
        quality: `[...]`, from 0 to 1: what the sigmoid of the logits is to be, such as the IoU of a box and the truth.
        focus: exponent; a greater one leaves out more of what is nearly right.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return entropy * (logits.sigmoid() - quality).abs().pow(focus)
