"""The training losses of CAT-Seg and PartCATSeg.

Letters in shapes: B photos, N_p parts, N_o objects, N_c object-parts, H x W the label maps, g feature grid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.losses import masks
from partclipseg.losses.classes import ClassLoss, Pixels
from partclipseg.losses.config import MaskLossConfig
from partclipseg.losses.masks import LossCounts
from partclipseg.losses.resize import resize_logits
from partclipseg.models.partcatseg.config import CATSegConfig


class CATSegLoss(ClassLoss):
    """Averages the cross-entropy of every object-part and background over all pixels (Cho et al., CVPR 2024).

    Logits are resized to the label maps. Background is every pixel without an object-part label. Pixels of objects
    outside the vocabulary are left out, if that is repaired and the settings agree.
    """

    at_label_size = True

    def __init__(self, model: CATSegConfig, config: MaskLossConfig | None = None, compiled: bool = False) -> None:
        """Make the loss of a model, whose configuration says what is repaired; the rest as for `ClassLoss`."""
        super().__init__(config, compiled)
        self.model = model
        if not model.repaired("outside"):
            self.outside = "background"


class PartCATSegLoss(CATSegLoss):
    """Sums the terms of PartCATSeg (Choi et al., CVPR 2025).

    total = object_part + part + object + divergence
    """

    def __call__(
        self,
        output: Any,
        part_labels: Tensor,
        object_labels: Tensor,
        class_to_part: Tensor | None = None,
        class_to_object: Tensor | None = None,
        attention_pairs: Tensor | None = None,
        counts: LossCounts | None = None,
    ) -> dict[str, Tensor]:
        """Return the scalars object_part, part, object, divergence (unless left out), and their sum, total.

        Arguments as in `CATSegLoss`; the class arrays are int64 `[N_c]`.
        """
        if class_to_part is None or class_to_object is None:
            raise TypeError("the loss of PartCATSeg needs class_to_part and class_to_object")
        pixels = Pixels.of(part_labels, object_labels, self.outside)
        over = pixels.counts() if counts is None else counts
        classes, objects = part_labels.long(), object_labels.long()
        parts = class_to_part[classes.clamp(min=0)]
        weight, passes = self.config.background_weight, self.passes
        size = self.size(output.object_part_logits, part_labels)
        class_logits, object_logits, part_logits = (
            resize_logits(logits, size)
            for logits in (output.object_part_logits, output.object_logits, output.part_logits)
        )
        terms = {
            "object_part": masks.object_part_loss(
                class_logits, classes, pixels.labelled, pixels.background, weight, over, passes
            ),
            "part": masks.part_loss(part_logits, parts, pixels.labelled, over, passes),
            "object": masks.object_loss(
                object_logits, objects, pixels.on_object, pixels.background, weight, over, passes
            ),
        }
        if not self.model.repaired("divergence"):
            whole, composed = distributions(output.object_similarity, output.object_part_similarity, class_to_object)
            terms["divergence"] = divergence(whole, composed).sum() / over.photos
        return {**terms, "total": torch.stack(list(terms.values())).sum()}


def distributions(objects: Tensor, classes: Tensor, class_to_object: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the distributions over objects by their own words and by their parts, `[B, N_o + 1, g·g]` each.

    `objects [B, N_o + 1, g, g]` and `classes [B, N_c + 1, g, g]` are similarities, background last.
    """
    at_least = torch.promote_types(objects.dtype, torch.float32)
    whole = objects.to(at_least).flatten(2).softmax(1) + 1e-10
    each = classes.to(at_least).flatten(2).softmax(1) + 1e-10  # [B, N_c + 1, g·g]
    owners = F.pad(class_to_object, (0, 1), value=objects.shape[1] - 1)  # [N_c + 1]
    return whole, torch.zeros_like(whole).index_add(1, owners, each)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Compute the Jensen-Shannon divergence over dimension 1, averaged over places: `[B, N, g·g]` twice → `[B]`."""
    p, q = p + 1e-10, q + 1e-10
    middle = ((p + q) / 2).log()
    return ((p * (p.log() - middle) + q * (q.log() - middle)).sum(1) / 2).mean(-1)
