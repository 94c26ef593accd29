"""The training loss of each model: which terms, how weighted, over which pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from partclipseg.data.sample import OUTSIDE
from partclipseg.errors import PartCLIPSegError
from partclipseg.losses import masks
from partclipseg.losses.attention import (
    differentiable_control,
    listed_objects,
    objects_on_grid,
    reference_control,
)
from partclipseg.losses.config import LossConfig
from partclipseg.losses.counts import LossCounts
from partclipseg.losses.labels import resize_labels, token_grid

if TYPE_CHECKING:
    from partclipseg.model.partclipseg import PartCLIPSegOutput


class PartLoss:
    """The loss of `PartCLIPSegModel` (Choi et al., NeurIPS 2024).

    total = object_part + object_weight · object + part_weight · part
            + separation_weight · separation + enhancement_weight · enhancement

    Computed in float32 whatever the type of the logits. Nothing here waits for the device, so a total that is
    not finite is returned as it is: `check_finite` raises on it.
    """

    def __init__(self, config: LossConfig | None = None, compiled: bool = False) -> None:
        """`compiled`: go through the logits by kernels of `torch.compile`, made at the first call; pays on a GPU."""
        self.config = config or LossConfig()
        self._passes = masks.compiled() if compiled else masks.by_photo()

    def __call__(
        self,
        output: PartCLIPSegOutput,
        part_labels: Tensor,
        object_labels: Tensor,
        class_to_part: Tensor,
        class_to_object: Tensor,
        attention_pairs: Tensor | None = None,
        counts: LossCounts | None = None,
    ) -> dict[str, Tensor]:
        """Terms (each a scalar, not yet weighted) and their weighted sum, `total`.

        Args:
            output: logits of a forward pass, and unless attention control is off the attention of the pairs.
            part_labels: integer `[B, H, W]`, object-part index or `UNLABELLED`; any size.
            object_labels: integer `[B, H, W]`, object index, `UNLABELLED` (background) or `OUTSIDE`.
            class_to_part, class_to_object: int64 `[N_c]`.
            attention_pairs: int64 `[P, 2]`, what `present_pairs(part_labels, N_c)` gave and the model was asked.
            counts: of the batch that this is a share of, the sum of its shares' `counts`; the losses of the shares
                then add up to the batch's. None: this is the batch.

        Returns a dict with the keys object_part, object, part, separation, enhancement, total.

        Raises `ValueError` if attention control is on and the output has no attention, or none that fits.
        """
        config = self.config
        class_logits, object_logits, part_logits = _logits(output), output.object_logits, output.part_logits
        if object_logits is None or part_logits is None:
            raise ValueError("this output has no part or object logits: the baseline's loss is BaselineLoss")
        size = (class_logits.shape[-2], class_logits.shape[-1])
        classes, objects = resize_labels(part_labels, size), resize_labels(object_labels, size)  # [B, h, w]
        pixels = _Pixels.of(classes, objects, config)
        over = pixels.counts() if counts is None else counts
        parts, weight, passes = class_to_part[classes.clamp(min=0)], config.background_weight, self._passes
        labelled, on_object, background = pixels.labelled, pixels.on_object, pixels.background
        terms = {
            "object_part": masks.object_part_loss(class_logits, classes, labelled, background, weight, over, passes),
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
        tokens: int,
        attention_pairs: Tensor | None = None,
    ) -> LossCounts:
        """What the means of these labels are over; arguments as for the loss, `size` and `tokens` of the logits."""
        classes, objects = resize_labels(part_labels, size), resize_labels(object_labels, size)
        counts = _Pixels.of(classes, objects, self.config).counts()
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
        output: PartCLIPSegOutput,
        pairs: Tensor | None,
        classes: Tensor,
        objects: Tensor,
        class_to_object: Tensor,
        counts: LossCounts | None,
    ) -> tuple[Tensor, Tensor]:
        config, attention = self.config, output.attention
        if config.attention_control == "off":
            zero = _logits(output).new_zeros((), dtype=torch.float32)
            return zero, zero
        if attention is None or pairs is None or len(attention) != len(pairs):
            raise ValueError("attention control needs the attention of the pairs: give present_pairs(...) to both")
        control = differentiable_control if config.attention_control == "differentiable" else reference_control
        attention = attention.to(torch.promote_types(attention.dtype, torch.float32))
        with torch.autocast(attention.device.type, enabled=False):  # its products would be taken in half precision
            return control(
                attention, pairs, classes, objects, class_to_object, config.threshold, config.smoothing, counts
            )


class BaselineLoss:
    """The loss of `CLIPSegBaseline`: one cross-entropy over all pixels and all `N_c + 1` channels.

    Background is every pixel without an object-part label. Of the configuration, `background_weight` and `outside`
    apply. Called as `PartLoss` is; what it has no use for may be None.
    """

    def __init__(self, config: LossConfig | None = None, compiled: bool = False) -> None:
        """`compiled`: go through the logits by kernels of `torch.compile`, made at the first call; pays on a GPU."""
        self.config = config or LossConfig()
        self._passes = masks.compiled() if compiled else masks.by_photo()

    def __call__(
        self,
        output: PartCLIPSegOutput,
        part_labels: Tensor,
        object_labels: Tensor,
        class_to_part: Tensor | None = None,
        class_to_object: Tensor | None = None,
        attention_pairs: Tensor | None = None,
        counts: LossCounts | None = None,
    ) -> dict[str, Tensor]:
        """Returns a dict with the keys object_part and total, which are equal."""
        logits = _logits(output)
        size = (logits.shape[-2], logits.shape[-1])
        classes, objects = resize_labels(part_labels, size), resize_labels(object_labels, size)
        pixels = _Pixels.of(classes, objects, self.config)
        over = pixels.counted.sum(dtype=torch.float32) if counts is None else counts.counted
        weight = self.config.background_weight
        loss = masks.baseline_loss(logits, classes, classes >= 0, pixels.counted, weight, over, self._passes)
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
        """As `PartLoss.counts`."""
        return _Pixels.of(resize_labels(part_labels, size), resize_labels(object_labels, size), self.config).counts()


class _Pixels(NamedTuple):
    """Which pixels count for what: bool `[B, h, w]`."""

    labelled: Tensor
    on_object: Tensor
    background: Tensor
    counted: Tensor

    @classmethod
    def of(cls, classes: Tensor, objects: Tensor, config: LossConfig) -> _Pixels:
        counted = objects != OUTSIDE if config.outside == "ignore" else torch.ones_like(objects, dtype=torch.bool)
        on_object = objects >= 0
        return cls((classes >= 0) & counted, on_object, ~on_object & counted, counted)

    def counts(self) -> LossCounts:
        """Without the objects of attention control."""
        labelled, on_object, background, counted = (pixels.sum(dtype=torch.float32) for pixels in self)
        none = torch.zeros_like(labelled)
        photos = none + len(self.labelled)
        return LossCounts(labelled, on_object, background, counted, none, none, none, photos)


def _logits(output: PartCLIPSegOutput) -> Tensor:
    if output.object_part_logits is None:
        raise ValueError("this output has no object-part logits")
    return output.object_part_logits


class NonFiniteLossError(PartCLIPSegError):
    """The loss is infinite or not a number: training must not go on from here."""


def check_finite(terms: Mapping[str, Tensor]) -> None:
    """Raise `NonFiniteLossError` with the name and value of every term unless all of them are finite.

    Waits once for the device.
    """
    values = torch.stack([term.detach().float() for term in terms.values()]).tolist()
    if all(math.isfinite(value) for value in values):
        return
    named = dict(zip(terms, values, strict=True))
    bad = [name for name, value in named.items() if not math.isfinite(value)]
    listing = ", ".join(f"{name} {value:.6g}" for name, value in named.items())
    raise NonFiniteLossError(
        f"the loss is not finite in {', '.join(bad)} ({listing}); "
        "lower the learning rate, or train in bfloat16 or float32 instead of float16"
    )
