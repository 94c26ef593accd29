"""Settings of the training losses; light, for recipes and command lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from partclipseg.checks import check_fields
from partclipseg.errors import UsageError


@dataclass(frozen=True)
class MaskLossConfig:
    """Settings of every cross-entropy over label maps. Raises `UsageError` for values outside their range."""

    background_weight: float = 0.05
    """Weight of the background channel in every cross-entropy, 0 to 1."""
    outside: Literal["ignore", "background"] = "ignore"
    """Treatment of pixels of objects that the vocabulary lacks: "ignore" leaves them out of every term, "background"
    trains them as background, as the released code does (it learns unseen objects as background)."""

    def __post_init__(self) -> None:
        check_fields(self, "loss")
        if not 0 <= self.background_weight <= 1:
            raise UsageError(f"background_weight is {self.background_weight}; give a number from 0 to 1")


@dataclass(frozen=True)
class LossConfig(MaskLossConfig):
    """Weights and switches of PartCLIPSeg's loss; the defaults are the intended method with the paper's weights."""

    object_weight: float = 1.0
    """Weight of the cross-entropy over objects and background."""
    part_weight: float = 1.0
    """Weight of the cross-entropy over generalized parts."""
    separation_weight: float = 0.1
    """Weight of the term that keeps the parts of an object apart in attention."""
    enhancement_weight: float = 0.01
    """Weight of the term that strengthens the least attended part of an object."""
    attention_control: Literal["differentiable", "reference", "off"] = "differentiable"
    """Form of the two attention terms: "differentiable" is the intended method, "reference" is the released form, whose
    separation term has no gradient, "off" leaves both out."""
    threshold: float = 0.3
    """Share of a part's maximal attention, 0 to below 1, above which the part claims a place."""
    smoothing: float = 0.5
    """Standard deviation of the 3x3 Gaussian that smooths attention maps, in tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("object_weight", "part_weight", "separation_weight", "enhancement_weight"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; give a finite number of at least 0")
        if not 0 <= self.threshold < 1:
            raise UsageError(f"threshold is {self.threshold}; give a number from 0 to below 1")
        if self.smoothing <= 0:
            raise UsageError(f"smoothing is {self.smoothing}; give a finite number above 0")


@dataclass(frozen=True)
class SetLossConfig:
    """Settings of a loss that matches a set of proposed masks with the parts of an object, MaskFormer's; the defaults
    are the published weights. Raises `UsageError` for values outside their range."""

    background_weight: float = 0.1
    """Weight of proposals that match no part in the cross-entropy over words, above 0 and at most 1."""
    focal_weight: float = 20.0
    """Weight of the focal loss of masks, in matching and in training."""
    dice_weight: float = 1.0
    """Weight of the dice loss of masks, in matching and in training."""
    prompt_weight: float = 1.0
    """Weight of the cross-entropy that trains the learnt vectors of the prompts on regions of true parts: the obvious
    reading of CPTCoOp, whose training was never published. 0 keeps those of the start."""

    def __post_init__(self) -> None:
        check_fields(self, "loss")
        if not 0 < self.background_weight <= 1:
            raise UsageError(f"background_weight is {self.background_weight}; give a number above 0 and at most 1")
        for name in ("focal_weight", "dice_weight", "prompt_weight"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; give a finite number of at least 0")
