"""Settings of a training run of PartCLIPSeg."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from partclipseg.losses.config import LossConfig
from partclipseg.models.settings import MethodSettings


@dataclass(frozen=True)
class PartCLIPSegSettings(MethodSettings):
    """Settings of PartCLIPSeg; the defaults are the intended method."""

    family: ClassVar[str] = "partclipseg"

    merges: Literal["mean", "random"] = "mean"
    """Initialisation of the two layers that merge part and object: their mean, or random as in the reference."""
    class_film: Literal["copy", "identity"] = "identity"
    """Initialisation of the layer that modulates a class by its word: the identity (scale 1, shift 0), with which an
    untrained model composes CLIPSeg's maps, or a copy of CLIPSeg's as published, which modulates a second time."""
    reference_object_lookup: bool = False
    """Read object words at the reference's wrong index (its released checkpoints were trained so)."""
    train_background: bool = True
    """Train the background's vector too. The reference leaves it at its random initialisation."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights and forms of the loss terms."""
