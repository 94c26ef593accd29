"""Settings of training runs of the CLIPSeg families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from partclipseg.models.settings import MethodSettings


@dataclass(frozen=True)
class CLIPSegSettings(MethodSettings):
    """Settings of the baseline; its background vector stays at its random start, as published."""

    family: ClassVar[str] = "clipseg-baseline"

    train_background: bool = False
    """Train the background's vector too."""


@dataclass(frozen=True)
class PlainCLIPSegSettings(MethodSettings):
    """Settings of CLIPSeg without training, which no run uses."""

    family: ClassVar[str] = "clipseg"
