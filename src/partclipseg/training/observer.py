"""Progress reports of a training run; imports nothing heavy, for command lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from partclipseg.training.evaluate import HeldOutScores


@dataclass(frozen=True)
class Progress:
    """Content of a line of the log; losses are means since the previous line, over all processes."""

    step: int
    steps: int
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    photos_per_second: float
    seconds_left: float
    """Estimated seconds to the end, at the present pace."""


class Observer:
    """Receiver of a run's progress, on the main process; this base class ignores it."""

    def started(self, summary: Mapping[str, Any]) -> None:
        """Receive the resolved device, types, backends and sizes, once."""

    def progressed(self, progress: Progress) -> None:
        """Receive the content of each line of the log."""

    def scored(self, step: int, scores: HeldOutScores, best: bool) -> None:
        """Receive the scores of the held-out photos after each scoring."""
