"""Requests that ask whose each part is."""

from __future__ import annotations

import base64
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from tests.apps.serve.api_requests import URL, WORDS, post

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from partclipseg.apps.serve.api import create_api
from partclipseg.instances.found import FoundObject

BOXES = [{"object": "dog", "box": [0, 0, 30, 40]}, {"object": "Bus", "box": [25, 5, 35, 30]}]
FORM = '{"object": "dog", "box": [x, y, width, height]}'
GIVEN = [FoundObject(some["object"], tuple(some["box"])) for some in BOXES]


def in_json(client, photo: bytes, **fields):
    return client.post(URL, json={"photo": base64.b64encode(photo).decode(), "vocabulary": WORDS, **fields})


def test_boxes(client, engine, photo):
    expected = engine.segmenters["random"](photo, WORDS, instances=GIVEN)
    formats = "json,coco,instance-png,partpq"
    for answer in (
        in_json(client, photo, instances=BOXES, formats=formats.split(",")),
        post(client, photo, vocabulary=WORDS, instances=json.dumps(BOXES), formats=formats),
    ):
        assert answer.status_code == 200, answer.text
        content = answer.json()
        assert content["instances"] == expected.to_dict()["instances"]
        assert content["segments"] == expected.to_dict()["segments"]
        assert {segment["instance"] for segment in content["segments"]} <= {1, 2}
        numbers = Image.open(io.BytesIO(base64.b64decode(content["instance-png"])))
        assert np.array_equal(np.asarray(numbers), expected.instance_map + 1)
        assert content["coco"]["annotations"][0]["obj_ann_id"] == 1
    assert expected.segments(), "otherwise this shows nothing"


def test_components(client, engine, photo):
    content = in_json(client, photo, instances="components").json()
    expected = engine.segmenters["random"](photo, WORDS, instances="components")
    assert content["instances"] == expected.to_dict()["instances"]
    assert "instances" not in in_json(client, photo).json()
    assert "instances" not in post(client, photo, vocabulary=WORDS, instances="").json()


def test_words_that_a_format_cannot_hold(make_engine, photo):
    client = TestClient(create_api(make_engine()))
    words = {f"object{number}": ["part"] for number in range(100)}
    answer = in_json(client, photo, vocabulary=words, instances="components", formats=["json", "partpq"])
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("the format partpq can number 99 objects, and there are 100: leave it")


def test_a_detector(make_engine, photo):
    class Finder:
        def find(self, photos, words):
            return [[FoundObject("dog", (0, 0, 30, 40), 0.5)] for _ in photos]

    engine = make_engine()
    client = TestClient(create_api(engine))
    refused = in_json(client, photo, instances="detector")
    assert refused.status_code == 422
    assert "this server has no detector" in refused.json()["detail"]
    engine.detector = Finder()
    for rest in (False, True):
        content = in_json(client, photo, instances="detector", rest=rest).json()
        assert [(some["object"], some["source"], some["score"]) for some in content["instances"]] == [
            ("dog", "detector", 0.5)
        ]
        assert rest or all(segment["instance"] == 1 for segment in content["segments"])


def test_a_zip_has_all_files(client, photo):
    answer = client.post(
        URL,
        files={"photo": ("a.png", photo)},
        data={"vocabulary": WORDS, "instances": "components", "formats": "masks,instance-png,json"},
        headers={"accept": "application/zip"},
    )
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert "a.instance.png" in names
    assert "a.parts.json" in names


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"instances": "dogs"}, "instances: it must be 'components', 'detector' or a list of boxes, not 'dogs'"),
        ({"instances": 3}, "instances: it must be 'components', 'detector' or a list of boxes, not 3"),
        ({"instances": BOXES[0]}, "instances: it must be 'components', 'detector' or a list of boxes, not {'box': "),
        ({"instances": [BOXES[0], {"object": "dog", "box": [0, 0, 9]}]}, f"instances: object 2 must be {FORM}, not {{"),
        ({"instances": [{"object": "dog", "box": [0, 0, 9, 9], "mask": 1}]}, f"object 1 must be {FORM}, not"),
        ({"instances": [{"object": "dog", "box": {"x": 0}}]}, f"object 1 must be {FORM}, not"),
        ({"instances": [{"object": 3, "box": [0, 0, 9, 9]}]}, f"object 1 must be {FORM}, not"),
        ({"instances": [{"box": [0, 0, 9, 9]}]}, f"object 1 must be {FORM}, not"),
        ({"instances": ["dog", [0, 0, 9, 9]]}, f"object 1 must be {FORM}, not 'dog'"),
        ({"instances": [*BOXES] * 17}, "instances: at most 32 objects can be given for a photo, not 34"),
        ({"instances": [{"object": "cat", "box": [0, 0, 9, 9]}]}, "object 1 of instances: 'cat' is not an object of"),
        ({"instances": [BOXES[0], {"object": "dog", "box": [60, 0, 9, 9]}]}, "object 2 of instances: the box from 60"),
        ({"instances": [{"object": "dog", "box": [0.1, 0.2, 0.5, 0.6]}]}, "the box lies between 0 and 1"),
        ({"instances": [{"object": "dog", "box": [0, 0, -9, 9]}]}, "the box of a dog must have a width and a height"),
        ({"instances": [{"object": "", "box": [0, 0, 9, 9]}]}, "an object is named by a word"),
        ({"instances": "components", "zoom": True}, "instances look at crops already: leave zoom out"),
        ({"instances": "components", "vocabulary": "any: handle"}, "the vocabulary names no object"),
        ({"rest": True}, "rest is for instances: say where objects are"),
        ({"formats": ["instance-png"]}, "the format instance-png is for instances: say where objects are"),
    ],
)
def test_wrong_fields(client, photo, fields, message):
    answer = in_json(client, photo, **fields)
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["detail"]


@pytest.mark.parametrize("text", ["[", "[1]", "[" * 5000, '{"object": "dog"}'])
def test_wrong_text_in_a_form(client, photo, text):
    answer = post(client, photo, vocabulary=WORDS, instances=text)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"].startswith("instances: ")


def test_the_description(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    answer = schemas["SegmentAnswer"]["properties"]
    assert {"instances", "instance-png", "partpq"} <= answer.keys()
    assert "number of the instance" in schemas["SegmentInfo"]["properties"]["instance"]["description"]
