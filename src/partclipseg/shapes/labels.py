"""Translate the world's labels to those of the vocabulary in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from partclipseg.data.sample import OUTSIDE, UNLABELLED
from partclipseg.errors import UsageError
from partclipseg.vocabulary import ObjectPart, Vocabulary

WordSet = Literal["all", "seen"]
"""Choice of object-parts: all of the world, or those of its seen objects."""


class LabelTable:
    """Translates label maps from one vocabulary to another.

    Pixels of an object that the target does not have become `OUTSIDE`; parts it does not have, and background,
    become `UNLABELLED`.
    """

    def __init__(
        self, source: Vocabulary, target: Vocabulary, names: Mapping[ObjectPart, ObjectPart] | None = None
    ) -> None:
        """Make the table; `names` are the target's object-parts by the source's, None where they have the same."""
        pairs = [pair if names is None else names[pair] for pair in source.object_parts]
        part_index = {pair: index for index, pair in enumerate(target.object_parts)}
        object_index = {word: index for index, word in enumerate(target.objects)}
        called = {mine.object: theirs.object for mine, theirs in zip(source.object_parts, pairs, strict=True)}
        # The last entry is read by the label -1.
        self._parts = _table([part_index.get(pair, UNLABELLED) for pair in pairs])
        self._objects = _table([object_index.get(called[word], OUTSIDE) for word in source.objects])

    def parts(self, labels: np.ndarray) -> np.ndarray:
        """Translate part labels of the source, −1 for none, any shape, to int32 ones of the target."""
        return self._parts[labels]

    def objects(self, labels: np.ndarray) -> np.ndarray:
        """Translate object labels of the source, −1 for none, any shape, to int32 ones of the target."""
        return self._objects[labels]


def choose_vocabulary(words: str, every: Vocabulary, seen: Vocabulary) -> Vocabulary:
    """Return ``every`` for "all", ``seen`` for "seen"; raises `UsageError` for anything else."""
    if words == "all":
        return every
    if words == "seen":
        return seen
    raise UsageError(f"unknown choice of words {words!r}: choose 'all' or 'seen'")


def _table(values: Sequence[int]) -> np.ndarray:
    return np.array([*values, UNLABELLED], dtype=np.int32)
