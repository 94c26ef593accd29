"""Arithmetic on the maps of a result: words without an object, scores of instances, parts below a score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from partclipseg.data.sample import label_areas
from partclipseg.formats.segment import mean_scores, owned_labels


def take_words(
    labels: np.ndarray,
    score_map: np.ndarray,
    words: Sequence[np.ndarray],
    least: float | np.ndarray,
    first: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Give pixels to the words without an object that win there; return label map int32 `[H, W]` and scores.

    Args:
        labels: int32 `[H, W]`: index of the object-part, -1 none.
        score_map: float `[H, W]`: probability of the winner.
        words: map of the most probable word, -1 none, and map of its probability, `[H, W]` each.
        least: minimum probability of a word, one number or float `[H, W]`.
        first: class index of the first word.
    """
    word_map, word_scores = words
    rival = np.where(labels < 0, np.float32(-1), score_map)
    taken = (word_map >= 0) & (word_scores >= least) & (word_scores > rival)
    labels = np.where(taken, np.int32(first) + word_map, labels).astype(np.int32)
    return labels, np.where(taken, word_scores, score_map)


def instance_means(
    score_map: np.ndarray, labels: np.ndarray, owner: np.ndarray, instances: int, classes: int
) -> np.ndarray:
    """Return the mean score of each class over its pixels of each instance, float32 `[n + 1, K]`; last, without owner.

    Args:
        score_map: float `[H, W]`.
        labels: int `[H, W]`: index below `classes`, -1 none.
        owner: int `[H, W]`: index below `instances`, -1 none.
        instances: number n of instances.
        classes: number K of classes.
    """
    rows = instances + 1
    owned = owned_labels(labels, owner, instances, classes)
    return mean_scores(score_map, owned, rows * classes).reshape(rows, classes)


def drop_below(
    labels: np.ndarray, objects: np.ndarray, owner: np.ndarray, scores: np.ndarray, score: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Remove the parts of instances whose own score is below `score`; None if there are none.

    Args:
        labels, objects: int32 `[H, W]`: index of the class and of the object, -1 none.
        owner: int32 `[H, W]`: index of the instance, -1 none.
        scores: float32 `[n + 1, N_c]`: score of each class of each instance; last, without owner.
        score: minimum score, 0 to 1.

    Returns:
        Label map and object map, in which only pixels without an owner lose their object; the mean score of each
        class, float32 `[N_c]`; and `scores` with 0 for what is gone.
    """
    low = scores < score
    gone = (labels >= 0) & low[owner, labels]  # owner -1 reads the last row
    if not gone.any():
        return None
    labels = np.where(gone, np.int32(-1), labels)
    objects = np.where(gone & (owner < 0), np.int32(-1), objects)
    kept, (rows, count) = np.where(low, np.float32(0), scores), scores.shape
    areas = label_areas(owned_labels(labels, owner, rows - 1, count), rows * count).reshape(rows, count)
    means = ((areas * kept).sum(0) / np.maximum(areas.sum(0), 1)).astype(np.float32)
    return labels, objects, means, kept
