"""Losses between a set of proposed masks and the true ones, MaskFormer's (Cheng et al., NeurIPS 2021).

Letters in shapes: N photos (or photos and layers), Q proposals, M true masks, K words, P pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from partclipseg.losses.resize import resize_logits

ALPHA, GAMMA = 0.25, 2.0
"""Weight of true pixels in the focal loss, and its exponent."""


def focal(logits: Tensor, truth: Tensor) -> Tensor:
    """Average the focal loss over the pixels: `[..., P]` twice → `[...]`."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = logits.sigmoid()
    missed = torch.where(truth > 0.5, 1 - probability, probability)
    weight = torch.where(truth > 0.5, ALPHA, 1 - ALPHA)
    return (weight * missed**GAMMA * cross_entropy).mean(-1)


def dice(logits: Tensor, truth: Tensor) -> Tensor:
    """Compute the dice loss of masks: `[..., P]` twice → `[...]`."""
    probability = logits.sigmoid()
    return 1 - (2 * (probability * truth).sum(-1) + 1) / (probability.sum(-1) + truth.sum(-1) + 1)


def at_label_size(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Compute focal and dice loss, `[N, M]` each, of `logits [N, M, h, w]` resized to `truth`, bool `[N, M, H, W]`.

    Only the small logits are kept: the backward pass resizes and compares them again, one photo at a time.
    """
    photos = [
        checkpoint(_at_label_size, *photo, use_reentrant=False, preserve_rng_state=False)
        for photo in zip(logits.split(1), truth.split(1), strict=True)
    ]
    of_focal, of_dice = zip(*photos, strict=True)
    return torch.cat(of_focal), torch.cat(of_dice)


def _at_label_size(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    resized = resize_logits(logits, (truth.shape[-2], truth.shape[-1])).flatten(2)
    target = truth.flatten(2).float()
    return focal(resized, target), dice(resized, target)


@torch.no_grad()
def matching_costs(
    masks: Tensor, classes: Tensor, truth: Tensor, words: Tensor, focal_weight: float, dice_weight: float
) -> Tensor:
    """Compute the cost of giving each true mask to each proposal, `[N, M, Q]`.

    Args:
        masks: mask logits `[N, Q, P]`.
        classes: logits `[N, Q, K + 1]` of every word, background last.
        truth: true masks `[N, M, P]`, 0 or 1.
        words: int64 `[N, M]`, the word of each true mask.
        focal_weight, dice_weight: weights of the losses of masks beside that of the word.
    """
    probability = masks.sigmoid()
    inside = ALPHA * (1 - probability) ** GAMMA * F.softplus(-masks)
    outside = (1 - ALPHA) * probability**GAMMA * F.softplus(masks)
    pairs = truth @ (inside - outside).mT + outside.sum(-1)[:, None]  # [N, M, Q]
    overlap = truth @ probability.mT
    sizes = truth.sum(-1)[..., None] + probability.sum(-1)[:, None]
    unlike = 1 - (2 * overlap + 1) / (sizes + 1)
    likely = classes.softmax(-1).mT.gather(1, words[..., None].expand(-1, -1, classes.shape[1]))  # [N, M, Q]
    return focal_weight * pairs / masks.shape[-1] + dice_weight * unlike - likely
