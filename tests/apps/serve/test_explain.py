"""Explained results: the maps that led to them, and the answer of ``POST /v1/explain``."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from partclipseg.vocabulary import Vocabulary

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from partclipseg.apps.serve.answers import ExplainAnswer
from partclipseg.apps.serve.api import create_api
from partclipseg.apps.serve.explain import MAX_ATTENTION, MAX_HEAT_SIDE, explain
from partclipseg.apps.serve.explained import explained_content
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.instances.found import FoundObject
from partclipseg.maps.crops import Crop
from partclipseg.shapes.renderer import render_scene

WORDS = Vocabulary.from_text("dog: ear, head; bus: wheel; cat: ear")


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return render_scene("test", 0, 96).image[:80]  # not square


# -- what led to a result -------------------------------------------------------------------------------------


@pytest.mark.parametrize("objects", [None, ("dog", "cat")])
def test_explained_results_are_those_of_the_segmenter(random_segmenter, scene, objects):
    explained = explain(random_segmenter, scene, WORDS, objects)
    expected = random_segmenter(scene, WORDS, objects=objects)
    assert np.array_equal(explained.result.label_map, expected.label_map)
    assert np.array_equal(explained.result.object_map, expected.object_map)
    np.testing.assert_allclose(explained.result.scores, expected.scores, atol=1e-6)  # the same sums, in float32


@pytest.mark.parametrize("objects", [None, ("dog", "cat")])
def test_a_second_look_is_that_of_the_segmenter(random_segmenter, scene, monkeypatch, objects):
    crops = [Crop(WORDS.objects.index("dog"), 8, 8, 40, 48)]  # what the random model finds is everywhere
    monkeypatch.setattr("partclipseg.inference.zoom.find_crops", lambda *_: crops)
    once, twice = (explain(random_segmenter, scene, WORDS, objects, zoom) for zoom in (False, True))
    expected = random_segmenter(scene, WORDS, objects=objects, zoom=True)
    assert np.array_equal(twice.result.label_map, expected.label_map)
    assert np.array_equal(twice.result.object_map, expected.object_map)
    assert not np.array_equal(twice.result.label_map, once.result.label_map)
    assert np.array_equal(twice.part_map < 0, expected.label_map < 0)
    for first, second in zip(once.probabilities, twice.probabilities, strict=True):
        assert np.array_equal(first.values, second.values)


def test_part_map_is_the_best_part_inside_the_objects(random_segmenter, scene):
    explained = explain(random_segmenter, scene, WORDS)
    logits = random_segmenter.outputs([scene], WORDS).part_logits
    upsampled = torch.nn.functional.interpolate(logits, size=scene.shape[:2], mode="bilinear")[0]
    expected = np.where(explained.result.label_map >= 0, upsampled.argmax(0).numpy(), -1)
    assert np.array_equal(explained.part_map, expected)
    for index in range(len(WORDS.parts)):
        inside = torch.from_numpy(expected == index)
        score = float(upsampled[index][inside].sigmoid().mean()) if inside.any() else 0.0
        assert explained.part_scores[index] == pytest.approx(score, abs=1e-5)  # float32 sums in two orders


def test_heat_maps(random_segmenter, scene):
    explained = explain(random_segmenter, scene, WORDS)
    output = random_segmenter.outputs([scene], WORDS)
    assert [(heat.kind, heat.name) for heat in explained.probabilities] == [
        *(("object-part", name) for name in WORDS.names),
        *(("object", name) for name in WORDS.objects),
        *(("part", name) for name in WORDS.parts),
    ]
    third = output.object_part_logits[0, 2].sigmoid()
    assert explained.probabilities[2].peak == pytest.approx(float(third.max()))
    assert np.array_equal(explained.probabilities[2].values, (third * 255).round().to(torch.uint8).numpy())
    assert [heat.name for heat in explained.attention] == list(WORDS.names)
    for heat in explained.attention:
        assert heat.values.shape == (4, 4)  # tokens of the small model
        assert heat.values.max() == 255
        assert 1 / 17 < heat.peak < 1  # the greatest of 17 shares of attention


def test_large_maps_are_reduced_and_long_vocabularies_have_no_attention(random_segmenter, scene, monkeypatch):
    monkeypatch.setattr("partclipseg.apps.serve.explain.MAX_HEAT_SIDE", 16)
    monkeypatch.setattr("partclipseg.apps.serve.explain.MAX_HEAT_MAPS", 10)
    long = Vocabulary.from_dict({"dog": [f"p{i}" for i in range(MAX_ATTENTION + 1)]})
    explained = explain(random_segmenter, scene, long)
    assert MAX_HEAT_SIDE > 16
    assert {heat.values.shape for heat in explained.probabilities} == {(16, 16)}
    assert len(explained.probabilities) == 10
    assert explained.attention == ()


def test_the_baseline_groups_its_classes_by_part(random_segmenter, scene):
    from partclipseg.models.clipseg.model import CLIPSegBaseline

    torch.manual_seed(0)
    baseline = PartSegmenter(CLIPSegBaseline(random_segmenter.model.config), random_segmenter.tokenizer)
    explained = explain(baseline, scene, WORDS)
    labels = explained.result.label_map
    assert np.array_equal(explained.part_map, np.append(WORDS.class_to_part, -1)[labels])
    assert {heat.kind for heat in explained.probabilities} == {"object-part"}
    assert explained.attention == ()
    assert explained_content(explained)["heat"]["attention"] is None


# -- the answer -----------------------------------------------------------------------------------------------


def decoded(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_the_answer_has_every_class_of_every_pixel(random_segmenter, scene):
    explained = explain(random_segmenter, scene, WORDS)
    content = explained_content(explained)
    painted = explained.result.labelled.painted()[0]
    for name, labels in (
        ("object_parts", painted),
        ("objects", explained.result.object_map),
        ("parts", explained.part_map),
    ):
        pixels = decoded(content["layers"][name]["map"]).astype(int)
        assert np.array_equal(pixels[..., 0] + 256 * pixels[..., 1], labels + 1)
        entries = content["layers"][name]["entries"]
        assert {entry["value"] for entry in entries} == set(np.unique(labels[labels >= 0] + 1).tolist())
        for entry in entries:
            assert entry["share"] == pytest.approx((labels + 1 == entry["value"]).mean(), abs=1e-6)
    atlas = content["heat"]["probability"]
    sheet, (height, width) = decoded(atlas["atlas"]), (atlas["height"], atlas["width"])
    for index, heat in enumerate(explained.probabilities):
        row, column = divmod(index, atlas["columns"])
        found = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert np.array_equal(found, heat.values)
        assert atlas["entries"][index]["name"] == heat.name


def test_the_rest_of_an_object_follows_its_parts(random_segmenter, scene):
    explained = explain(random_segmenter, scene, WORDS)
    labels, objects = np.full((2, *scene.shape[:2]), -1, np.int32)
    labels[:10], labels[10:15] = 0, 2  # dog's ear, bus's wheel
    objects[:12], objects[12:40], objects[40:45] = WORDS.objects.index("dog"), WORDS.objects.index("bus"), 1
    objects[10:15] = WORDS.objects.index("bus")
    result = replace(explained.result, label_map=labels, object_map=objects)
    entries = explained_content(replace(explained, result=result))["layers"]["object_parts"]["entries"]
    expected = [("bus's wheel", False), ("rest of the bus", True), ("dog's ear", False), ("rest of the cat", True)]
    assert [(entry["name"], entry["rest"]) for entry in entries] == expected
    assert entries[1]["object"] == "bus"
    assert entries[1]["part"] is None
    assert sum(entry["share"] for entry in entries) == pytest.approx(45 / 80, abs=1e-5)


def test_more_classes_than_a_byte_can_count(random_segmenter, scene):
    explained = explain(random_segmenter, scene, Vocabulary.from_dict({"dog": [f"p{i}" for i in range(300)]}))
    labels = np.full_like(explained.result.label_map, -1)
    labels[0, :2] = 299, 254
    nothing = np.full_like(labels, -1)
    explained = replace(explained, result=replace(explained.result, label_map=labels, object_map=nothing))
    pixels = decoded(explained_content(explained)["layers"]["object_parts"]["map"]).astype(int)
    assert (pixels[0, :3, 0] + 256 * pixels[0, :3, 1]).tolist() == [300, 255, 0]


def test_with_instances_each_owner_has_values_of_its_own(client, photo, random_segmenter):
    """Layers are those of the result with instances, which the download has as well; heat maps stay."""
    words = "dog: ear, head; bus: wheel"
    plain = ask(client, photo, vocabulary=words).json()
    boxes = [{"object": "dog", "box": [0, 0, 30, 40]}, {"object": "dog", "box": [30, 0, 30, 40]}]
    found = ask(client, photo, vocabulary=words, instances=json.dumps(boxes)).json()
    given = [FoundObject(some["object"], tuple(some["box"])) for some in boxes]
    expected = random_segmenter(photo, words, instances=given)
    assert {segment.instance for segment in expected} == {1, 2}, "otherwise this shows nothing"
    layer = found["layers"]["object_parts"]
    values = decoded(layer["map"]).astype(int)
    values = values[..., 0] + 256 * values[..., 1]
    parts = {(entry["name"], entry["instance"]): entry["value"] for entry in layer["entries"] if not entry["rest"]}
    assert set(parts) == {(segment.title, segment.instance) for segment in expected}
    for segment in expected:
        assert np.array_equal(values == parts[segment.title, segment.instance], segment.mask)
    objects = found["layers"]["objects"]["entries"]
    assert {entry["name"] for entry in objects} == {segment.title for segment in expected.segments("objects")}
    assert len({tuple(entry["colour"]) for entry in objects}) == len(objects)
    assert found["heat"] == plain["heat"]
    refused = ask(client, photo, vocabulary=words, instances="components", zoom="true")
    assert refused.json()["detail"] == "instances look at crops already: leave zoom out"


def ask(client, photo: bytes, **fields):
    return client.post("/v1/explain", files={"photo": ("my scene.png", photo)}, data=fields)


@pytest.mark.parametrize("words", ["dog: ear, head; bus: wheel", "any: handle", "dog: ear; any: handle"])
def test_the_answer_is_as_described(client, photo, random_segmenter, words):
    answer = ask(client, photo, vocabulary=words)
    assert answer.status_code == 200, answer.text
    found = ExplainAnswer.model_validate(answer.json())
    expected = random_segmenter(photo, words)
    assert (found.photo, found.width, found.height) == ("my scene.png", 60, 40)
    parts = [entry for entry in found.layers.object_parts.entries if not entry.rest]
    assert {entry.name for entry in parts} == {segment.name for segment in expected.segments()}
    assert decoded(found.picture).shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "no words are given"),
        ({"vocabulary": "dog: ear", "objects": "<cat>"}, "'<cat>' is not an object of the vocabulary (dog)"),
        ({"vocabulary": "dog: ear", "formats": "json"}, "there is no field 'formats': the fields are "),
        ({"vocabulary": "dog: ear", "min_part_probability": "2"}, "min_part_probability must be at most 1"),
        ({"vocabulary": "dog: " + ", ".join("abcdefgh"), "model": "x"}, "'x'"),
        ({"vocabulary": ", ".join(f"dog's p{i}" for i in range(51))}, "51 classes are more than the limit of 50"),
    ],
)
def test_wrong_requests_are_sentences(client, photo, fields, sentence):
    answer = ask(client, photo, **fields)
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]


def blank(width: int, height: int) -> bytes:
    """A large photo in a small file."""
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("photo", "code", "sentence"),
    [
        (b"just text", 422, "the photo: not a photo in a known format"),
        (b"", 422, "the photo: empty"),
        (blank(2000, 600), 413, "more than 1,000,000 pixels"),
    ],
    ids=["text", "empty", "large"],
)
def test_bad_photos_are_sentences(client, photo, code, sentence):
    answer = ask(client, photo, vocabulary="dog: ear")
    assert answer.status_code == code
    assert sentence in answer.json()["detail"]


@pytest.mark.parametrize("zoom", [False, True])
def test_a_second_look_when_asked(make_engine, photo, monkeypatch, zoom):
    engine, looks = make_engine(), []

    def noted(photos, maps, *_):
        looks.append(len(photos))
        return maps

    monkeypatch.setattr(engine.segmenters["random"], "look_again", noted)
    client = TestClient(create_api(engine))
    assert ask(client, photo, vocabulary="dog: ear", zoom=str(zoom)).status_code == 200
    assert looks == [1] * zoom


def test_no_memory_is_a_sentence(make_engine, photo, monkeypatch):
    monkeypatch.setattr("partclipseg.apps.serve.explain.explain", lambda *_: torch.empty(1 << 50))  # a petabyte
    answer = ask(TestClient(create_api(make_engine())), photo, vocabulary="dog: ear")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "the server has no memory for this: send a smaller photo or fewer words"
