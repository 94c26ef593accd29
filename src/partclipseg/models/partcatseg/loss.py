"""The training losses of CAT-Seg and PartCATSeg.

Letters in shapes: B photos, N_p parts, N_o objects, N_c object-parts, H x W the label maps, g feature grid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from partclipseg.losses import masks
from partclipseg.losses.classes import Outside, Pixels
from partclipseg.losses.config import MaskLossConfig
from partclipseg.losses.masks import LossCounts
from partclipseg.models.partcatseg.config import CATSegConfig


class CATSegLoss:
    """Averages the cross-entropy of every object-part and background over all pixels (Cho et al., CVPR 2024).

    Logits are resized to the label maps. Background is every pixel without an object-part label. Pixels of objects
    outside the vocabulary are left out, if that is repaired and the settings agree. Nothing here waits for the device.
    """

    needs_attention = False

    def __init__(self, config: CATSegConfig, settings: MaskLossConfig | None = None, compiled: bool = False) -> None:
        """Make the loss; `compiled` processes the logits by kernels of `torch.compile`, made at the first call."""
        self.settings = settings or MaskLossConfig()
        self.config = config
        self.outside: Outside = self.settings.outside if config.repaired("outside") else "background"
        self.passes = masks.compiled() if compiled else masks.by_photo()

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
        """Return the scalars object_part and total, which are equal.

        Args:
            output: a `PartOutput`, or for `PartCATSegLoss` a `PartCATSegOutput`.
            part_labels: integer `[B, H, W]`, object-part index or `UNLABELLED`.
            object_labels: integer `[B, H, W]`, object index, `UNLABELLED` (background) or `OUTSIDE`.
            class_to_part: for `PartCATSegLoss`.
            class_to_object: for `PartCATSegLoss`.
            attention_pairs: not used.
            counts: denominators of the batch that this is a micro-batch of, summed over its micro-batches, whose losses
                then add up to the batch's. None: this is the batch.
        """
        pixels = Pixels.of(part_labels, object_labels, self.outside)
        over = pixels.counts() if counts is None else counts
        logits, weight = resized(output.object_part_logits, part_labels), self.settings.background_weight
        loss = masks.baseline_loss(
            logits, part_labels.long(), pixels.labelled, pixels.counted, weight, over.counted, self.passes
        )
        return {"object_part": loss, "total": loss}

    def counts(
        self,
        part_labels: Tensor,
        object_labels: Tensor,
        class_to_object: Tensor | None = None,
        size: tuple[int, int] | None = None,
        tokens: int = 0,
        attention_pairs: Tensor | None = None,
    ) -> LossCounts:
        """Count the denominators of the means over these labels; the size of the logits plays no part here."""
        return Pixels.of(part_labels, object_labels, self.outside).counts()


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
        weight, passes = self.settings.background_weight, self.passes
        class_logits, object_logits, part_logits = (
            resized(logits, part_labels)
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
        if not self.config.repaired("divergence"):
            whole, composed = distributions(output.object_similarity, output.object_part_similarity, class_to_object)
            terms["divergence"] = divergence(whole, composed).sum() / over.photos
        return {**terms, "total": torch.stack(list(terms.values())).sum()}


def resized(logits: Tensor, labels: Tensor) -> Tensor:
    """Resize `[B, N, h, w]` to the size of the label maps `[B, H, W]`, bilinear."""
    if logits.shape[-2:] == labels.shape[-2:]:
        return logits
    return F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)


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
