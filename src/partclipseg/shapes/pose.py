"""The random choices that move one figure: angles, lengths, which side it shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class Pose:
    """Draws the free variables of a figure in the order it asks for them.

    Without numbers it is the canonical pose: every variable at its middle, every option off.
    """

    def __init__(self, numbers: Sequence[float] | None = None) -> None:
        """Make a pose of at least `COUNT` uniform numbers in [0, 1); None makes the canonical one."""
        self._numbers: Iterator[float] | None = None if numbers is None else iter(numbers)

    COUNT = 64
    """Maximum number of variables of a figure."""

    def between(self, low: float, high: float) -> float:
        """Draw a uniform number in [low, high); return the middle in the canonical pose."""
        if self._numbers is None:
            return 0.5 * (low + high)
        return low + (high - low) * next(self._numbers)

    def about(self, value: float, spread: float = 0.1) -> float:
        """Draw ``value`` times a factor in 1 ± ``spread``."""
        return value * self.between(1 - spread, 1 + spread)

    def chance(self, probability: float) -> bool:
        """Return True with this probability; False in the canonical pose."""
        return self._numbers is not None and next(self._numbers) < probability
