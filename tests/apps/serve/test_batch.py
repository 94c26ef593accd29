"""Several photos in one request, and the client of the package."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import Mock

import httpx
import pytest
import requests
from PIL import Image
from tests.apps.serve.api_requests import WORDS, picture
from urllib3.exceptions import ProtocolError, ReadTimeoutError

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from partclipseg.apps.serve.api import create_api
from partclipseg.apps.serve.engine import Engine
from partclipseg.apps.serve.intake import Intake
from partclipseg.client import Client
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.vocabulary import Vocabulary

PHOTOS = [picture(30 + 7 * number, 40, number) for number in range(12)]


def post(client: TestClient, contents: list[bytes], **fields):
    files = [("photo", (f"{number}.png", photo)) for number, photo in enumerate(contents)]
    return client.post("/v1/batch", files=files, data={"vocabulary": WORDS, **fields})


def lines(answer) -> list[dict]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def test_each_photo_has_its_answer_in_order(client, engine):
    found = lines(post(client, PHOTOS, formats="json,yolo", min_score="0.1"))
    assert [(line["number"], line["photo"], line["status"]) for line in found] == [
        (number, f"{number}.png", 200) for number in range(12)
    ]
    for line, photo in zip(found, PHOTOS, strict=True):
        files = {"photo": (line["photo"], photo)}
        data = {"vocabulary": WORDS, "formats": "json,yolo", "min_score": "0.1"}
        alone = client.post("/v1/segment", files=files, data=data).json()
        assert set(alone) | {"number", "status"} == set(line)
        assert [(one["name"], one["area"]) for one in line["segments"]] == [
            (one["name"], one["area"]) for one in alone["segments"]
        ]


def test_a_bad_photo_is_a_line_and_stops_none(client):
    large = io.BytesIO()
    Image.new("1", (2000, 600)).save(large, "PNG")
    found = lines(post(client, [PHOTOS[0], b"text", large.getvalue(), b"", PHOTOS[1]]))
    assert [line["status"] for line in found] == [200, 422, 413, 422, 200]
    assert "not a photo in a known format" in found[1]["detail"]
    assert "more than 1,000,000 pixels" in found[2]["detail"]
    assert {key for line in found[1:4] for key in line} == {"number", "photo", "status", "detail"}


@pytest.mark.parametrize(
    ("fields", "count", "code", "sentence"),
    [
        ({"vocabulary": "zebra.yaml"}, 1, 422, "is no catalogue"),
        ({"min_score": "2"}, 1, 422, "min_score must be at most 1"),
        ({"name": "x"}, 1, 422, "min_score, opacity, formats, photo"),
        ({"photos": "x"}, 1, 422, "there is no field 'photos': send each photo as 'photo'"),
        ({}, 0, 400, "form cannot be read"),
        ({}, 33, 413, "a request here may have 32 photos on this server: send the others in another request"),
        ({"photo": "x"}, 1, 422, "photo must be a file"),
    ],
)
def test_wrong_requests_are_refused_whole(client, fields, count, code, sentence):
    answer = post(client, [PHOTOS[0]] * count, **fields) if count else client.post(
        "/v1/batch", content=b"x", headers={"Content-Type": "multipart/form-data; boundary=y"}
    )
    assert answer.status_code == code, answer.text
    assert sentence in answer.json()["detail"]


def test_one_without_photos_and_json_are_refused(client):
    answer = client.post("/v1/batch", data={"vocabulary": WORDS}, files={"x": b""})
    assert answer.status_code == 422
    answer = client.post("/v1/batch", json={"photos": []})
    assert (answer.status_code, "multipart/form-data" in answer.json()["detail"]) == (415, True)


def test_lines_come_as_they_are_done(make_engine, serving, monkeypatch):
    """The first answers are read while later photos still wait."""
    go, find = threading.Event(), Intake.find

    async def gated(self, task, photo):
        while photo in PHOTOS[3:] and not go.is_set():
            await asyncio.sleep(0.01)
        return await find(self, task, photo)

    monkeypatch.setattr(Intake, "find", gated)
    engine = make_engine()
    with serving(engine) as address:
        answers = Client(address).segment_many(PHOTOS[:10], WORDS)
        assert [next(answers)["number"] for _ in range(3)] == [0, 1, 2]
        go.set()
        assert [line["number"] for line in answers] == list(range(3, 10))


def test_a_client_that_leaves_takes_its_photos_along(make_engine, monkeypatch):
    """Also one that has stopped reading, for which the server waits: none of its photos goes to the model any more."""
    asked, ended = [], []
    form = httpx.Request("POST", "http://x", files=[("photo", one) for one in PHOTOS], data={"vocabulary": WORDS})
    content, headers = form.read(), [(name.lower(), value) for name, value in form.headers.raw]
    find = Intake.find

    async def slow(self, task, photo):
        asked.append(photo)
        try:
            if len(asked) > 1:
                await asyncio.sleep(60)
            return await find(self, task, photo)
        finally:
            ended.append(photo)

    async def leave() -> None:
        full = asyncio.Event()
        told = iter([{"type": "http.request", "body": content}])

        async def receive():
            if (message := next(told, None)) is not None:
                return message
            await full.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.body":
                full.set()
                await asyncio.sleep(60)

        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/batch", "query_string": b"",
            "headers": headers,
        }  # fmt: skip
        await create_api(make_engine())(scope, receive, send)
        await asyncio.sleep(0)  # cancelled tasks end at their next turn
        assert len(ended) == len(asked) > 1

    monkeypatch.setattr(Intake, "find", slow)
    gc.disable()  # the collector would end the tasks too, some time
    try:
        asyncio.run(leave())
    finally:
        gc.enable()


def test_a_batch_waits_where_the_queue_is_full(make_engine):
    found = lines(post(TestClient(create_api(make_engine(queue=2))), PHOTOS))
    assert {line["status"] for line in found} == {200}


def test_what_a_request_held_is_given_back(make_engine):
    """Of memory and slots, also after requests that were refused."""
    total = sum(map(len, PHOTOS)) + 10_000
    client = TestClient(create_api(make_engine(queue=1, max_held=total)))
    for _ in range(3):
        assert len(lines(post(client, PHOTOS))) == 12
        assert post(client, PHOTOS[:1], vocabulary="zebra.yaml").status_code == 422


# -- the client of the package --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(random_segmenter, serving) -> Iterator[str]:
    with serving(Engine({"random": random_segmenter}), token="secret") as address:
        yield address


@pytest.mark.parametrize(
    "words",
    [
        WORDS,
        {"dog": ["ear", "head"], "bus": ("wheel",)},
        ["dog's ear", "dog's head", "bus's wheel"],
        Vocabulary.load(WORDS),
    ],
    ids=["text", "table", "list", "vocabulary"],
)
def test_the_client_asks_as_people_do(address, tmp_path, random_segmenter, words):
    client = Client(address, "secret")
    path = tmp_path / "my photo.png"
    path.write_bytes(PHOTOS[0])
    assert [model["name"] for model in client.models()] == ["random"]
    expected = [segment.name for segment in random_segmenter(PHOTOS[0], WORDS)]
    for photo, name in ((path, "my photo.png"), (PHOTOS[0], "photo")):
        answer = client.segment(photo, words, formats=["json", "yolo"], min_score=0.0)
        assert (answer["photo"], [one["name"] for one in answer["segments"]]) == (name, expected)
        assert "yolo" in answer
    with zipfile.ZipFile(io.BytesIO(client.archive(path, words))) as archive:
        assert {"my photo.coco.json", "my photo.labels.png"} <= set(archive.namelist())
    found = list(client.segment_many([path, b"text"], words))
    assert [line["status"] for line in found] == [200, 422]


@pytest.mark.parametrize(
    ("token", "words", "sentence"),
    [
        ("wrong", WORDS, "this server needs its token"),
        ("secret", "zebra.yaml", "'zebra.yaml' is no catalogue"),
        ("secret", None, "no words are given"),
    ],
)
def test_the_client_raises_the_servers_sentence(address, token, words, sentence):
    with pytest.raises(PartCLIPSegError, match=sentence):
        Client(address, token).segment(PHOTOS[0], words)


def test_the_client_sends_boxes(address, random_segmenter):
    boxes = [{"object": "dog", "box": [0, 0, 40, 40]}]
    answer = Client(address, "secret").segment(PHOTOS[0], WORDS, instances=boxes, objects=["dog"])
    assert {segment["instance"] for segment in answer["segments"]} == {1}


@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (lambda client, folder: client.segment(folder / "no é.jpg", WORDS), PartCLIPSegError, r"é\.jpg cannot be read"),
        (lambda client, folder: client.segment(folder, WORDS), PartCLIPSegError, "cannot be read or written"),
        (lambda client, folder: list(client.segment_many("a.jpg", WORDS)), UsageError, "takes a list of photos"),
        (lambda client, folder: list(client.segment_many(b"photo", WORDS)), UsageError, "takes a list of photos"),
        (lambda client, folder: client.segment(b"", {"dog": "ear"}), UsageError, "must be a list of words, not 'ear'"),
        (lambda client, folder: client.start_job(".", ["dog's ear", "dog's ear"]), UsageError, "twice"),
        (lambda client, folder: client.segment("a\0.jpg", WORDS), PartCLIPSegError, "a photo holds a NUL"),
        (lambda client, folder: list(client.segment_many(["a\0.jpg"], WORDS)), PartCLIPSegError, "a photo holds a NUL"),
        (lambda client, folder: client.job(""), UsageError, "name of a job is empty"),
        (lambda client, folder: client.stop_job(""), UsageError, "name of a job is empty"),
    ],
)
def test_what_the_client_cannot_send_is_a_sentence(call, kind, sentence, tmp_path):
    with pytest.raises(kind, match=sentence):
        call(Client("a:1"), tmp_path)


@pytest.mark.parametrize("given", ["http://127.0.0.1:9/", "127.0.0.1:9", "http://127.0.0.1:9/?token=secret"])
def test_the_client_says_that_there_is_no_server(given):
    with pytest.raises(PartCLIPSegError, match=r"^no answer from http://127\.0\.0\.1:9: is the server running there"):
        Client(given).models()


@pytest.mark.parametrize("given", ["", "http://", "http://[::1", "/v1"])
def test_the_client_says_what_is_no_address(given):
    with pytest.raises(UsageError, match=rf"^'{re.escape(given)}' is no address: write it as the server has printed"):
        Client(given)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"token": "日本"}, "a token is one word of ASCII letters"),
        ({"token": "naïve"}, "a token is one word of ASCII letters"),
        ({"token": "two words"}, "a token is one word of ASCII letters"),
        ({"token": "two\r\nX-Lines: 1"}, "a token is one word of ASCII letters"),
        ({"timeout": 0}, "timeout is 0: give a number of seconds above 0"),
        ({"timeout": -1.5}, r"timeout is -1\.5: give"),
        ({"timeout": float("nan")}, "timeout is nan: give"),
    ],
)
def test_the_client_says_what_it_cannot_be_made_with(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        Client("a:1", **options)


def test_a_token_may_come_from_a_file_and_no_photos_have_no_answers(address):
    client = Client(address, "secret\n")
    assert client.models()
    assert list(client.segment_many([], WORDS)) == []


def test_the_client_takes_the_address_that_was_printed(address):
    assert Client(f"{address}/?token=secret").models() == Client(address, "secret").models()


@pytest.mark.parametrize(
    ("ask", "sent"),
    [
        (lambda client, _: client.models(), b""),
        (lambda client, folder: client.segment(folder / "photo.png", WORDS), PHOTOS[0]),
    ],
)
def test_the_client_asks_again_where_the_server_closes_an_idle_connection(ask, sent, tmp_path):
    """At the moment of the request, which is then lost; it is sent whole by another connection."""
    (tmp_path / "photo.png").write_bytes(PHOTOS[0])
    bodies = []

    class Closing(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        answered = 0

        def do_GET(self):
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answered += 1
            if self.answered == 2:
                self.close_connection = True
                return
            bodies.append(content)
            self.send_response(200)
            self.send_header("Content-Length", "14")
            self.end_headers()
            self.wfile.write(b'{"models": []}')

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Closing) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        client = Client(f"127.0.0.1:{server.server_port}")
        client.models()
        ask(client, tmp_path)
        server.shutdown()
    assert len(bodies) == 2
    assert sent in bodies[1]


SLOW = r"^no answer from http://a:1 within 0\.5 seconds: raise timeout, or ask for less$"


def test_the_client_tells_a_slow_server_from_none(monkeypatch):
    def wait(*args, **kwargs):
        raise requests.ReadTimeout

    monkeypatch.setattr(requests.Session, "request", wait)
    with pytest.raises(PartCLIPSegError, match=SLOW):
        Client("a:1", timeout=0.5).models()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ReadTimeoutError(Mock(), "/v1/batch", "Read timed out."), SLOW),
        (ProtocolError("Connection broken"), r"^no answer from http://a:1: is the server running there\?$"),
    ],
)
def test_the_client_says_that_the_rest_of_an_answer_did_not_come(monkeypatch, error, sentence):
    """The connection fails after the first line."""

    def stream(*args, **kwargs):
        yield b'{"status": 200}\n'
        raise error

    answer = requests.Response()
    answer.status_code, answer.raw = 200, Mock(stream=stream)
    monkeypatch.setattr(requests.Session, "request", lambda *args, **kwargs: answer)
    lines = Client("a:1", timeout=0.5).segment_many([b""], "dog: head")
    assert next(lines) == {"status": 200}
    with pytest.raises(PartCLIPSegError, match=sentence):
        next(lines)
