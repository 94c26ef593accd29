"""Random numbers that are the same on every machine, and cheap one by one."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def scene_generator(split: str, index: int) -> np.random.Generator:
    """Return the generator of one scene: PCG64 seeded with a checksum of the split's name and the index."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((zlib.crc32(split.encode()), index))))


class Chance:
    """Uniform numbers, drawn in blocks: a scalar call of a generator costs more than the number is worth."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._block: Iterator[float] = iter(())

    def __call__(self) -> float:
        """Draw a uniform number in [0, 1)."""
        for number in self._block:
            return number
        self._block = iter(self._generator.random(256).tolist())
        return next(self._block)

    def between(self, low: float, high: float) -> float:
        """Draw a uniform number in [low, high)."""
        return low + (high - low) * self()

    def bell(self, spread: float) -> float:
        """Draw a number around 0, within ± 2 ``spread``, of a bell-shaped distribution."""
        return spread * (self() + self() + self() + self() - 2)

    def pick(self, items: Sequence[T]) -> T:
        """Draw one of the items."""
        return items[int(len(items) * self())]

    def numbers(self, count: int) -> list[float]:
        """Draw ``count`` uniform numbers in [0, 1)."""
        return [self() for _ in range(count)]
