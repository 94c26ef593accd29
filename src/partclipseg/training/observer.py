"""What a training run tells while it goes; light, for command lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from partclipseg.training.evaluate import HeldOutScores


@dataclass(frozen=True)
class Progress:
    """What a line of the log says; losses are means since the line before, over all processes."""

    step: int
    steps: int
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    photos_per_second: float
    seconds_left: float
    """At the present pace."""


class Observer:
    """What a run tells while it goes, on the main process; this one is silent."""

    def started(self, summary: Mapping[str, Any]) -> None:
        """Once, with the resolved device, types, backends and sizes."""

    def progressed(self, progress: Progress) -> None:
        """At every line of the log."""

    def scored(self, step: int, scores: HeldOutScores, best: bool) -> None:
        """After every look at the held-out photos."""
