"""Labels as published evaluators see them: resized by nearest neighbour and back before they are counted.

OV-PARTS and PartCATSeg resize the labels with the photo for the model, and then those to the size of the photo.
OV-PARTS does so for Oracle-Obj, PartCATSeg for all its protocols, at the size that a method's code first resizes the
photo to; where that is not the model's own doing, OV-PARTS' is `ov_parts_size`, and PartCATSeg's the photo's own.

Sources: the code of Wei et al., "OV-PARTS: Towards Open-Vocabulary Part Segmentation" (NeurIPS 2023), and of Choi et
al., PartCATSeg (CVPR 2025).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.data.photo_size import size_at_shortest_edge

if TYPE_CHECKING:
    from partclipseg.evaluation.choices import Rule
    from partclipseg.models.interface import PartModel

LABELS: dict[Rule, str] = {"ov-parts": "by object masks, resized", "partcatseg": "resized"}
"""Names of the labels that a rule compares, in saved scores: earlier releases cut or resized them in another way.

`FileDataset.by_object_masks` cuts them."""


def label_size(model: PartModel, size: tuple[int, ...]) -> tuple[int, int] | None:
    """Return the size that a model first resizes a photo of height and width `size` to; None where it does not."""
    return model.first_size(size) if model.ahead_shape is None else None


def ov_parts_size(size: tuple[int, ...]) -> tuple[int, int]:
    """Return the size to which OV-PARTS resizes labels of height and width `size` for CLIPSeg, in pixels."""
    return size_at_shortest_edge(size, 800, 1333)


def resize_there_and_back(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize integer labels `[H, W]` to height and width `size` and back, by torch's nearest neighbour."""
    own = (labels.shape[0], labels.shape[1])
    if own == size:
        return labels
    rows, columns = (_sources(length, other, labels.device) for length, other in zip(own, size, strict=True))
    return labels[rows][:, columns]


def _sources(length: int, resized: int, device: torch.device) -> Tensor:
    """Return int64 `[length]`: the place that each of `length` pixels takes its value from, through `resized` ones."""
    there, back = (
        F.interpolate(torch.arange(old, dtype=torch.float32).view(1, 1, -1), new, mode="nearest").flatten().long()
        for old, new in ((length, resized), (resized, length))
    )
    return there[back].to(device)
