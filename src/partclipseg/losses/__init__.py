"""Training losses: binary cross-entropy of parts, objects and object-parts, and attention control."""

from partclipseg.losses.counts import LossCounts
from partclipseg.losses.labels import present_pairs
from partclipseg.losses.loss import BaselineLoss, LossConfig, NonFiniteLossError, PartLoss, check_finite

__all__ = [
    "BaselineLoss",
    "LossConfig",
    "LossCounts",
    "NonFiniteLossError",
    "PartLoss",
    "check_finite",
    "present_pairs",
]
