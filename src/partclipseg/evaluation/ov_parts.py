"""The labels as OV-PARTS' evaluator sees them: resized by nearest neighbour and back before they are counted.

Source: Wei et al., "OV-PARTS: Towards Open-Vocabulary Part Segmentation" (NeurIPS 2023), Oracle-Obj of its code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.data.augment import scaled_size

LABELS = "ov-parts, by object masks"
"""Name of the labels that the rule compares in saved scores: those of other releases were cut or resized in another way
(see `FileDataset.by_object_masks`)."""

LABEL_EDGES = 800, 1333
"""Shortest edge of the resized labels and the longest that it may lead to, in pixels, of methods that name no other."""


def resize_there_and_back(labels: Tensor, edges: tuple[int, int] = LABEL_EDGES) -> Tensor:
    """Resize integer labels `[H, W]` and bring them back to their size, by torch's nearest neighbour.

    `edges` are the shortest edge that they are resized to and the longest that it may lead to.
    """
    size = tuple(labels.shape)
    resized = scaled_size(size, *edges)
    rows, columns = (_sources(*lengths, labels.device) for lengths in zip(size, resized, strict=True))
    return labels[rows][:, columns]


def _sources(length: int, resized: int, device: torch.device) -> Tensor:
    """Return int64 `[length]`: the place that each of `length` pixels takes its value from, through `resized` ones."""
    there, back = (
        F.interpolate(torch.arange(old, dtype=torch.float32).view(1, 1, -1), new, mode="nearest").flatten().long()
        for old, new in ((length, resized), (resized, length))
    )
    return there[back].to(device)
