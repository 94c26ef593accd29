"""The CVAT function, by CVAT's own SDK: its labels and shapes are what the driver accepts and uploads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.integrations.conftest import INTEGRATIONS, load

from partclipseg import PartSegmenter
from partclipseg.data.coco_masks import decode_mask
from partclipseg.errors import PartCLIPSegError, UsageError

cvat = pytest.importorskip("cvat_sdk.auto_annotation")
masks = pytest.importorskip("cvat_sdk.masks")
models = pytest.importorskip("cvat_sdk.models")


@pytest.fixture(scope="module")
def function() -> Any:
    return load("cvat.py").create()


def context(threshold: float | None = None, as_polygons: bool = False) -> Any:
    return SimpleNamespace(frame_name="a.jpg", conf_threshold=threshold, conv_mask_to_poly=as_polygons)


def test_masks_are_those_of_the_result(function: Any, segmenter: PartSegmenter, photo: np.ndarray):
    height, width = photo.shape[:2]
    shapes = function.detect(context(), Image.fromarray(photo))
    result = segmenter(photo)
    assert len(shapes) == len(result) > 0
    for shape, segment in zip(shapes, result, strict=True):
        assert function.spec.labels[shape.label_id].name == segment.name
        assert shape.score == pytest.approx(segment.score)
        mask = masks.decode_mask(shape.points, image_width=width, image_height=height)
        np.testing.assert_array_equal(mask, segment.mask)


def test_polygons_are_within_a_pixel_of_the_masks(function: Any, segmenter: PartSegmenter, photo: np.ndarray):
    shapes = function.detect(context(as_polygons=True), Image.fromarray(photo))
    assert {str(shape.type) for shape in shapes} == {"polygon"}
    for segment in segmenter(photo):
        polygons = [shape.points for shape in shapes if shape.label_id == segment.index]
        drawn = decode_mask(polygons, segment.mask.shape)
        assert np.count_nonzero(drawn & segment.mask) > 0.8 * np.count_nonzero(drawn | segment.mask)


def test_the_threshold_of_cvat(function: Any, photo: np.ndarray):
    shapes = function.detect(context(), Image.fromarray(photo))
    limit = sorted(shape.score for shape in shapes)[len(shapes) // 2]
    some = function.detect(context(limit), Image.fromarray(photo))
    assert [shape.score for shape in some] == [shape.score for shape in shapes if shape.score >= limit]
    assert len(some) < len(shapes)


@pytest.mark.parametrize("as_polygons", [False, True])
def test_the_driver_of_cvat_uploads_the_shapes(
    as_polygons: bool, function: Any, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    """The real driver, with a task that is here in place of one on a server."""
    import logging

    from cvat_sdk.auto_annotation import driver

    names = [label.name for label in function.spec.labels]
    kind = "polygon" if as_polygons else "mask"
    labels = [models.Label(name=name, id=100 + place, type=kind) for place, name in enumerate(names)]
    for label in labels:
        label.attributes, label.sublabels = [], []
    media = SimpleNamespace(load_image=lambda: Image.fromarray(photo))
    task = SimpleNamespace(labels=labels, samples=[SimpleNamespace(frame_name="a.jpg", frame_index=7, media=media)])
    monkeypatch.setattr(driver, "TaskDataset", lambda *arguments, **options: task)
    uploaded = []
    api = SimpleNamespace(
        partial_update_annotations=lambda *some, patched_labeled_data_request: uploaded.append(
            patched_labeled_data_request
        )
    )
    client: Any = SimpleNamespace(logger=logging.getLogger("cvat"), tasks=SimpleNamespace(api=api))
    cvat.annotate_task(client, 1, function, conv_mask_to_poly=as_polygons)
    (request,) = uploaded
    assert {shape.frame for shape in request.shapes} == {7}
    assert {str(shape.type) for shape in request.shapes} == {kind}
    assert {shape.label_id for shape in request.shapes} <= {label.id for label in labels}


def test_words_and_options(segmenter: PartSegmenter, photo: np.ndarray):
    function = load("cvat.py").create(vocabulary="cat: head, tail; any: wheel", zoom=True, min_part_probability=0.0)
    assert [label.name for label in function.spec.labels] == ["cat's head", "cat's tail", "wheel"]
    shapes = function.detect(context(), Image.fromarray(photo))
    expected = segmenter(photo, function.vocabulary, zoom=True, min_part_probability=0.0)
    assert [shape.label_id for shape in shapes] == [segment.index for segment in expected]


def test_the_parts_of_one_object_share_a_group(function: Any, segmenter: PartSegmenter, two_scenes: np.ndarray):
    owned = load("cvat.py").create(instances="components")
    shapes = owned.detect(context(), Image.fromarray(two_scenes))
    expected = segmenter(two_scenes, instances="components")
    assert [shape.group for shape in shapes] == [segment.instance or 0 for segment in expected]
    assert len({shape.group for shape in shapes}) >= 2
    assert {shape.group for shape in function.detect(context(), Image.fromarray(two_scenes))} == {0}


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"model": "no such folder"}, PartCLIPSegError, "there is no directory 'no such folder'"),
        ({"vocabulary": "dog:"}, UsageError, "has no part"),
        ({"min_part_probability": 2.0}, UsageError, "must be from 0 to 1"),
        ({"instances": "no such folder"}, PartCLIPSegError, "give the directory of a detector"),
        ({"outlines": "no such folder"}, PartCLIPSegError, "the directory of a model that outlines objects"),
    ],
)
def test_wrong_parameters(parameters: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        load("cvat.py").create(**parameters)


def test_the_command_line_finds_the_function():
    common = pytest.importorskip("cvat_cli._internal.common")
    loader = common.FunctionLoader(None, INTEGRATIONS / "cvat.py", {"vocabulary": "cat: head"})
    assert [label.name for label in loader.load().spec.labels] == ["cat's head"]
