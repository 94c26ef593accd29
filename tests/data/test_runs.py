"""Masks and boxes of all labels of a map at once are those of each label alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partclipseg.data.coco_masks import encode_mask
from partclipseg.data.runs import label_runs

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))

CASES = {
    "background alone": [[-1, -1], [-1, -1]],
    "one label everywhere": [[4, 4], [4, 4]],
    "first and last pixel": [[0, -1, 1], [-1, -1, -1], [1, -1, 0]],
    "a run across the end of a row": [[-1, -1, 2], [2, -1, -1]],
    "a run across the end of a column": [[-1, 3], [-1, -1], [3, -1]],
    "what lies outside": [[-2, -1, 0], [-2, 5, -1]],
    "one row": [[7, 7, -1, 7]],
    "one pixel": [[0]],
}


def check(labels: np.ndarray) -> None:
    present = [label for label in np.unique(labels).tolist() if label >= 0]
    found = list(label_runs(labels))
    assert [runs.label for runs in found] == present
    for runs in found:
        mask = labels == runs.label
        rows, columns = np.nonzero(mask)
        x, y = int(columns.min()), int(rows.min())
        assert runs.area == len(rows)
        assert runs.box == (x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1)
        assert runs.rle == encode_mask(mask)
        np.testing.assert_array_equal(runs.mask, mask)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("labels", CASES.values(), ids=list(CASES))
def test_masks_and_boxes_of_a_map(labels: list[list[int]], dtype: type) -> None:
    check(np.array(labels, dtype))


@given(arrays(np.int32, SHAPES, elements=st.integers(-2, 3)))
def test_masks_and_boxes_are_those_of_each_label_alone(labels: np.ndarray) -> None:
    check(labels)
    check(labels.T)
