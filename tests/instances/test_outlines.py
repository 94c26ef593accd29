"""Outlines: the same masks alone and beside others, photos prepared as by the authors, boxes without an outline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.instances.tiny import build

from partclipseg.errors import PartCLIPSegError
from partclipseg.instances.found import FoundObject
from partclipseg.instances.outlines import Outliner

KINDS = ("sam2", "sam_hq", "sam", "sam3_tracker")
SIZES = ((90, 140), (150, 70), (96, 96))
FOUND = [
    [FoundObject.from_corners("dog", 10, 10, 60, 50, 0.4), FoundObject.from_corners("cat", 50, 20, 130, 80)],
    [FoundObject.from_corners("dog", 5, 20, 60, 120)],
    [FoundObject.from_corners("dog", -20.5, -3, 200, 50)],
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("outliners")
    return lambda kind: root / kind if (root / kind).is_dir() else build(kind, root / kind)


@pytest.fixture(scope="module", params=KINDS)
def outliner(request: pytest.FixtureRequest, directory: Callable[[str], Path]) -> Outliner:
    return Outliner.from_pretrained(directory(request.param))


@pytest.fixture
def any_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights are sure of nothing."""
    monkeypatch.setattr("partclipseg.instances.outlines.LEAST_QUALITY", -1e9)


def noise(*sizes: tuple[int, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def masks(objects: list[FoundObject]) -> list[np.ndarray]:
    assert all(one.mask is not None for one in objects)
    return [one.mask for one in objects if one.mask is not None]


@pytest.mark.usefixtures("any_quality")
def test_outlines_do_not_depend_on_the_other_photos_and_objects(outliner: Outliner):
    photos = noise(*SIZES)
    together = outliner.outline(photos, FOUND)
    assert any(0 < mask.mean() < 1 for objects in together for mask in masks(objects))
    for photo, given, objects in zip(photos, FOUND, together, strict=True):
        (alone,) = outliner.outline([photo], [given])
        for one, same, before in zip(objects, alone, given, strict=True):
            assert (one.object, one.box, one.score) == (before.object, before.box, before.score)
            assert one.mask is not None
            assert one.mask.shape == photo.shape[:2]
            np.testing.assert_array_equal(one.mask, same.mask)
            ((only,),) = outliner.outline([photo], [[before]])
            assert np.mean(only.mask != one.mask) < 0.002  # other products of matrices for another number of boxes


@pytest.mark.usefixtures("any_quality")
def test_many_boxes_are_decoded_in_several_passes(outliner: Outliner, monkeypatch: pytest.MonkeyPatch):
    photos = noise((90, 140))
    many = [FoundObject.from_corners("dog", x, 10, x + 40, 60) for x in range(0, 90, 10)]
    (expected,) = outliner.outline(photos, [many])
    monkeypatch.setattr("partclipseg.instances.outlines.BOXES_AT_ONCE", 4)
    (objects,) = outliner.outline(photos, [many])
    for one, same in zip(masks(objects), masks(expected), strict=True):
        assert np.mean(one != same) < 0.002


@pytest.mark.usefixtures("any_quality")
def test_masks_that_are_there_stay_and_boxes_outside_stay_boxes(outliner: Outliner):
    photos = noise((90, 140))
    mask = np.zeros((90, 140), bool)
    mask[3:9, 4:12] = True
    given = [
        FoundObject.from_mask("dog", mask),
        FoundObject.from_corners("dog", 200, 10, 260, 50),
        FoundObject.from_corners("dog", -50, -50, 0, 40),
        FOUND[0][0],
    ]
    (objects,) = outliner.outline(photos, [given])
    assert objects[0].mask is given[0].mask
    assert objects[1].mask is objects[2].mask is None
    assert objects[3].mask is not None
    ((alone,),) = outliner.outline(photos, [[FOUND[0][0]]])
    np.testing.assert_array_equal(objects[3].mask, alone.mask)


def test_an_unsure_or_empty_outline_leaves_the_box(outliner: Outliner, monkeypatch: pytest.MonkeyPatch):
    photos = noise((90, 140))
    monkeypatch.setattr("partclipseg.instances.outlines.LEAST_QUALITY", 1e9)
    assert [one.mask for one in outliner.outline(photos, FOUND[:1])[0]] == [None, None]
    monkeypatch.setattr("partclipseg.instances.outlines.LEAST_QUALITY", -1e9)
    forward = outliner.model.forward

    def nothing(**inputs: object) -> object:
        output = forward(**inputs)
        return type(output)(**{**output, "pred_masks": output.pred_masks * 0 - 1})

    monkeypatch.setattr(outliner.model, "forward", nothing)
    assert [one.mask for one in outliner.outline(photos, FOUND[:1])[0]] == [None, None]


def test_no_objects_no_photos(outliner: Outliner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outliner.model, "get_image_embeddings", None)  # nobody looks at a photo without boxes
    assert outliner.outline(noise((20, 30), (30, 20)), [[], []]) == [[], []]
    assert outliner.outline([], []) == []


@pytest.mark.usefixtures("any_quality")
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16(kind: str, directory: Callable[[str], Path]):
    outliner = Outliner.from_pretrained(directory(kind), dtype="bfloat16")
    assert outliner.model.dtype == torch.bfloat16
    together = outliner.outline(noise(*SIZES), FOUND)
    assert [len(masks(objects)) for objects in together] == [2, 1, 1]


@pytest.mark.usefixtures("any_quality")
@pytest.mark.parametrize("kind", ["sam", "sam_hq"])
def test_equal_to_the_processor_of_transformers(kind: str, directory: Callable[[str], Path]):
    import transformers
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    side = {"height": 96, "width": 96}
    images = SamImageProcessorPil(size={"longest_edge": 96}, pad_size=side)
    processor = (transformers.SamProcessor if kind == "sam" else transformers.SamHQProcessor)(images)
    outliner = Outliner.from_pretrained(directory(kind))
    for photo, objects in zip(noise(*SIZES), FOUND, strict=True):
        inside = [one.within((photo.shape[0], photo.shape[1])) for one in objects]
        inputs = processor(
            Image.fromarray(photo), input_boxes=[[list(one.corners) for one in inside]], return_tensors="pt"
        )
        with torch.inference_mode():
            output = outliner.model(
                pixel_values=inputs["pixel_values"], input_boxes=inputs["input_boxes"].float(), multimask_output=False
            )
        (expected,) = processor.post_process_masks(
            output.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )
        (found,) = outliner.outline([photo], [objects])
        for mask, one in zip(masks(found), expected[:, 0].numpy(), strict=True):
            assert np.mean(mask != one) < 0.005
            assert 0 < mask.mean() < 1


@pytest.mark.usefixtures("any_quality")
def test_equal_to_the_plain_use_of_sam2(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(shared / "reference"))
    import tiny_detectors

    tiny_detectors.sam2(tmp_path)
    outliner = Outliner.from_pretrained(tmp_path)
    photos = noise(*SIZES)
    boxes = [[one.within((p.shape[0], p.shape[1])).corners for one in of] for p, of in zip(photos, FOUND, strict=True)]
    expected = tiny_detectors.boxes_to_masks(outliner.model, [Image.fromarray(photo) for photo in photos], boxes)
    for objects, (wanted, _) in zip(outliner.outline(photos, FOUND), expected, strict=True):
        for mask, one in zip(masks(objects), wanted, strict=True):
            assert np.mean(mask != one) < 0.002


def test_sam3_names_its_licence(directory: Callable[[str], Path], caplog: pytest.LogCaptureFixture):
    Outliner.from_pretrained(directory("sam3_tracker"))
    assert [message.count("SAM License") for message in caplog.messages] == [1]
    caplog.clear()
    Outliner.from_pretrained(directory("sam2"))
    assert caplog.messages == []


def test_other_models_are_refused_by_name(directory: Callable[[str], Path], tmp_path: Path):
    with pytest.raises(
        PartCLIPSegError,
        match=r"a model of type 'owlv2', and a model that outlines objects must be one of sam, sam_hq, sam2, sam2_vid",
    ):
        Outliner.from_pretrained(build("owlv2", tmp_path / "owlv2"))
    with pytest.raises(PartCLIPSegError, match="no such folder': give the directory of a model that outlines objects"):
        Outliner.from_pretrained("no such folder")


def test_the_photo_is_not_changed(outliner: Outliner):
    (photo,) = noise((40, 30))
    before = photo.copy()
    objects = [replace(FOUND[0][0])]
    outliner.outline([photo], [objects])
    np.testing.assert_array_equal(photo, before)
    assert objects[0].mask is None
