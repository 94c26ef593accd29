"""The HTTP API of `partclipseg serve`, in the process of the test: requests and their answers."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils
from tests.apps.serve.api_requests import URL, WORDS, picture, post

from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.vocabulary import Vocabulary

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from partclipseg.apps.serve.access import protect
from partclipseg.apps.serve.api import create_api
from partclipseg.apps.serve.command import create_app
from partclipseg.apps.serve.engine import Engine, Limits, model_names, named_result


def huge_png(side: int) -> bytes:
    """The header of a PNG of `side`² pixels, which is all that may be read of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


# -- good requests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        ("dog: ear, flap", ["flap"]),
        ("unicorn: ear", ["unicorn"]),
        ("dog: ear; any: flap", ["flap"]),
        ("any: flap, ear", ["flap"]),
        ("any: ear", []),
    ],
)
def test_words_that_the_built_in_model_has_never_seen(words: str, unknown: list[str]) -> None:
    engine = Engine({"built-in": PartSegmenter.from_pretrained(device="cpu")}, Limits())
    try:
        assert engine.unknown_words("built-in", Vocabulary.from_text(words)) == unknown
    finally:
        engine.close()


def test_a_form(client, engine, photo):
    answer = post(client, photo, vocabulary=WORDS, formats="json, coco,png,overlay,labelme")
    assert answer.status_code == 200, answer.text
    content = answer.json()
    expected = engine.segmenters["random"](photo, WORDS)
    assert content["segments"] == expected.to_dict()["segments"]
    assert content["vocabulary"] == ["dog's ear", "dog's head", "bus's wheel"]
    assert (content["width"], content["height"], content["photo"]) == (60, 40, "scene.png")
    assert (content["model"], content["protocol"], content["unknown_words"]) == ("random", "pred_all", [])
    labels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content["png"]))))
    assert np.array_equal(labels, np.asarray(expected.label_image()))
    again = np.full(labels.shape, 255)
    for annotation in content["coco"]["annotations"]:
        again[mask_utils.decode(annotation["segmentation"]) > 0] = annotation["category_id"] - 1
    assert np.array_equal(again, labels)
    assert content["labelme"]["imagePath"] == "scene.png"
    assert Image.open(io.BytesIO(base64.b64decode(content["overlay"]))).size[0] >= 60


@pytest.mark.parametrize(
    "words", [{"dog": ["ear", "head"], "bus": ["wheel"]}, ["dog's ear", ["dog", "head"], "bus's wheel"], WORDS]
)
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_json(client, engine, photo, words, prefix):
    body = {"photo": prefix + base64.b64encode(photo).decode(), "vocabulary": words, "name": "C:\\a\\scene.png"}
    answer = client.post(URL, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["segments"] == engine.segmenters["random"](photo, WORDS).to_dict()["segments"]
    assert answer.json()["photo"] == "scene.png"
    assert "coco" not in answer.json()


def test_known_objects(client, photo):
    for fields in ({"objects": "bus"}, {"objects": "bus", "protocol": "oracle_obj"}):
        content = post(client, photo, vocabulary=WORDS, **fields).json()
        assert content["protocol"] == "oracle_obj"
        assert [(segment["name"], segment["area"]) for segment in content["segments"]] == [("bus's wheel", 60 * 40)]


@pytest.mark.parametrize(("zoom", "looks"), [("true", 1), ("false", 0), (None, 0)])
def test_a_second_look_when_asked(client, engine, photo, monkeypatch, zoom, looks):
    seen: list[tuple[int, ...]] = []

    def counted(photos, maps, vocabulary, present_objects=None):
        seen.extend(photo.shape[:2] for photo in photos)
        return maps

    monkeypatch.setattr(engine.segmenters["random"], "look_again", counted)
    answer = post(client, photo, vocabulary=WORDS, **({} if zoom is None else {"zoom": zoom}))
    assert answer.status_code == 200, answer.text
    assert seen == [(40, 60)] * looks
    body = {"photo": base64.b64encode(photo).decode(), "vocabulary": WORDS, "zoom": zoom == "true"}
    assert client.post(URL, json=body).status_code == 200
    assert seen == [(40, 60)] * (2 * looks)


def test_parts_below_a_score_are_background(client, engine, photo):
    whole = engine.segmenters["random"](photo, WORDS)
    scores = sorted(segment.score for segment in whole.segments())
    assert scores[0] < scores[-1]
    least = (scores[0] + scores[-1]) / 2
    expected = whole.at_least(least)
    body = {"photo": base64.b64encode(photo).decode(), "vocabulary": WORDS, "min_score": least}
    for answer in (
        post(client, photo, vocabulary=WORDS, min_score=least, formats="json,png,coco"),
        client.post(URL, json=body),
    ):
        assert answer.status_code == 200, answer.text
        assert answer.json()["segments"] == expected.to_dict()["segments"]
    content = post(client, photo, vocabulary=WORDS, min_score=least, formats="png,coco").json()
    labels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content["png"]))))
    assert np.array_equal(labels, np.asarray(expected.label_image()))
    assert {one["category_id"] - 1 for one in content["coco"]["annotations"]} == {s.index for s in expected.segments()}
    answer = post(client, photo, {"Accept": "application/zip"}, vocabulary=WORDS, min_score=1, formats="json")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert json.loads(archive.read("scene.parts.json"))["segments"] == []


def test_a_form_may_name_the_photo(client, photo):
    parts = [("name", (None, "other.png")), ("photo", ("scene.png", photo)), ("vocabulary", (None, WORDS))]
    for files in (parts, parts[::-1], parts[1:]):
        expected = "other.png" if parts[0] in files else "scene.png"
        assert client.post(URL, files=files).json()["photo"] == expected


def test_a_zip(client, photo):
    answer = post(client, photo, {"Accept": "application/zip"}, vocabulary=WORDS, formats="json,png")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["scene.parts.json", "scene.labels.png"]
        assert json.loads(archive.read("scene.parts.json"))["photo"] == "scene.png"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/zip", "zip"),
        ("Application/ZIP", "zip"),
        (" application/zip ;q=1", "zip"),
        ("application/zip;q=0.001", "zip"),
        ("application/zip; Q = 0.5", "zip"),
        ("application/zip;version=2;q=0.5, */*", "zip"),
        ("text/html, application/zip", "zip"),
        ("application/json, application/zip", "zip"),
        ("application/json;q=0, application/zip;q=0.1", "zip"),
        ("application/zip;q=0", "json"),
        ("application/zip;q=0, application/json", "json"),
        ("application/zip;q=0.000 , */*", "json"),
        ("application/json, application/zip;q=0.9", "json"),
        ("application/zipped", "json"),
        ("x-application/zip", "json"),
        ('text/plain;x="application/zip"', "json"),
        ("*/*", "json"),
        ("application/*", "json"),
        ("", "json"),
        (",;,q=1", "json"),
    ],
)
def test_the_client_says_what_it_accepts(client, photo, accept, kind):
    answer = post(client, photo, {"Accept": accept}, vocabulary=WORDS)
    assert answer.headers["content-type"] == f"application/{kind}"


def test_accept_may_come_in_two_headers(client, photo):
    answer = post(client, photo, [("Accept", "text/html"), ("Accept", "application/zip")], vocabulary=WORDS)
    assert answer.headers["content-type"] == "application/zip"


def test_several_models_and_their_own_words(make_engine, photo):
    engine = make_engine("first", "second")
    engine.segmenters["second"].vocabulary = Vocabulary.from_text("cat: tail")
    client = TestClient(create_api(engine))
    models = client.get("/v1/models").json()["models"]
    assert [model["name"] for model in models] == ["first", "second"]
    assert [model["vocabulary"] for model in models] == [None, {"cat": ["tail"]}]
    assert models[0]["image_size"] == [64, 64]
    assert models[0]["kind"] == "PartCLIPSegModel"
    answer = post(client, photo, model="second").json()
    assert (answer["model"], answer["vocabulary"]) == ("second", ["cat's tail"])
    refused = post(client, photo, model="third", vocabulary=WORDS)
    assert refused.status_code == 422
    assert "choose from first, second" in refused.json()["detail"]


def test_health_and_metrics(engine, photo):
    client = TestClient(create_app(engine))
    assert client.get("/healthz").text == "ok"
    post(client, photo, vocabulary=WORDS)
    post(client, b"nonsense", vocabulary=WORDS)
    client.get("/invented")
    figures = client.get("/metrics").text
    for line in (
        'partclipseg_requests_total{path="/v1/segment",status="200"} 1.0',
        'partclipseg_requests_total{path="/v1/segment",status="422"} 1.0',
        "partclipseg_batch_photos_sum 1.0",
        "partclipseg_queue_length 0.0",
    ):
        assert line in figures
    assert "invented" not in figures


# -- bad requests ---------------------------------------------------------------------------------------------

BAD_FORMS = {
    "not a picture": (b"just text", {}, 422, "not a photo in a known format"),
    "an icon": (picture(16, 16, form="ICO"), {}, 422, "PNG, PPM, TGA, TIFF, WEBP): convert it"),
    "PostScript": (picture(16, 16, form="EPS"), {}, 422, "PNG, PPM, TGA, TIFF, WEBP): convert it"),
    "truncated": (picture(300, 300)[:-4000], {}, 422, "the photo: truncated or damaged"),
    "empty": (b"", {}, 422, "the photo: empty"),
    "200 megapixels": (huge_png(14_200), {}, 413, "more than 1,000,000 pixels"),
    "4 megapixels": (huge_png(2_000), {}, 413, "more than 1,000,000 pixels"),
    "too many bytes": (b"x" * 150_000, {}, 413, "150,000 bytes, more than the limit of 100,000"),
    "far too many bytes": (b"x" * 2_000_000, {}, 413, "photos may have 100,000 bytes"),
    "5,000 classes": (None, {"vocabulary": "; ".join(f"o: p{i}" for i in range(5000))}, 422, "classes are more than"),
    "51 classes": (None, {"vocabulary": "o: " + ", ".join(f"p{i}" for i in range(51))}, 422, "51 classes are more"),
    "no words": (None, {"vocabulary": ""}, 422, "no words are given"),
    "an object without parts": (None, {"vocabulary": "dog:"}, 422, "'dog' has no part"),
    "words twice": (None, {"vocabulary": "dog: ear, ear"}, 422, "twice"),
    "a word too long": (None, {"vocabulary": "dog: " + "e" * 60}, 422, "use a shorter word"),
    "JSON words twice": (None, {"vocabulary": '{"dog": ["ear"], "dog": ["leg"]}'}, 422, "has the key 'dog' twice"),
    "bad JSON words": (None, {"vocabulary": '{"dog": ["ear"'}, 422, "not valid JSON"),
    "JSON words nested": (None, {"vocabulary": "[" * 1500}, 422, "not valid JSON"),
    "JSON words of the wrong kind": (None, {"vocabulary": '{"dog": 3}'}, 422, "list of words"),
    "a file of the server": (None, {"vocabulary": "/etc/passwd"}, 422, "'/etc/passwd' is no catalogue"),
    "another file": (None, {"vocabulary": "words.yaml"}, 422, "'words.yaml' is no catalogue"),
    "a mistyped catalogue": (None, {"vocabulary": "part-imagnet"}, 422, "'part-imagnet' is no catalogue"),
    "no such catalogue": (None, {"vocabulary": "pascal-part-115"}, 422, "no catalogue (pascal-part-116, ade20k"),
    "one of many words": (None, {"vocabulary": "dog's ear, zebra"}, 422, "'zebra' names no object"),
    "unknown objects": (None, {"objects": "cat"}, 422, "'cat' is not an object of the vocabulary"),
    "oracle without objects": (None, {"protocol": "oracle_obj"}, 422, "needs objects"),
    "pred_all with objects": (None, {"protocol": "pred_all", "objects": "dog"}, 422, "leave them out"),
    "unknown protocol": (None, {"protocol": "magic"}, 422, "protocol must be 'pred_all' or 'oracle_obj'"),
    "unknown format": (None, {"formats": "tiff"}, 422, "instance-png, partpq, all"),
    "no format": (None, {"formats": ","}, 422, "formats must not be empty"),
    "no score": (None, {"min_score": "high"}, 422, "min_score must be a number"),
    "a score below 0": (None, {"min_score": "-0.1"}, 422, "min_score must be at least 0"),
    "a score above 1": (None, {"min_score": "50"}, 422, "min_score must be at most 1"),
    "not a number": (None, {"min_score": "nan"}, 422, "min_score must be at most 1"),
    "neither yes nor no": (None, {"zoom": "maybe"}, 422, "zoom must be true or false"),
    "a long name": (None, {"name": "x" * 1001}, 422, "name must have at most 1000 characters"),
    "unknown field": (None, {"vocabulry": "x"}, 422, "there is no field 'vocabulry'"),
}


def test_several_photos_are_told_where_they_go(client, photo):
    answer = client.post("/v1/segment", files=[("photo", photo)] * 2, data={"vocabulary": WORDS})
    assert answer.status_code == 413
    assert answer.json()["detail"] == "a request here may have 1 photo on this server: send several to /v1/batch"


def test_readers_of_other_formats_are_never_begun(client, monkeypatch):
    _, accept = Image.OPEN["ICO"]
    monkeypatch.setitem(Image.OPEN, "ICO", (lambda *_: pytest.fail("it was begun"), accept))
    assert post(client, picture(16, 16, form="ICO"), vocabulary=WORDS).status_code == 422


@pytest.mark.parametrize(("content", "fields", "code", "words"), BAD_FORMS.values(), ids=BAD_FORMS)
def test_bad_forms(client, photo, content, fields, code, words):
    answer = post(client, photo if content is None else content, **{"vocabulary": WORDS, **fields})
    assert answer.status_code == code, answer.text
    assert words in answer.json()["detail"]


SMALL = base64.b64encode(picture()).decode()
BAD_BODIES = {
    "bad JSON": ("application/json", b'{"photo": ', 400, "not valid JSON"),
    "a field twice": ("application/json", b'{"photo": "", "zoom": 1, "zoom": 0}', 400, "has the key 'zoom' twice"),
    "not UTF-8": ("application/json", b'{"photo": "\xff"}', 400, "not valid JSON"),
    "a list": ("application/json", b"[]", 422, "must be an object"),
    "no photo": ("application/json", b"{}", 422, "photo is missing"),
    "a number for a photo": ("application/json", b'{"photo": 3}', 422, "base64"),
    "not base64": ("application/json", b'{"photo": "%%%"}', 422, "base64"),
    "not ASCII": ("application/json", '{"photo": "é"}'.encode(), 422, "base64"),
    "words of the wrong kind": (
        "application/json",
        json.dumps({"photo": SMALL, "vocabulary": 7}).encode(),
        422,
        'vocabulary must be text such as "dog: head',
    ),
    "a number for a list of words": (
        "application/json",
        json.dumps({"photo": SMALL, "objects": [3]}).encode(),
        422,
        "objects must be a list of words",
    ),
    "a surrogate in a word": (
        "application/json",
        json.dumps({"photo": SMALL, "vocabulary": {"dog\ud800": ["ear"]}}).encode(),
        422,
        "is not valid Unicode",
    ),
    "a surrogate in another word": (
        "application/json",
        json.dumps({"photo": SMALL, "vocabulary": WORDS, "objects": ["\ud800"]}).encode(),
        422,
        "is not an object of the vocabulary",
    ),
    "too long": ("application/json", b" " * 1_300_000, 413, "too long"),
    "another type": ("text/plain", b"hello", 415, "multipart/form-data"),
    "no boundary": ("multipart/form-data", b"hello", 400, "form cannot be read"),
    "a broken form": ("multipart/form-data; boundary=x", b"--x\r\nnonsense\r\n", 400, "form cannot be read"),
    "an empty form": ("multipart/form-data; boundary=x", b"--x--\r\n", 422, "photo is missing"),
    "a text for a photo": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="photo"\r\n\r\nabc\r\n--x--\r\n',
        422,
        "photo must be a file",
    ),
    "a file for words": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="vocabulary"; filename="a"\r\n\r\nabc\r\n--x--\r\n',
        422,
        "must be text",
    ),
    "a photo under another name": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\nabc\r\n--x--\r\n',
        422,
        "there is no field 'file': send the photo as 'photo'",
    ),
}


@pytest.mark.parametrize(("kind", "body", "code", "words"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_bad_bodies(client, kind, body, code, words):
    answer = client.post(URL, content=body, headers={"Content-Type": kind})
    assert answer.status_code == code, answer.text
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("whole", [False, True])
def test_other_methods_are_405_and_head_is_answered(make_engine, whole):
    """Of the API alone, and of the whole application, whose page takes every path."""
    engine = make_engine()
    client = TestClient(create_app(engine) if whole else create_api(engine))
    for method, path, allowed in (
        ("GET", URL, "POST"),
        ("HEAD", URL, "POST"),
        ("DELETE", URL, "POST"),
        ("PUT", "/v1/models", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("OPTIONS", "/openapi.json", "GET, HEAD"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        if method != "HEAD":
            assert answer.json() == {"detail": f"{path} takes {allowed.split(',')[0]}, not {method}"}
    for path in ("/healthz", "/v1/models", "/metrics", "/openapi.json"):
        answer = client.head(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, client.get(path).headers["content-type"])


# -- the rest -------------------------------------------------------------------------------------------------


def test_pages_may_load_nothing_from_elsewhere(engine):
    client = TestClient(protect(create_api(engine)))
    assert "default-src 'self'" in client.get("/healthz").headers["content-security-policy"]


def test_the_description_has_examples_that_work(client):
    operation = client.get("/openapi.json").json()["paths"][URL]["post"]
    content = operation["requestBody"]["content"]
    answer = client.post(URL, json=content["application/json"]["example"])
    assert answer.status_code == 200, answer.text
    assert set(content["multipart/form-data"]["schema"]["properties"]) == {
        *("photo", "name", "vocabulary", "model", "protocol", "objects", "zoom", "min_score", "min_part_probability"),
        *("formats", "opacity", "instances", "rest"),
    }
    assert {"200", "400", "401", "413", "415", "422", "503", "504"} <= set(operation["responses"])


@pytest.mark.parametrize("number", [0, -1])
@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "max_classes", "queue", "timeout", "max_held"])
def test_limits_must_be_positive(name, number):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} must be greater than 0"):
        Limits(**{name: number})


def test_names_of_models_and_photos():
    assert model_names(["models/a", "hub/b/", None]) == ["a", "b", "partshapes"]
    assert model_names(["x/a", "y/a"]) == ["x/a", "y/a"]
    with pytest.raises(ValueError, match="named twice"):
        model_names(["a", "a"])


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (None, "photo"),
        ("", "photo"),
        ("a.jpg", "a.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\a.jpg", "a.jpg"),
        ("..", "photo"),
        ("a\0b\n.png", "ab.png"),
        ("\ud800.png", "png"),
        ("x" * 300 + ".png", "x" * 96 + ".png"),
        (" .a. ", "a"),
        ("x." + "y" * 99, "y" * 99),
        ("x. ." + "y" * 97, "y" * 97),
    ],
)
def test_photos_keep_their_names_without_folders(make_engine, photo, given, name):
    result = make_engine().segmenters["random"](photo, WORDS)
    assert named_result(result, given).name == name
