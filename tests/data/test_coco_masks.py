"""Masks as polygons and run lengths, there and back, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from partclipseg.data.coco import read_coco
from partclipseg.data.coco_masks import decode_mask, encode_mask, paint_masks
from partclipseg.data.problem import DataError
from partclipseg.data.sample import UNLABELLED
from partclipseg.errors import PartCLIPSegError

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=20))


@given(MASKS)
def test_compressed_run_lengths_round_trip(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), mask.shape), mask)


@given(MASKS)
def test_plain_run_lengths_round_trip(mask: np.ndarray) -> None:
    column_major = mask.ravel(order="F")
    borders = np.flatnonzero(np.diff(column_major)) + 1
    counts = np.diff([0, *borders, mask.size]).tolist()
    if column_major[0]:  # the first count is one of background
        counts.insert(0, 0)
    np.testing.assert_array_equal(decode_mask({"size": list(mask.shape), "counts": counts}, mask.shape), mask)


@given(st.data())
def test_rectangles_fill_their_pixels(data: st.DataObject) -> None:
    height, width = data.draw(st.tuples(st.integers(1, 15), st.integers(1, 15)))
    left, right = sorted(data.draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    top, bottom = sorted(data.draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    expected = np.zeros((height, width), dtype=bool)
    expected[top:bottom, left:right] = True
    polygon = [left, top, right, top, right, bottom, left, bottom]
    np.testing.assert_array_equal(decode_mask([polygon], (height, width)), expected)


@given(st.binary(max_size=12), st.integers(1, 6), st.integers(1, 6))
def test_no_string_decodes_to_anything_but_a_mask_or_an_error(counts: bytes, height: int, width: int) -> None:
    """pycocotools alone fills what a short string leaves open with whatever lies in memory."""
    text = "".join(chr(48 + byte % 64) for byte in counts)
    segmentation = {"size": [height, width], "counts": text}
    try:
        mask = decode_mask(segmentation, (height, width))
    except PartCLIPSegError:
        return
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), (height, width)), mask)
    np.testing.assert_array_equal(decode_mask(segmentation, (height, width)), mask)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "neither a list of polygons nor run lengths"),
        ({"counts": [24]}, "neither a list of polygons nor run lengths"),
        ({"size": [6, 4], "counts": [24]}, r"for the size \[6, 4\], the photo's is \[4, 6\]"),
        ({"size": [4, 6], "counts": [3, 4]}, "do not fill the photo"),
        ({"size": [4, 6], "counts": [30, -6]}, "do not fill the photo"),
        ({"size": [4, 6], "counts": [3, 4.5, 17]}, "do not fill the photo"),
        ({"size": [4, 6], "counts": ""}, "do not fill the photo"),
        ({"size": [4, 6], "counts": "\x00\x7f"}, "do not fill the photo"),
        ({"size": [4, 6], "counts": "é"}, "do not fill the photo"),
        ({"size": [4, 6], "counts": 24}, "do not fill the photo"),
        ([[0, 0, 1, 0, 1]], "not a list of x, y"),
        ([0, 0, 1, 0, 1, 1], "not a list of x, y"),
        ([[0, 0, 1, 0, 1, float("nan")]], "coordinate nan"),
        ([[0, 0, 1e9, 0, 1, 1]], "coordinate 1000000000.0"),
        ([[0, 0, "1", 0, 1, 1]], "coordinate '1'"),
    ],
)
def test_malformed_masks_are_refused(segmentation: object, message: str) -> None:
    with pytest.raises(PartCLIPSegError, match=message):
        decode_mask(segmentation, (4, 6))


@pytest.mark.parametrize("segmentation", [[], [[]], [[1, 1, 3, 3]], [[2, 2]]])
def test_polygons_without_an_inside_cover_nothing(segmentation: list) -> None:
    assert not decode_mask(segmentation, (4, 6)).any()


def test_small_masks_lie_on_large_ones_and_later_on_earlier(rectangle: Callable) -> None:
    small, large, equal = rectangle(0, 0, 2, 1), rectangle(0, 0, 4, 2), rectangle(1, 0, 2, 1)
    painted = paint_masks([7, 8, 9], [[small], [large], [equal]], (2, 5))
    np.testing.assert_array_equal(painted, [[7, 9, 9, 8, UNLABELLED], [8, 8, 8, 8, UNLABELLED]])


def test_the_broken_mask_of_many_is_named(rectangle: Callable) -> None:
    with pytest.raises(PartCLIPSegError) as caught:
        paint_masks([0, 1], [[rectangle(0, 0, 1, 1)], "mask"], (4, 6))
    assert caught.value.place == 1


PHOTO = {"id": 1, "file_name": "a.jpg"}
MASK = {"id": 3, "image_id": 1, "category_id": 1, "segmentation": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no list 'images'"),
        ({"images": []}, "no list 'annotations'"),
        ({"images": {}, "annotations": []}, "no list 'images'"),
    ],
)
def test_other_json_is_refused(files, content: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_coco(files.json("x.json", content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [PHOTO, PHOTO]}, "same id"),
        ({"images": [{"file_name": "a.jpg"}]}, "entry 0 of 'images' has no id"),
        ({"images": [PHOTO, "b.jpg"]}, "entry 1 of 'images' has no id"),
        ({"annotations": [{**MASK, "image_id": 9}]}, "annotation 3 belongs to the photo 9"),
        ({"annotations": [{**MASK, "category_id": 2}]}, "annotation 3 has the category 2"),
        ({"annotations": [{**MASK, "segmentation": None}]}, "entry 0 of 'annotations' has no segmentation"),
        ({"categories": [{"id": 1}]}, "entry 0 of 'categories' has no name"),
    ],
)
def test_defects_of_entries_are_listed(files, change: dict, message: str) -> None:
    content = {"images": [PHOTO], "categories": [{"id": 1, "name": "ear"}], "annotations": [MASK], **change}
    assert any(message in str(defect) for defect in read_coco(files.json("x.json", content)).defects)


def test_text_that_is_no_json_is_refused(files) -> None:
    with pytest.raises(DataError, match="not valid JSON"):
        read_coco(files.text("x.json", '{"images": ['))
    with pytest.raises(DataError, match="missing"):
        read_coco(files.root / "y.json")
