"""X-AnyLabeling's remote server: requests as its client sends them, and answers as it reads them."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from tests.apps.serve.api_requests import picture

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from partclipseg.apps.serve.access import protect
from partclipseg.apps.serve.api import create_api

WORDS = "dog: ear, head; bus: wheel"


class Client:
    """Plays the client: it lists models, sends what its controls hold, and reads shapes."""

    def __init__(self, http: TestClient, token: str = "") -> None:
        self.http = http
        self.headers = {"Content-Type": "application/json", "Token": token}

    def models(self) -> dict:
        answer = self.http.get("/x-anylabeling/v1/models", headers=self.headers)
        answer.raise_for_status()
        return answer.json().get("data", {})

    def predict(self, model: str, photo: bytes, text: str | None = None, **params):
        params = {"conf_threshold": 0.0, "iou_threshold": 0.0, "epsilon_factor": 0.001, **params}
        if text:
            params["text_prompt"] = text.rstrip(".")
        uri = f"data:image/png;base64,{base64.b64encode(photo).decode()}"
        body = {"model": model, "image": uri, "params": params}
        return self.http.post("/x-anylabeling/v1/predict", json=body, headers=self.headers)

    def shapes(self, *arguments, **params) -> list[dict]:
        answer = self.predict(*arguments, **params)
        answer.raise_for_status()
        data = answer.json()["data"]
        assert data.get("replace") is None  # the client's own switch decides
        for shape in data["shapes"]:
            assert shape["shape_type"] == "polygon"
            assert shape["points"][0] == shape["points"][-1]
            assert len(shape["points"]) >= 4
        return data["shapes"]


def filled(points: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    return mask_utils.decode(mask_utils.frPyObjects([np.ravel(points).tolist()], *size))[:, :, 0] > 0


@pytest.fixture
def http(make_engine) -> TestClient:
    return TestClient(create_api(make_engine("first", "second", max_bytes=100_000, max_classes=50)))


def test_the_menu_has_every_model(http):
    models = Client(http).models()
    assert list(models) == ["first", "second"]
    for name, model in models.items():
        assert model["display_name"] == f"partclipseg: {name}"
        assert model["batch_processing_mode"] == "text_prompt"
        widgets = {widget["name"]: widget["value"] for widget in model["widgets"]}
        assert {"edit_text", "button_send"} <= set(widgets)
        assert 0 <= widgets["edit_conf"] <= 1
        assert 1 <= widgets["mask_fineness_slider"] <= 100


def test_shapes_are_the_parts(http, random_segmenter):
    photo = picture(120, 80)
    shapes = Client(http).shapes("second", photo, WORDS, epsilon_factor=0.0)
    expected = random_segmenter(photo, WORDS, instances="components", rest=True)
    assert len({segment.instance for segment in expected}) > 1, "otherwise this shows little"
    for segment in expected:
        own = [shape for shape in shapes if (shape["label"], shape["group_id"]) == (segment.name, segment.instance)]
        assert {shape["score"] for shape in own} == {round(segment.score, 4)}
        covered = np.zeros(expected.size, bool)
        for shape in own:
            covered |= filled(shape["points"], expected.size)
        assert np.array_equal(covered, segment.mask)
    pairs = {(segment.name, segment.instance) for segment in expected}
    assert {(shape["label"], shape["group_id"]) for shape in shapes} == pairs


def test_words_without_an_object_have_no_group(http):
    shapes = Client(http).shapes("first", picture(120, 80), "any: handle", epsilon_factor=0.0)
    assert {shape["group_id"] for shape in shapes} <= {None}


def test_its_controls_count(http, random_segmenter):
    photo, client = picture(120, 80), Client(http)
    scores = sorted(segment.score for segment in random_segmenter(photo, WORDS, instances="components", rest=True))
    least = scores[-1] - 1e-3
    found = client.shapes("first", photo, WORDS, conf_threshold=least)
    assert {shape["score"] >= least for shape in found} == {True}
    fine, coarse = (client.shapes("first", photo, WORDS, epsilon_factor=share) for share in (0.0, 0.05))
    assert sum(len(one["points"]) for one in coarse) < sum(len(one["points"]) for one in fine)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_no_part_vanishes_under_coarse_outlines(http, random_segmenter, share, seed):
    photo = picture(120, 80, seed)
    found = random_segmenter(photo, WORDS, instances="components", rest=True)
    shapes = Client(http).shapes("first", photo, WORDS, epsilon_factor=share)
    expected = {(segment.name, segment.instance) for segment in found}
    assert {(shape["label"], shape["group_id"]) for shape in shapes} == expected


@pytest.mark.parametrize(
    ("body", "code", "sentence"),
    [
        ({"image": "data:image/png;base64,AAAA", "params": {"text_prompt": "dog: ear"}}, 422, "the photo"),
        ({"image": "%%%", "params": {"text_prompt": "dog: ear"}}, 422, "image: the photo must be the file's bytes"),
        ({"image": 3}, 422, "image must be the file's bytes in base64"),
        ({"params": {"text_prompt": "dog: ear"}}, 422, "image is missing"),
        ({"image": "", "params": [1]}, 422, "params must be an object"),
        ({"image": "AAAA", "model": 3}, 422, "model must be text"),
        ({"image": "AAAA", "params": {"conf_threshold": 2}}, 422, "params.conf_threshold must be at most 1"),
        ({"image": "AAAA", "params": {"conf_threshold": "x"}}, 422, "params.conf_threshold must be a number"),
        ({"image": "AAAA", "params": {"epsilon_factor": 0.2}}, 422, "params.epsilon_factor must be at most 0.1"),
        ({"image": "AAAA", "params": {"epsilon_factor": [1]}}, 422, "params.epsilon_factor must be a number"),
        ({"image": "AAAA", "params": {"text_prompt": 5}}, 422, "params.text_prompt must be text such as"),
        ({"image": "AAAA", "params": {"text_prompt": "a" * 201}}, 422, "a word has 201 characters"),
        ([], 422, "the JSON body must be an object with a field 'image'"),
    ],
)
def test_what_cannot_be_answered_is_a_sentence(http, body, code, sentence):
    answer = http.post("/x-anylabeling/v1/predict", json=body)
    assert answer.status_code == code
    assert sentence in answer.json()["detail"]


def test_an_unknown_model_and_no_words(http):
    for model, text, sentence in (("third", WORDS, "'third'"), ("first", None, "no words are given")):
        answer = Client(http).predict(model, picture(), text)
        assert answer.status_code == 422
        assert sentence in answer.json()["detail"]


def test_its_token_is_asked_for(make_engine):
    http = TestClient(protect(create_api(make_engine()), "secret"))
    assert list(Client(http, "secret").models()) == ["random"]
    assert http.get("/x-anylabeling/v1/models", headers={"Token": "wrong"}).status_code == 401
    assert Client(http).http.get("/x-anylabeling/v1/models").status_code == 401
