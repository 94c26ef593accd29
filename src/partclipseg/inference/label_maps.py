"""From logits to label maps at photo size: Pred-All and Oracle-Obj.

Logits are upsampled bilinearly (``align_corners=False``), then the best class of every pixel is taken. The best
logit is the best probability, so the sigmoid is taken of the winners only; where the method multiplies the
probabilities of gated classes by zero, those classes do not take part here. The two agree except where the
float32 sigmoid has no digits left (two classes near 1, or every class at 0), and there the logits are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BACKGROUND = -1

_LOGITS_AT_ONCE = 32_000_000
"""Upsampled values held at a time (128 MB): what bounds the memory for large photos and long vocabularies."""


class LabelMaps(NamedTuple):
    """The prediction for one photo of size `H × W`."""

    label_map: Tensor
    """int64 `[H, W]`: index of the object-part, background -1."""
    object_map: Tensor
    """int64 `[H, W]`: index of the object, background -1; always the object of `label_map`."""
    scores: Tensor
    """float32 `[H, W]`: probability of the class (or of background) that won."""


def pred_all(
    output: Any, sizes: Sequence[tuple[int, int]], class_to_object: Tensor | np.ndarray
) -> list[LabelMaps]:
    """Nothing is known about the photo: any class of the vocabulary, or background.

    Where the object logits name an object, only its parts compete; where they name background, the pixel is
    background. A model without object logits (the CLIPSeg baseline) decides by its classes and background alone.

    Args:
        output: `PartCLIPSegOutput` of `B` photos.
        sizes: `(H, W)` of each photo.
        class_to_object: int64 `[N_c]`.
    """
    owner_of: Tensor = torch.as_tensor(class_to_object, device=output.object_part_logits.device)
    results = []
    for index, size in enumerate(sizes):
        logits = output.object_part_logits[index]  # [N_c + 1, h, w]
        if output.object_logits is None:
            labels, best = _best(logits, size)
        else:
            object_logits = output.object_logits[index]  # [N_o + 1, h, w]
            winners, _ = _best(object_logits, size)
            owners = torch.cat([owner_of, owner_of.new_tensor([len(object_logits) - 1])])
            # A class whose object wins nowhere need not be looked at.
            alive = torch.isin(owners, winners.unique()).nonzero()[:, 0]
            channel, best = _best(logits[alive], size, owners[alive], winners)
            labels = alive[channel]
        labels[labels == len(owner_of)] = BACKGROUND
        results.append(_label_maps(labels, best, owner_of))
    return results


def oracle_obj(
    output: Any,
    sizes: Sequence[tuple[int, int]],
    class_to_object: Tensor | np.ndarray,
    present_objects: Sequence[Sequence[int]],
) -> list[LabelMaps]:
    """The objects in each photo are known: their parts compete, at every pixel, without background.

    Args:
        output, sizes, class_to_object: as in `pred_all`.
        present_objects: object indices of each photo. With none of them the whole photo is background.
    """
    owner_of: Tensor = torch.as_tensor(class_to_object, device=output.object_part_logits.device)
    results = []
    for index, (size, present) in enumerate(zip(sizes, present_objects, strict=True)):
        chosen = torch.isin(owner_of, owner_of.new_tensor(list(present))).nonzero()[:, 0]
        if len(chosen) == 0:
            labels = torch.full(size, BACKGROUND, device=owner_of.device)
            results.append(LabelMaps(labels, labels.clone(), torch.zeros(size, device=labels.device)))
            continue
        winners, best = _best(output.object_part_logits[index][chosen], size)
        results.append(_label_maps(chosen[winners], best, owner_of))
    return results


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits `[K, h, w]` of any float type to float32 `[K, H, W]`, bilinearly."""
    return F.interpolate(logits[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def _best(
    logits: Tensor, size: tuple[int, int], owners: Tensor | None = None, winners: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Channel and logit, both `[H, W]`, of the greatest upsampled value of logits `[K, h, w]`.

    With `winners` `[H, W]` and `owners` `[K]`, a channel takes part only where its owner has won.
    """
    step = max(1, _LOGITS_AT_ONCE // (size[0] * size[1]))
    best = torch.full(size, -torch.inf, device=logits.device)
    channel = torch.zeros(size, dtype=torch.long, device=logits.device)
    for start in range(0, len(logits), step):
        some = upsample(logits[start : start + step], size)  # [k, H, W]
        if owners is not None and winners is not None:
            some.masked_fill_(owners[start : start + step, None, None] != winners, -torch.inf)
        value, position = some.max(dim=0)
        # Of equal values the first channel wins, as in an argmax over all of them.
        channel = torch.where(value > best, position + start, channel)
        best = torch.maximum(best, value)
    return channel, best


def _label_maps(labels: Tensor, best: Tensor, class_to_object: Tensor) -> LabelMaps:
    with_background = torch.cat([class_to_object, class_to_object.new_tensor([BACKGROUND])])
    return LabelMaps(labels, with_background[labels], best.sigmoid())  # label -1 reads the last entry
