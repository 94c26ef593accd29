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
    owner_of = torch.as_tensor(class_to_object, device=output.object_part_logits.device)
    results = []
    for index, size in enumerate(sizes):
        logits = output.object_part_logits[index]  # [N_c + 1, h, w]
        if output.object_logits is None:
            contest = Contest(size, logits.device)
            contest.add(logits, torch.arange(len(logits), device=logits.device))
        else:
            object_logits = output.object_logits[index]  # [N_o + 1, h, w]
            objects = Contest(size, logits.device)
            objects.add(object_logits, torch.arange(len(object_logits), device=logits.device))
            contest = Contest(size, logits.device, gate=objects.labels)
            owners = torch.cat([owner_of, owner_of.new_tensor([len(object_logits) - 1])])
            # A class whose object wins nowhere need not be looked at.
            alive = torch.isin(owners, objects.labels.unique()).nonzero()[:, 0]
            contest.add(logits[alive], alive, owners[alive])
        results.append(contest.maps(owner_of))
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
    owner_of = torch.as_tensor(class_to_object, device=output.object_part_logits.device)
    results = []
    for index, (size, present) in enumerate(zip(sizes, present_objects, strict=True)):
        chosen = torch.isin(owner_of, owner_of.new_tensor(list(present))).nonzero()[:, 0]
        contest = Contest(size, owner_of.device)
        contest.add(output.object_part_logits[index][chosen], chosen)
        results.append(contest.maps(owner_of))
    return results


class Contest:
    """The class of the greatest upsampled logit at every pixel of one photo, found a few classes at a time.

    Only one value and one label a pixel are kept, and at most `_LOGITS_AT_ONCE` upsampled logits beside them. Of
    equal values the one added first wins, as in an argmax over all of them.
    """

    def __init__(self, size: tuple[int, int], device: torch.device, gate: Tensor | None = None) -> None:
        """`size` is `(H, W)`; with `gate`, int64 `[H, W]`, a class takes part only where the gate is its owner."""
        self.labels = torch.full(size, BACKGROUND, device=device)
        """int64 `[H, W]`: the best so far; background where nothing took part."""
        self._best = torch.full(size, -torch.inf, device=device)
        self._gate = gate

    def add(self, logits: Tensor, labels: Tensor, owners: Tensor | None = None) -> None:
        """Logits `[K, h, w]` of any float type, their labels and, with a gate, their owners, both int64 `[K]`."""
        height, width = self.labels.shape
        step = max(1, _LOGITS_AT_ONCE // (height * width))
        for start in range(0, len(logits), step):
            part = slice(start, start + step)
            some = upsample(logits[part], (height, width))  # [k, H, W]
            if self._gate is not None and owners is not None:
                some.masked_fill_(owners[part, None, None] != self._gate, -torch.inf)
            value, position = some.max(dim=0)
            self.labels = torch.where(value > self._best, labels[part][position], self.labels)
            self._best = torch.maximum(self._best, value)

    def maps(self, class_to_object: Tensor) -> LabelMaps:
        """The outcome for classes with objects int64 `[N_c]`; label `N_c` is background."""
        labels = self.labels.masked_fill(self.labels == len(class_to_object), BACKGROUND)
        owners = F.pad(class_to_object, (0, 1), value=BACKGROUND)  # label -1 reads the last entry
        return LabelMaps(labels, owners[labels], self._best.sigmoid())


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits `[K, h, w]` of any float type to float32 `[K, H, W]`, bilinearly."""
    return F.interpolate(logits[None].float(), size=size, mode="bilinear", align_corners=False)[0]
