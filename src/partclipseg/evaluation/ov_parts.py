"""The labels as OV-PARTS' evaluator sees them: resized by nearest neighbour and back before they are counted.

Source: Wei et al., "OV-PARTS: Towards Open-Vocabulary Part Segmentation" (NeurIPS 2023), Oracle-Obj of its code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.data.augment import scaled_size

SHORTEST_EDGE, LONGEST_EDGE = 800, 1333
"""Shortest edge of the resized labels and the longest that it may lead to, in pixels."""


def resize_there_and_back(labels: Tensor) -> Tensor:
    """Resize integer labels `[H, W]` to `SHORTEST_EDGE` and back to their size, by torch's nearest neighbour."""
    resized = scaled_size(labels.shape, SHORTEST_EDGE, LONGEST_EDGE)
    rows, columns = (_sources(old, new, labels.device) for old, new in zip(labels.shape, resized, strict=True))
    return labels[rows][:, columns]


def _sources(length: int, resized: int, device: torch.device) -> Tensor:
    """Return int64 `[length]`: the place that each of `length` pixels takes its value from, through `resized` ones."""
    there, back = (
        F.interpolate(torch.arange(old, dtype=torch.float32).view(1, 1, -1), new, mode="nearest").flatten().long()
        for old, new in ((length, resized), (resized, length))
    )
    return there[back].to(device)
