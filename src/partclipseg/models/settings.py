"""Settings of a training run that belong to a family of models; no module here needs PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from partclipseg.checks import check_fields
from partclipseg.losses.config import MaskLossConfig


@dataclass(frozen=True)
class MethodSettings:
    """Settings that every family has; a family derives its own class from it."""

    family: ClassVar[str] = ""
    """Name of the family in `models.registry.FAMILIES`."""

    loss: MaskLossConfig = field(default_factory=MaskLossConfig)
    """Weights and forms of the loss terms."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def towers(self) -> tuple[str, ...]:
        """Names of PartShapes' towers that a run starts from, in the order of their training; the last is the start."""
        return ("backbone",)
