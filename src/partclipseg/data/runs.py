"""Runs of equal labels in a label map, from which areas, boxes and masks of all its labels are made at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from partclipseg.data.coco_masks import rle


@dataclass(frozen=True, eq=False)
class LabelRuns:
    """The pixels of one label, as runs down the columns of its map; a run goes on in the next column."""

    labels: np.ndarray
    """int `[H, W]`: the map."""
    label: int
    """Label of the pixels in the map, from 0 on."""
    starts: np.ndarray
    """int64 `[n]`: index of the first pixel of each run, counted down the columns, in rising order."""
    ends: np.ndarray
    """int64 `[n]`: index after the last pixel of each run."""

    @property
    def area(self) -> int:
        """Return the number of pixels."""
        return int((self.ends - self.starts).sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Return x, y, width and height of the smallest box around the pixels."""
        height = len(self.labels)
        first_column, first_row = np.divmod(self.starts, height)
        last_column, last_row = np.divmod(self.ends - 1, height)
        if (first_column < last_column).any():  # a run to the foot of a column goes on at the head of the next
            top, bottom = 0, height - 1
        else:
            top, bottom = int(first_row.min()), int(last_row.max())
        left, right = int(first_column[0]), int(last_column[-1])
        return left, top, right - left + 1, bottom - top + 1

    @property
    def rle(self) -> dict[str, Any]:
        """Return the pixels as compressed run lengths, as `coco_masks.encode_mask` does."""
        height, width = self.labels.shape
        edges = np.append(np.stack([self.starts, self.ends], 1).ravel(), height * width)
        counts = np.diff(edges, prepend=0)
        counts = counts if counts[-1] else counts[:-1]
        [encoded] = rle.frPyObjects([{"size": [height, width], "counts": counts}], height, width)
        return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}

    @property
    def mask(self) -> np.ndarray:
        """Return the pixels as a mask, bool `[H, W]`."""
        return self.labels == self.label


def run_starts(flat: np.ndarray) -> np.ndarray:
    """Return the index of the first pixel of each run of equal labels in `flat`, int `[N]`, as int64 `[n]`."""
    begins = np.empty(len(flat), bool)
    begins[:1] = True
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def label_runs(labels: np.ndarray) -> Iterator[LabelRuns]:
    """Yield the pixels of each label from 0 on that occurs in a map, int `[H, W]`, in rising order."""
    flat = labels.ravel(order="F")
    starts = run_starts(flat)
    ends = np.append(starts[1:], len(flat))
    found = flat[starts]
    order = np.argsort(found, kind="stable")
    order = order[np.searchsorted(found, 0, sorter=order) :]
    if len(order):
        for own in np.split(order, np.flatnonzero(np.diff(found[order])) + 1):
            yield LabelRuns(labels, int(found[own[0]]), starts[own], ends[own])
