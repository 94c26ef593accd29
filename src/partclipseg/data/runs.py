"""Runs of equal labels in a label map, from which boxes and masks of all its labels are made at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from partclipseg.data.coco_masks import rle


class LabelRuns(NamedTuple):
    """The runs of one label in a flat map, in their order."""

    label: int
    starts: np.ndarray
    """int64 `[n]`: index of the first pixel of each run."""
    ends: np.ndarray
    """int64 `[n]`: index after the last pixel of each run."""


def run_starts(flat: np.ndarray, length: int = 0) -> np.ndarray:
    """Return the index of the first pixel of each run of equal labels in `flat`, int `[N]`, as int64 `[n]`.

    With a `length` a run also ends after each `length` pixels, as at the end of a row.
    """
    begins = np.empty(len(flat), bool)
    begins[:1] = True
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    if length:
        begins[::length] = True
    return np.flatnonzero(begins)


def runs_by_label(flat: np.ndarray, length: int = 0) -> Iterator[LabelRuns]:
    """Yield the runs of each label from 0 on that occurs in `flat`, int `[N]`, by label; see `run_starts`."""
    starts = run_starts(flat, length)
    ends = np.append(starts[1:], len(flat))
    labels = flat[starts]
    order = np.argsort(labels, kind="stable")
    order = order[np.searchsorted(labels, 0, sorter=order) :]
    if len(order):
        for own in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
            yield LabelRuns(int(labels[own[0]]), starts[own], ends[own])


def label_boxes(labels: np.ndarray) -> Iterator[tuple[int, int, tuple[int, int, int, int]]]:
    """Yield each label from 0 on that occurs in a map, int `[H, W]`, its number of pixels, and x, y, width, height."""
    width = labels.shape[1]
    for label, starts, ends in runs_by_label(labels.ravel(), width):
        left, right = int((starts % width).min()), int(((ends - 1) % width).max())
        top, bottom = int(starts[0]) // width, int(starts[-1]) // width
        yield label, int((ends - starts).sum()), (left, top, right - left + 1, bottom - top + 1)


def encode_labels(labels: np.ndarray) -> dict[int, dict[str, Any]]:
    """Return the mask of each label from 0 on that occurs in a map, int `[H, W]`, as `coco.encode_mask` encodes it."""
    height, width = labels.shape
    found = {}
    for label, starts, ends in runs_by_label(labels.ravel(order="F")):
        edges = np.append(np.stack([starts, ends], 1).ravel(), labels.size)
        counts = np.diff(edges, prepend=0)
        if not counts[-1]:
            counts = counts[:-1]
        [encoded] = rle.frPyObjects([{"size": [height, width], "counts": counts.tolist()}], height, width)
        found[label] = {"size": [height, width], "counts": encoded["counts"].decode("ascii")}
    return found
