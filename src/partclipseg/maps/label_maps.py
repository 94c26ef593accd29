"""Compute label maps at photo size from logits: Pred-All and Oracle-Obj.

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

from partclipseg.maps.upsample import PhotoPixels, keep_best

BACKGROUND = -1


class LabelMaps(NamedTuple):
    """The prediction for one photo of size `H × W`."""

    label_map: Tensor
    """int64 `[H, W]`: index of the object-part, background -1."""
    object_map: Tensor
    """int64 `[H, W]`: index of the object, background -1; always the object of `label_map`."""
    scores: Tensor
    """float32 `[H, W]`: probability of the class (or of background) that won."""


def no_object(size: tuple[int, int], device: torch.device) -> LabelMaps:
    """Return the maps of a photo of `size` (H, W) for which no object-part was asked: background everywhere."""
    background = torch.full(size, BACKGROUND, device=device)
    return LabelMaps(background, background, torch.ones(size, device=device))


@torch.no_grad()
def pred_all(
    output: Any,
    sizes: Sequence[tuple[int, int]],
    class_to_object: Tensor | np.ndarray,
    present_objects: Sequence[Sequence[int]] | None = None,
) -> list[LabelMaps]:
    """Compute label maps without known objects: any class of the vocabulary, or background.

    Where the object logits name an object, only its parts compete; where they name background, the pixel is
    background. A model without object logits (the CLIPSeg baseline) decides by its classes and background alone.

    Args:
        output: a `PartOutput` of `B` photos.
        sizes: `(H, W)` of each photo.
        class_to_object: int64 `[N_c]`.
        present_objects: object indices of each photo that may occur, beside background; None for all.
    """
    owner_of = torch.as_tensor(class_to_object, device=output.object_part_logits.device)
    results = []
    for index, size in enumerate(sizes):
        logits = output.object_part_logits[index]  # [N_c + 1, h, w]
        background = int(owner_of.max()) + 1 if output.object_logits is None else len(output.object_logits[index]) - 1
        owners = torch.cat([owner_of, owner_of.new_tensor([background])])  # [N_c + 1]
        named = None if present_objects is None else owners.new_tensor([*present_objects[index], background])
        if output.object_logits is None:
            chosen = torch.ones_like(owners, dtype=torch.bool) if named is None else torch.isin(owners, named)
            alive = chosen.nonzero()[:, 0]
            contest = Contest([size], logits.device)
            contest.add(_first(alive), logits[alive], alive)
        else:
            object_logits = output.object_logits[index]  # [N_o + 1, h, w]
            indices = torch.arange(len(object_logits), device=logits.device) if named is None else named.unique()
            objects = Contest([size], logits.device)
            objects.add(_first(indices), object_logits[indices], indices)
            contest = Contest([size], logits.device, gate=objects)
            # A class whose object wins nowhere can be skipped.
            alive = objects.winners(len(object_logits))[0][owners].nonzero()[:, 0]
            contest.add(_first(alive), logits[alive], alive, owners[alive])
        results += contest.maps(owner_of)
    return results


def _first(rows: Tensor) -> np.ndarray:
    """Return photo index 0 for every row."""
    return np.zeros(len(rows), np.int64)


@torch.no_grad()
def oracle_obj(
    output: Any,
    sizes: Sequence[tuple[int, int]],
    class_to_object: Tensor | np.ndarray,
    present_objects: Sequence[Sequence[int]],
) -> list[LabelMaps]:
    """Compute label maps for known objects: their parts compete, at every pixel, without background.

    Args:
        output, sizes, class_to_object: as in `pred_all`.
        present_objects: object indices of each photo. With none of them the whole photo is background.
    """
    owner_of = torch.as_tensor(class_to_object, device=output.object_part_logits.device)
    results = []
    for index, (size, present) in enumerate(zip(sizes, present_objects, strict=True)):
        chosen = torch.isin(owner_of, owner_of.new_tensor(list(present))).nonzero()[:, 0]
        contest = Contest([size], owner_of.device)
        contest.add(_first(chosen), output.object_part_logits[index][chosen], chosen)
        results += contest.maps(owner_of)
    return results


class Contest:
    """Class of the greatest upsampled logit at every pixel of a batch of photos, computed a few classes at a time.

    Only one value and one label per pixel are stored. Of equal values the first one added wins, as in an argmax over
    all of them.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], device: torch.device, gate: Contest | None = None) -> None:
        """Start a contest of photos of `sizes` (H, W); with a `gate` a class counts only where its owner has won it.

        The gate is read as it is, so nothing may be added to it afterwards.
        """
        self._pixels = PhotoPixels(sizes, device)
        self._labels = self._pixels.full(BACKGROUND)
        self._best = self._pixels.full(-torch.inf)
        self._gate = None if gate is None else gate._labels

    def add(self, photos: np.ndarray, logits: Tensor, labels: Tensor, owners: Tensor | None = None) -> None:
        """Add rows of logits `[K, h, w]` of any float type, in order of their `photos`, int64 `[K]`.

        Their labels and, with a gate, their owners are int64 `[K]`. Tensors may be longer; the rest is ignored.
        """
        keep_best(self._pixels, self._best, self._labels, photos, logits, labels, self._gate, owners)

    def winners(self, count: int) -> Tensor:
        """Return the labels with pixels in each photo, bool `[B, count]`; every pixel must have a winner."""
        return self._pixels.occurring(self._labels, count)

    def maps(self, class_to_object: Tensor) -> list[LabelMaps]:
        """Return the label maps for classes with objects int64 `[N_c]`; label `N_c` is background."""
        labels = self._labels.masked_fill(self._labels == len(class_to_object), BACKGROUND)
        owners = F.pad(class_to_object, (0, 1), value=BACKGROUND)  # label -1 reads the last entry
        flat = labels, owners[labels], self._best.sigmoid()
        return [LabelMaps(*maps) for maps in zip(*map(self._pixels.split, flat), strict=True)]
