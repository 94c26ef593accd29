"""The counters of `partclipseg serve`: every answer counts, whoever gave it."""

from __future__ import annotations

import pytest
from tests.apps.serve.api_requests import URL, WORDS, picture

pytest.importorskip("fastapi")

from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from partclipseg.apps.serve.command import create_app
from partclipseg.apps.serve.engine import Engine
from partclipseg.apps.serve.queue import QueueFullError
from partclipseg.inference.segmenter import PartSegmenter

PHOTO = {"files": {"photo": ("a.png", picture())}, "data": {"vocabulary": WORDS}}
BEARER = {"headers": {"Authorization": "Bearer secret"}}
LOCAL = {"headers": {"Host": "localhost"}}

ANSWERS = {
    "a photo": ({}, ("POST", URL, PHOTO), URL, 200),
    "no form": ({}, ("POST", URL, {"content": b"", "headers": {"Content-Type": "multipart/form-data"}}), URL, 400),
    "no photo": ({}, ("POST", URL, {"json": {}}), URL, 422),
    "no type": ({}, ("POST", URL, {}), URL, 415),
    "a large photo": ({"max_pixels": 10}, ("POST", URL, PHOTO), URL, 413),
    "a large body": ({"max_bytes": 10, "max_classes": 1}, ("POST", URL, {"json": {"x": "x" * 99_999}}), URL, 413),
    "too slow": ({"timeout": 1e-9}, ("POST", URL, PHOTO), URL, 504),
    "another method": ({}, ("GET", URL, {}), URL, 405),
    "an example that is none": ({}, ("GET", "/v1/examples/none", {}), "/v1/examples/{name}", 404),
    "jobs switched off": ({}, ("GET", "/v1/jobs", {}), "other", 403),
    "an invented path": ({}, ("GET", "/invented", {}), "other", 404),
    "an invented path with a photo": ({}, ("POST", "/invented", PHOTO), "other", 404),
    "the page": ({}, ("GET", "/", {}), "other", 200),
    "a script of the page": ({}, ("GET", "/main.js", {}), "other", 200),
    "another method of the page": ({}, ("POST", "/main.js", {}), "other", 405),
    "the description": ({}, ("GET", "/openapi.json", {}), "/openapi.json", 200),
    "no token": ({"token": "secret"}, ("GET", "/v1/models", {}), "/v1/models", 401),
    "no token for a photo": ({"token": "secret"}, ("POST", URL, PHOTO), URL, 401),
    "no token for the page": ({"token": "secret"}, ("GET", "/", {}), "other", 401),
    "the token": ({"token": "secret"}, ("GET", "/v1/models", BEARER), "/v1/models", 200),
    "the token in the address": ({"token": "secret"}, ("GET", "/?token=secret", {}), "other", 303),
    "another host": ({"local": True}, ("GET", "/healthz", {"headers": {"Host": "a.b"}}), "/healthz", 403),
    "another origin": (
        {"local": True},
        ("POST", URL, {**PHOTO, "headers": {"Host": "localhost", "Origin": "http://a.b"}}),
        URL,
        403,
    ),
    "this host": ({"local": True}, ("GET", "/healthz", LOCAL), "/healthz", 200),
}
LIMITS = {"max_pixels", "max_bytes", "max_classes", "timeout"}


def counts(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Requests by path and status."""
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    return {
        (sample.labels["path"], sample.labels["status"]): sample.value
        for sample in samples
        if sample.name == "partclipseg_requests_total"
    }


@pytest.mark.parametrize(("options", "request_", "path", "status"), ANSWERS.values(), ids=ANSWERS)
def test_every_answer_counts_once(make_engine, options, request_, path, status):
    engine = make_engine(**{name: value for name, value in options.items() if name in LIMITS})
    app = create_app(engine, **{name: value for name, value in options.items() if name not in LIMITS})
    method, address, sent = request_
    answer = TestClient(app).request(method, address, follow_redirects=False, **sent)
    assert answer.status_code == status
    assert counts(engine.metrics.registry) == {(path, str(status)): 1}
    assert f'partclipseg_request_seconds_count{{path="{path}"}} 1.0' in engine.metrics.text().decode()


@pytest.mark.parametrize("address", [URL, "/v1/batch", "/invented"])
def test_refusals_by_rate_count(make_engine, address):
    engine = make_engine()
    client = TestClient(create_app(engine, rate=1))
    codes = [client.post(address).status_code for _ in range(3)]
    assert codes[1:] == [429, 429]
    path = "other" if address == "/invented" else address
    assert counts(engine.metrics.registry) == {(path, str(codes[0])): 1, (path, "429"): 2}


@pytest.mark.parametrize(
    ("fails", "name", "error", "status"),
    [
        (Engine, "check_room", QueueFullError("busy"), 503),
        (PartSegmenter, "__call__", MemoryError(), 503),
        (PartSegmenter, "__call__", RuntimeError("a secret"), 500),
    ],
)
def test_faults_and_full_queues_count(make_engine, monkeypatch, fails, name, error, status):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(fails, name, fail)
    engine = make_engine()
    answer = TestClient(create_app(engine), raise_server_exceptions=False).post(URL, **PHOTO)
    assert answer.status_code == status
    assert counts(engine.metrics.registry) == {(URL, str(status)): 1}
