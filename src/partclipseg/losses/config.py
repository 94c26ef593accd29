"""What the training loss consists of; light, for recipes and command lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from partclipseg.errors import UsageError


@dataclass(frozen=True)
class MaskLossConfig:
    """Settings of every cross-entropy over label maps. Raises `UsageError` for values that are none."""

    background_weight: float = 0.05
    """Weight of the background channel in every cross-entropy, 0 to 1."""
    outside: Literal["ignore", "background"] = "ignore"
    """Pixels of objects that the vocabulary does not have: "ignore" leaves them out of every term, "background"
    trains them as background, as released (unseen objects are then learned as background)."""

    def __post_init__(self) -> None:
        if not 0 <= self.background_weight <= 1:
            raise UsageError(f"background_weight is {self.background_weight}; give a number from 0 to 1")
        if self.outside not in ("ignore", "background"):
            raise UsageError(f"outside is {self.outside!r}; give one of ignore, background")


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
    """"differentiable": the intended method; "reference": as released, separation without gradient; "off"."""
    threshold: float = 0.3
    """Attention, as a share of the part's maximum, above which the part claims a place; 0 to below 1."""
    smoothing: float = 0.5
    """Sigma of the 3x3 smoothing of attention maps, in tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("object_weight", "part_weight", "separation_weight", "enhancement_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}; give a finite number of at least 0")
        if not 0 <= self.threshold < 1:
            raise UsageError(f"threshold is {self.threshold}; give a number from 0 to below 1")
        if not 0 < self.smoothing < float("inf"):
            raise UsageError(f"smoothing is {self.smoothing}; give a finite number above 0")
        if self.attention_control not in ("differentiable", "reference", "off"):
            raise UsageError(
                f"attention_control is {self.attention_control!r}; give one of differentiable, reference, off"
            )
