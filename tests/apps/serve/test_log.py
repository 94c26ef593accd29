"""The log of `partclipseg serve`, and the rate limit for each client."""

from __future__ import annotations

import io
import json
import logging
import tempfile

import numpy as np
import pytest
from PIL import Image
from tests.apps.serve.api_requests import WORDS, post

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from partclipseg.apps.serve.command import create_app
from partclipseg.apps.serve.engine import Engine
from partclipseg.apps.serve.log import AccessLog, private_requests
from partclipseg.apps.serve.rates import RateLimit
from partclipseg.inference.segmenter import PartSegmenter


@pytest.fixture
def logged(make_engine, caplog):
    """A client of the whole application, and the lines of its log."""
    caplog.set_level(logging.INFO, "partclipseg.serve")
    client = TestClient(AccessLog(create_app(make_engine(), "secret")), raise_server_exceptions=False)
    client.headers["Authorization"] = "Bearer secret"
    return client, caplog


@pytest.fixture(scope="module")
def built_in():
    """A client of the built-in model, which knows whole words and warns of all others."""
    engine = Engine({"partshapes": PartSegmenter.from_pretrained(device="cpu")})
    yield TestClient(create_app(engine))
    engine.close()


def entries(caplog) -> list[dict]:
    return [json.loads(record.message) for record in caplog.records if record.name == "partclipseg.serve"]


def test_a_request_is_a_line_without_photo_words_and_token(logged, photo):
    client, caplog = logged
    answer = post(client, photo, vocabulary=WORDS)
    client.get("/v1/models?token=secret", headers={"Authorization": ""}, follow_redirects=False)
    first, second = entries(caplog)
    assert first["id"] == answer.headers["x-request-id"]
    assert (first["method"], first["path"], first["status"]) == ("POST", "/v1/segment", 200)
    assert first["bytes_in"] > len(photo)
    assert first["bytes_out"] == len(answer.content)
    assert first["seconds"] > 0
    assert (second["path"], second["status"]) == ("/v1/models", 303)
    assert set(first) == {"time", "id", "client", "method", "path", "status", "seconds", "bytes_in", "bytes_out"}
    assert not [word for word in ("dog", "ear", "scene.png", "secret") if word in caplog.text]


@pytest.mark.parametrize(("level", "said"), [(logging.INFO, False), (logging.DEBUG, True)])
def test_the_librarys_warnings_name_no_word_but_for_debugging(built_in, photo, caplog, level, said):
    caplog.set_level(level, "partclipseg.serve")
    with private_requests():
        assert post(built_in, photo, vocabulary=f"dog: pqrst{level}").status_code == 200
    warnings = [record.message for record in caplog.records if record.name == "partclipseg.inference.segmenter"]
    assert ["pqrst" in warning for warning in warnings] == [True] * said
    assert logging.getLogger("partclipseg.inference").level == logging.NOTSET  # as before


def test_words_are_logged_for_debugging_only(logged, photo):
    client, caplog = logged
    caplog.set_level(logging.DEBUG, "partclipseg.serve")
    post(client, photo, vocabulary=WORDS)
    asked, done = entries(caplog)
    assert asked["asks"]["vocabulary"] == WORDS
    assert "photo" not in asked["asks"]
    assert asked["id"] == done["id"]


@pytest.mark.parametrize("given", ["abc-1.2:3", "x" * 64])
def test_identifiers_of_clients_are_kept(logged, given):
    client, _ = logged
    assert client.get("/healthz", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, 'a"b', "a b", "a\\nb"])
def test_identifiers_that_would_spoil_the_log_are_not(logged, given):
    client, _ = logged
    found = client.get("/healthz", headers={"X-Request-ID": given}).headers["x-request-id"]
    assert len(found) == 32
    assert found != client.get("/healthz").headers["x-request-id"]


def test_faults_and_refusals_are_lines_too(logged, photo, monkeypatch):
    client, caplog = logged

    def fail(*_, **__):
        raise RuntimeError("a secret")

    monkeypatch.setattr(PartSegmenter, "__call__", fail)
    assert "x-request-id" in post(client, photo, vocabulary=WORDS).headers
    client.get("/" + "x" * 3000)
    client.get("/v1/models", headers={"Authorization": "Bearer wrong"})
    found = entries(caplog)
    assert [line["status"] for line in found] == [500, 404, 401]
    assert len(found[1]["path"]) < 600


def test_large_photos_are_not_written_to_the_disk_either(make_engine, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (800, 800, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    assert len(buffer.getvalue()) > 1_500_000
    monkeypatch.setattr(tempfile, "TemporaryFile", None)  # what a form parser would spill to
    client = TestClient(create_app(make_engine()))
    assert post(client, buffer.getvalue(), vocabulary=WORDS).status_code == 200


# -- rates ----------------------------------------------------------------------------------------------------


async def _ok(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def test_a_client_has_its_rate():
    now = [0.0]
    app = RateLimit(_ok, per_minute=3, clock=lambda: now[0])
    one, other = (TestClient(app, client=(host, 1)) for host in ("10.0.0.1", "10.0.0.2"))
    assert [one.post("/").status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = one.post("/")
    assert refused.headers["retry-after"] == "20"
    assert refused.json()["detail"] == "more than 3 requests a minute from one client: try again in 20 seconds"
    assert other.post("/").status_code == 200
    assert one.get("/").status_code == 200  # only requests with photos count
    now[0] = 20
    assert [one.post("/").status_code for _ in range(2)] == [200, 429]
    now[0] = 1000
    assert [one.post("/").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_the_addresses_of_one_network_are_one_client():
    app = RateLimit(_ok, per_minute=1)
    codes = [TestClient(app, client=(f"2001:db8::{host}", 1)).post("/").status_code for host in (1, 2)]
    assert [*codes, TestClient(app, client=("2001:db8:0:1::1", 1)).post("/").status_code] == [200, 429, 200]


def test_the_rate_belongs_to_the_application(make_engine, photo):
    client = TestClient(create_app(make_engine(), rate=1))
    codes = [post(client, photo, vocabulary=WORDS).status_code for _ in range(2)]
    assert codes == [200, 429]
    assert client.get("/").status_code == 200
