"""The training loss of each model: which terms, how weighted, over which pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from partclipseg.data.sample import OUTSIDE
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.losses import masks
from partclipseg.losses.attention import differentiable_control, reference_control
from partclipseg.losses.labels import resize_labels

if TYPE_CHECKING:
    from partclipseg.model.partclipseg import PartCLIPSegOutput


@dataclass(frozen=True)
class LossConfig:
    """Weights and switches of the loss; the defaults are the intended method with the paper's weights."""

    background_weight: float = 0.05
    """Weight of the background channel in every cross-entropy, 0 to 1."""
    object_weight: float = 1.0
    """Weight of the cross-entropy over objects and background."""
    part_weight: float = 1.0
    """Weight of the cross-entropy over generalized parts."""
    separation_weight: float = 0.1
    """Weight of the term that keeps the parts of an object apart in attention."""
    enhancement_weight: float = 0.01
    """Weight of the term that strengthens the least attended part of an object."""
    attention_control: Literal["differentiable", "reference", "off"] = "differentiable"
    """"differentiable": the intended method; "reference": as released, separation without gradient; "off"."""
    threshold: float = 0.3
    """Attention, as a share of the part's maximum, above which the part claims a place; 0 to below 1."""
    smoothing: float = 0.5
    """Sigma of the 3x3 smoothing of attention maps, in tokens."""
    outside: Literal["ignore", "background"] = "ignore"
    """Pixels of objects that the vocabulary does not have: "ignore" leaves them out of every term, "background"
    trains them as background, as released (unseen objects are then learned as background)."""

    def __post_init__(self) -> None:
        for name in ("background_weight", "object_weight", "part_weight", "separation_weight", "enhancement_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}; give a finite number of at least 0")
        if self.background_weight > 1:
            raise UsageError(f"background_weight is {self.background_weight}; give a number from 0 to 1")
        if not 0 <= self.threshold < 1:
            raise UsageError(f"threshold is {self.threshold}; give a number from 0 to below 1")
        if not 0 < self.smoothing < float("inf"):
            raise UsageError(f"smoothing is {self.smoothing}; give a finite number above 0")
        for name, known in (
            ("attention_control", ("differentiable", "reference", "off")),
            ("outside", ("ignore", "background")),
        ):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} is {getattr(self, name)!r}; give one of {', '.join(known)}")


class PartLoss:
    """The loss of `PartCLIPSegModel` (Choi et al., NeurIPS 2024).

    total = object_part + object_weight · object + part_weight · part
            + separation_weight · separation + enhancement_weight · enhancement

    Computed in float32 whatever the type of the logits. Nothing here waits for the device, so a total that is
    not finite is returned as it is: `check_finite` raises on it.
    """

    def __init__(self, config: LossConfig | None = None) -> None:
        self.config = config or LossConfig()

    def __call__(
        self,
        output: PartCLIPSegOutput,
        part_labels: Tensor,
        object_labels: Tensor,
        class_to_part: Tensor,
        class_to_object: Tensor,
        attention_pairs: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Terms (each a scalar, not yet weighted) and their weighted sum, `total`.

        Args:
            output: logits of a forward pass, and unless attention control is off the attention of the pairs.
            part_labels: integer `[B, H, W]`, object-part index or `UNLABELLED`; any size.
            object_labels: integer `[B, H, W]`, object index, `UNLABELLED` (background) or `OUTSIDE`.
            class_to_part, class_to_object: int64 `[N_c]`.
            attention_pairs: int64 `[P, 2]`, what `present_pairs(part_labels, N_c)` gave and the model was asked.

        Returns a dict with the keys object_part, object, part, separation, enhancement, total.

        Raises `ValueError` if attention control is on and the output has no attention, or none that fits.
        """
        config = self.config
        class_logits, object_logits, part_logits = _logits(output), output.object_logits, output.part_logits
        if object_logits is None or part_logits is None:
            raise ValueError("this output has no part or object logits: the baseline's loss is BaselineLoss")
        size = (class_logits.shape[-2], class_logits.shape[-1])
        classes, objects = resize_labels(part_labels, size), resize_labels(object_labels, size)  # [B, h, w]
        counted = _counted(objects, config)
        labelled = (classes >= 0) & counted
        on_object = objects >= 0
        background = ~on_object & counted

        terms = {
            "object_part": masks.object_part_loss(
                class_logits, classes, labelled, on_object, background, config.background_weight
            ),
            "object": masks.object_loss(object_logits, objects, on_object, background, config.background_weight),
            "part": masks.part_loss(part_logits, class_to_part[classes.clamp(min=0)], labelled),
        }
        terms["separation"], terms["enhancement"] = self._attention_control(
            output, attention_pairs, classes, objects, class_to_object
        )
        terms["total"] = (
            terms["object_part"]
            + config.object_weight * terms["object"]
            + config.part_weight * terms["part"]
            + config.separation_weight * terms["separation"]
            + config.enhancement_weight * terms["enhancement"]
        )
        return terms

    def _attention_control(
        self,
        output: PartCLIPSegOutput,
        pairs: Tensor | None,
        classes: Tensor,
        objects: Tensor,
        class_to_object: Tensor,
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
            return control(attention, pairs, classes, objects, class_to_object, config.threshold, config.smoothing)


class BaselineLoss:
    """The loss of `CLIPSegBaseline`: one cross-entropy over all pixels and all `N_c + 1` channels.

    Background is every pixel without an object-part label. Of the configuration, `background_weight` and `outside`
    apply. Called as `PartLoss` is; what it has no use for may be None.
    """

    def __init__(self, config: LossConfig | None = None) -> None:
        self.config = config or LossConfig()

    def __call__(
        self,
        output: PartCLIPSegOutput,
        part_labels: Tensor,
        object_labels: Tensor,
        class_to_part: Tensor | None = None,
        class_to_object: Tensor | None = None,
        attention_pairs: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Returns a dict with the keys object_part and total, which are equal."""
        logits = _logits(output)
        size = (logits.shape[-2], logits.shape[-1])
        classes, objects = resize_labels(part_labels, size), resize_labels(object_labels, size)
        counted = _counted(objects, self.config)
        loss = masks.baseline_loss(logits, classes, classes >= 0, counted, self.config.background_weight)
        return {"object_part": loss, "total": loss}


def _logits(output: PartCLIPSegOutput) -> Tensor:
    if output.object_part_logits is None:
        raise ValueError("this output has no object-part logits")
    return output.object_part_logits


def _counted(objects: Tensor, config: LossConfig) -> Tensor:
    """bool: pixels that take part in the loss at all."""
    return objects != OUTSIDE if config.outside == "ignore" else torch.ones_like(objects, dtype=torch.bool)


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
