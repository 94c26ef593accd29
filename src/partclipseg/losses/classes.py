"""Default loss for every family: one cross-entropy over all pixels and all classes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from partclipseg.data.sample import OUTSIDE
from partclipseg.losses import masks
from partclipseg.losses.config import MaskLossConfig
from partclipseg.losses.labels import downsample_labels
from partclipseg.losses.masks import LossCounts
from partclipseg.losses.resize import resize_logits

Outside = Literal["ignore", "background"]


class ClassLoss:
    """Binary cross-entropy over all pixels and all `N_c + 1` channels, background last.

    Background is every pixel without an object-part label. Computed in float32 whatever the type of the logits.
    Nothing here waits for the device, so a total that is not finite is returned as it is: `check_finite` raises on it.
    """

    needs_attention = False
    """Whether the forward pass must return the attention of the shown pairs, see `present_pairs`."""

    at_label_size = False
    """Whether logits are resized to the label maps, and not label maps to the logits."""

    def __init__(self, config: MaskLossConfig | None = None, compiled: bool = False) -> None:
        """Make the loss; `compiled` processes the logits by kernels of `torch.compile`, which is faster on a GPU."""
        self.config = config or MaskLossConfig()
        self.outside: Outside = self.config.outside
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
            output: a `PartOutput`.
            part_labels: integer `[B, H, W]`, object-part index or `UNLABELLED`; any size.
            object_labels: integer `[B, H, W]`, object index, `UNLABELLED` (background) or `OUTSIDE`.
            class_to_part, class_to_object, attention_pairs: for losses that need them.
            counts: denominators of the batch that this is a micro-batch of, summed over its micro-batches, whose losses
                then add up to the batch's. None: this is the batch.
        """
        logits = class_logits(output)
        size = self.size(logits, part_labels)
        classes, objects = downsample_labels(part_labels, size), downsample_labels(object_labels, size)
        pixels = Pixels.of(classes, objects, self.outside)
        over = pixels.counted.sum(dtype=torch.float32) if counts is None else counts.counted
        weight, logits = self.config.background_weight, resize_logits(logits, size)
        loss = masks.baseline_loss(logits, classes, classes >= 0, pixels.counted, weight, over, self.passes)
        return {"object_part": loss, "total": loss}

    def counts(
        self,
        part_labels: Tensor,
        object_labels: Tensor,
        class_to_object: Tensor | None,
        size: tuple[int, int],
        tokens: int = 0,
        attention_pairs: Tensor | None = None,
    ) -> LossCounts:
        """Count the denominators of the means of these labels.

        Args:
            size: height and width of the logits.
            tokens: image tokens of the attention, for losses that need it; the rest as for the loss.
        """
        size = _size(part_labels) if self.at_label_size else size
        classes, objects = downsample_labels(part_labels, size), downsample_labels(object_labels, size)
        return Pixels.of(classes, objects, self.outside).counts()

    def size(self, logits: Tensor, labels: Tensor) -> tuple[int, int]:
        """Return height and width at which the loss compares `logits` with `labels`."""
        return _size(labels if self.at_label_size else logits)


class Pixels(NamedTuple):
    """Masks of the pixels that take part in the terms of a loss: bool `[B, h, w]` each."""

    labelled: Tensor
    on_object: Tensor
    background: Tensor
    counted: Tensor

    @classmethod
    def of(cls, classes: Tensor, objects: Tensor, outside: Outside) -> Pixels:
        """Make the masks of `classes` and `objects`, int64 `[B, h, w]`, as in `PartSample`."""
        counted = objects != OUTSIDE if outside == "ignore" else torch.ones_like(objects, dtype=torch.bool)
        on_object = objects >= 0
        return cls((classes >= 0) & counted, on_object, ~on_object & counted, counted)

    def counts(self) -> LossCounts:
        """Count the pixels; the objects of attention control are left at zero."""
        labelled, on_object, background, counted = (pixels.sum(dtype=torch.float32) for pixels in self)
        none = torch.zeros_like(labelled)
        photos = none + len(self.labelled)
        return LossCounts(labelled, on_object, background, counted, none, none, none, photos, none)


def class_logits(output: Any) -> Tensor:
    """Return the object-part logits of an output; raises `ValueError` if it has none."""
    if output.object_part_logits is None:
        raise ValueError("this output has no object-part logits")
    return output.object_part_logits


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]
