"""One part asked for: what is surely of the object but of no part that was asked for stays the object's."""

from __future__ import annotations

import json

import numpy as np
import pytest

from partclipseg.errors import UsageError
from partclipseg.formats.coco import coco_document
from partclipseg.formats.palette import pale_object_colours
from partclipseg.inference.result import PartResult
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.interface import MIN_PART_PROBABILITY
from partclipseg.shapes.renderer import render_scene
from partclipseg.shapes.world import partshapes_world
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.from_text("bus: wheel; dog: head, tail")  # objects bus 0, dog 1
LABELS = np.array([[0, 0, 0, -1], [0, 1, 1, -1], [0, 2, 2, -1]])
OBJECTS = np.array([[0, 0, 0, -1], [0, 1, 1, -1], [0, 1, 1, -1]])
SCORES = np.array([[0.9, 0.4, 0.1, 0.8], [0.5, 0.7, 0.6, 0.9], [0.3, 0.2, 0.3, 0.9]])
PHOTO = np.full((3, 4, 3), 128, np.uint8)


def made(least: float) -> PartResult:
    return PartResult.from_maps(LABELS, OBJECTS, SCORES, WORDS, PHOTO, "street.jpg", least)


@pytest.mark.parametrize(
    ("least", "expected", "areas"),
    [
        (0.0, LABELS, {}),
        (0.1, LABELS, {}),
        (0.5, [[0, -1, -1, -1], [0, 1, 1, -1], [-1, -1, -1, -1]], {"bus": 3, "dog": 2}),
        (0.65, [[0, -1, -1, -1], [-1, 1, -1, -1], [-1, -1, -1, -1]], {"bus": 4, "dog": 3}),
        (1.0, np.full((3, 4), -1), {"bus": 5, "dog": 4}),
    ],
)
def test_pixels_below_the_probability_keep_their_object(least, expected, areas):
    result = made(least)
    assert np.array_equal(result.label_map, expected)
    assert np.array_equal(result.object_map, OBJECTS)
    assert {segment.object: segment.area for segment in result.without_part()} == areas
    whole = {segment.object: segment for segment in result.segments("objects")}
    assert {word: segment.area for word, segment in whole.items()} == {"bus": 5, "dog": 4}
    scores = SCORES[(result.label_map == 0)]
    assert whole["bus"].score == pytest.approx(scores.mean() if len(scores) else 0.44)  # of its parts, if it has any
    assert np.array_equal(result.mask("bus"), OBJECTS == 0)


def test_a_part_has_the_mean_of_the_pixels_that_it_keeps():
    assert made(0.5).scores == pytest.approx([0.7, 0.65, 0.0])


def test_parts_dropped_by_their_score_leave_the_rest_and_its_score():
    result = made(0.5).at_least(0.68)  # the dog's head goes, the bus's wheel stays
    assert np.array_equal(result.label_map >= 0, [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    assert {segment.object: segment.area for segment in result.segments("objects")} == {"bus": 5, "dog": 2}
    dog = result.segments("objects")[1]
    assert dog.score == pytest.approx(0.25)  # of the two pixels without a part


def test_every_form_of_a_result_shows_the_rest_of_an_object():
    result = made(0.5)
    document = result.to_dict()
    assert [(entry["object"], entry["part"], entry["area"]) for entry in document["without_part"]] == [
        ("bus", None, 3),
        ("dog", None, 2),
    ]
    coco = result.to_coco()
    assert [(a["category_id"], a["area"]) for a in coco["annotations"]] == [(1, 2), (2, 2), (4, 3), (5, 2)]
    assert [a["id"] for a in coco["annotations"]] == [1, 2, 3, 4]
    assert {c["id"]: c["name"] for c in coco["categories"]} == {
        1: "bus's wheel",
        2: "dog's head",
        3: "dog's tail",
        4: "bus",
        5: "dog",
    }
    json.dumps(coco)
    colours = {tuple(pixel) for pixel in np.asarray(result.overlay(opacity=1, legend=False)).reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in pale_object_colours(WORDS).tolist()} <= colours


def test_coco_of_several_photos_keeps_every_category():
    merged = coco_document([(1, made(0.5).labelled.record), (2, made(0.0).labelled.record)], WORDS)
    assert [category["id"] for category in merged["categories"]] == [1, 2, 3, 4, 5]
    assert len({annotation["id"] for annotation in merged["annotations"]}) == len(merged["annotations"])


@pytest.fixture(scope="module")
def built_in() -> PartSegmenter:
    return PartSegmenter.from_pretrained(None, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def scene():
    """A rendered scene."""
    return render_scene("val", 3, 128).image


@pytest.fixture(scope="module")
def words() -> Vocabulary:
    """One part of each object that the scene shows."""
    scene = render_scene("val", 3, 128)
    parts = partshapes_world().vocabulary.object_parts
    return Vocabulary(tuple(next(p for p in parts if p.object == word) for word in {m.object for m in scene.members}))


@pytest.mark.parametrize("zoom", [False, True])
def test_the_segmenter_drops_at_the_end_what_is_below(built_in, scene, words, zoom):
    """The maps are those without a least probability, but for the parts below it."""
    [maps] = built_in.label_maps(built_in.prepare([scene]), words, [scene.shape[:2]])
    if zoom:
        [maps] = built_in.look_again([scene], [maps], words)
    labels, objects, scores = (some.numpy() for some in maps)
    for least in (0.0, 0.5, 0.8):
        result = built_in(scene, words, zoom=zoom, min_part_probability=least)
        assert np.array_equal(result.label_map, np.where(scores >= least, labels, -1))
        assert np.array_equal(result.object_map, objects)
    default = built_in(scene, words, zoom=zoom)
    assert np.array_equal(default.label_map, np.where(scores >= MIN_PART_PROBABILITY, labels, -1))
    known = built_in(scene, words, objects=words.objects[:1], zoom=zoom)
    assert (known.label_map >= 0).all(), "parts of known objects share every pixel"


def test_the_page_shows_what_the_segmenter_finds(built_in, scene, words):
    pytest.importorskip("fastapi")
    from partclipseg.apps.serve.explain import explain
    from partclipseg.apps.serve.explained import explained_content

    vocabulary = words
    for least in (0.5, 0.9):
        explained = explain(built_in, scene, vocabulary, min_part_probability=least)
        result = built_in(scene, vocabulary, min_part_probability=least)
        assert np.array_equal(explained.result.label_map, result.label_map)
        entries = {e["name"]: e for e in explained_content(explained)["layers"]["object_parts"]["entries"]}
        for segment in result.without_part():
            entry = entries[f"rest of the {segment.object}"]
            assert entry["share"] == pytest.approx(segment.area / result.label_map.size, abs=1e-6)  # 6 decimals
            assert (entry["object"], entry["rest"]) == (segment.object, True)
            assert entry["value"] == len(vocabulary) + segment.index + 1
    assert result.without_part()


@pytest.mark.parametrize("least", [-0.1, 1.5, float("nan")])
def test_what_is_no_probability_is_refused(built_in, scene, least):
    with pytest.raises(UsageError, match="must be from 0 to 1"):
        built_in(scene, "bus: wheel", min_part_probability=least)
