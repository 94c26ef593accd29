"""Training loss of PartCLIPSeg: its terms, their weights, and the pixels that they cover."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from partclipseg.losses import masks
from partclipseg.losses.attention import (
    differentiable_control,
    listed_objects,
    objects_on_grid,
    reference_control,
)
from partclipseg.losses.classes import ClassLoss, Pixels, class_logits
from partclipseg.losses.config import LossConfig
from partclipseg.losses.labels import downsample_labels, token_grid
from partclipseg.losses.masks import LossCounts
from partclipseg.maps.precision import full_precision


class PartLoss(ClassLoss):
    """The loss of `PartCLIPSegModel` (Choi et al., NeurIPS 2024).

    total = object_part + object_weight · object + part_weight · part
            + separation_weight · separation + enhancement_weight · enhancement

    Computed in float32 whatever the type of the logits. Nothing here waits for the device, so a total that is
    not finite is returned as it is: `check_finite` raises on it.
    """

    def __init__(self, config: LossConfig | None = None, compiled: bool = False) -> None:
        """Make the loss; `compiled` processes the logits by kernels of `torch.compile`, which is faster on a GPU."""
        super().__init__(config or LossConfig(), compiled)
        self.config: LossConfig

    @property
    def needs_attention(self) -> bool:
        """Whether attention control is on."""
        return self.config.attention_control != "off"

    def __call__(
        self,
        output: Any,
        part_labels: Tensor,
        object_labels: Tensor,
        class_to_part: Tensor,
        class_to_object: Tensor,
        attention_pairs: Tensor | None = None,
        counts: LossCounts | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms (each a scalar, not yet weighted) and their weighted sum, `total`.

        Args:
            output: logits of a forward pass, and unless attention control is off the attention of the pairs.
            part_labels: integer `[B, H, W]`, object-part index or `UNLABELLED`; any size.
            object_labels: integer `[B, H, W]`, object index, `UNLABELLED` (background) or `OUTSIDE`.
            class_to_part, class_to_object: int64 `[N_c]`.
            attention_pairs: int64 `[P, 2]`, the result of `present_pairs(part_labels, N_c)` that the model was given.
            counts: denominators of the batch that this is a micro-batch of, summed over its micro-batches, whose losses
                then add up to the batch's. None: this is the batch.

        Returns a dict with the keys object_part, object, part, separation, enhancement, total.

        Raises `ValueError` if attention control is on and the output has no attention, or none that fits.
        """
        config = self.config
        pair_logits, object_logits, part_logits = class_logits(output), output.object_logits, output.part_logits
        if object_logits is None or part_logits is None:
            raise ValueError("this output has no part or object logits: the baseline's loss is ClassLoss")
        size = (pair_logits.shape[-2], pair_logits.shape[-1])
        classes, objects = downsample_labels(part_labels, size), downsample_labels(object_labels, size)  # [B, h, w]
        pixels = Pixels.of(classes, objects, config.outside)
        over = pixels.counts() if counts is None else counts
        parts, weight, passes = class_to_part[classes.clamp(min=0)], config.background_weight, self.passes
        labelled, on_object, background = pixels.labelled, pixels.on_object, pixels.background
        terms = {
            "object_part": masks.object_part_loss(pair_logits, classes, labelled, background, weight, over, passes),
            "object": masks.object_loss(object_logits, objects, on_object, background, weight, over, passes),
            "part": masks.part_loss(part_logits, parts, labelled, over, passes),
        }
        terms["separation"], terms["enhancement"] = self._attention_control(
            output, attention_pairs, classes, objects, class_to_object, counts
        )
        terms["total"] = (
            terms["object_part"]
            + config.object_weight * terms["object"]
            + config.part_weight * terms["part"]
            + config.separation_weight * terms["separation"]
            + config.enhancement_weight * terms["enhancement"]
        )
        return terms

    def counts(
        self,
        part_labels: Tensor,
        object_labels: Tensor,
        class_to_object: Tensor,
        size: tuple[int, int],
        tokens: int = 0,
        attention_pairs: Tensor | None = None,
    ) -> LossCounts:
        """Count as `ClassLoss.counts`, with the objects of attention control."""
        classes, objects = downsample_labels(part_labels, size), downsample_labels(object_labels, size)
        counts = Pixels.of(classes, objects, self.config.outside).counts()
        if attention_pairs is None or self.config.attention_control == "off":
            return counts
        if self.config.attention_control == "reference":
            return counts._replace(listed=listed_objects(classes, objects, len(class_to_object)).sum().float())
        separated, enhanced = objects_on_grid(
            token_grid(tokens, size), attention_pairs, classes, objects, class_to_object
        )
        return counts._replace(separated=separated, enhanced=enhanced)

    def _attention_control(
        self,
        output: Any,
        pairs: Tensor | None,
        classes: Tensor,
        objects: Tensor,
        class_to_object: Tensor,
        counts: LossCounts | None,
    ) -> tuple[Tensor, Tensor]:
        config, attention = self.config, output.attention
        if config.attention_control == "off":
            zero = class_logits(output).new_zeros((), dtype=torch.float32)
            return zero, zero
        if attention is None or pairs is None or len(attention) != len(pairs):
            raise ValueError("attention control needs the attention of the pairs: give present_pairs(...) to both")
        control = differentiable_control if config.attention_control == "differentiable" else reference_control
        attention = full_precision(attention)
        with torch.autocast(attention.device.type, enabled=False):  # its products would be taken in half precision
            return control(
                attention, pairs, classes, objects, class_to_object, config.threshold, config.smoothing, counts
            )
