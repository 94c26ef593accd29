"""Confusion matrices with exact counts, stored per record, so that no record is counted twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from partclipseg.counts import count_of
from partclipseg.errors import PartCLIPSegError
from partclipseg.evaluation.state import scored_twice


def count_pixels(prediction: torch.Tensor, labels: torch.Tensor, size: int) -> torch.Tensor:
    """Compute the confusion matrix of two index maps, on their device.

    Args:
        prediction, labels: integer tensors of one shape, values in `0 .. size - 1`.
        size: number of rows and columns; its square must fit in 32 bits.

    Returns:
        int64 `[size, size]`: element `[p, l]` counts the pixels predicted as `p` and labelled `l`.
    """
    cells = prediction.flatten().int() * size + labels.flatten()
    return torch.bincount(cells, minlength=size * size).view(size, size)


class ConfusionMatrix:
    """Sum of the confusion matrices of many records, each kept by its key.

    A record touches few of the `size`² cells, so its non-zero cells are stored: a key can then be added, sent
    to another process and merged again in any order, and still counts once.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.total = np.zeros((size, size), dtype=np.int64)
        """int64 `[size, size]`: sum over the records, row = prediction, column = label."""
        self._records: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def add(self, key: str, matrix: torch.Tensor) -> bool:
        """Add a record's matrix (int64 `[size, size]`, any device); return False if its key was counted before."""
        if key in self._records:
            return False
        flat = matrix.flatten()
        cells = flat.nonzero().squeeze(1)
        # One transfer brings cells and counts to the CPU.
        cells_and_counts = torch.stack((cells, flat[cells])).cpu().numpy()
        self._insert(key, cells_and_counts[0].astype(np.int32), cells_and_counts[1])
        return True

    def record(self, key: str) -> np.ndarray:
        """Return the matrix of one record, int64 `[size, size]`. Raises `KeyError` for an unknown key."""
        cells, counts = self._records[key]
        matrix = np.zeros(self.size * self.size, dtype=np.int64)
        matrix[cells] = counts
        return matrix.reshape(self.size, self.size)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the records of `other` that are not counted here yet.

        Raises `PartCLIPSegError`, before anything is changed, if the sizes differ or if both have a record with
        different counts: then the two were not made by the same model on the same data.
        """
        if other.size != self.size:
            raise PartCLIPSegError(
                f"cannot merge scores of {count_of(other.size - 1, 'class')} into "
                f"{count_of(self.size - 1, 'class')}: take scores of one evaluation"
            )
        shared = self._records.keys() & other._records.keys()
        for key in sorted(shared):
            if not all(map(np.array_equal, self._records[key], other._records[key])):
                raise scored_twice(f"record {key!r}")
        for key, (cells, counts) in other._records.items():
            if key not in shared:
                self._insert(key, cells, counts)

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        result = ConfusionMatrix(self.size)
        result.merge(self)
        result.merge(other)
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values only, for `torch.save` and `torch.load(weights_only=True)`."""
        lengths = [len(cells) for cells, _ in self._records.values()]
        cells = [cells for cells, _ in self._records.values()]
        counts = [counts for _, counts in self._records.values()]
        return {
            "size": self.size,
            "keys": list(self._records),
            "lengths": torch.tensor(lengths, dtype=torch.int64),
            "cells": torch.from_numpy(np.concatenate([np.empty(0, np.int32), *cells])),
            "counts": torch.from_numpy(np.concatenate([np.empty(0, np.int64), *counts])),
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> ConfusionMatrix:
        """Restore from `state_dict`; raises `ValueError` for an inconsistent state."""
        result = cls(state["size"])
        keys, lengths, all_cells, all_counts = (state[name] for name in ("keys", "lengths", "cells", "counts"))
        lengths, all_cells, all_counts = (values.numpy() for values in (lengths, all_cells, all_counts))
        if not (
            len(keys) == len(lengths) == len(set(keys))
            and (lengths >= 0).all()
            and lengths.sum() == len(all_cells) == len(all_counts)
            and (len(all_cells) == 0 or 0 <= all_cells.min() <= all_cells.max() < result.size**2)
        ):
            raise ValueError("the saved counts do not fit together")
        ends = np.cumsum(lengths)
        for key, length, end in zip(keys, lengths, ends, strict=True):
            result._insert(str(key), all_cells[end - length : end], all_counts[end - length : end])
        return result

    def _insert(self, key: str, cells: np.ndarray, counts: np.ndarray) -> None:
        self._records[key] = (cells, counts)
        self.total.reshape(-1)[cells] += counts  # the cells of a record are distinct
