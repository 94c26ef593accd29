"""The files of the page of `partclipseg serve`, and what its server answers beside them."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

import partclipseg
from partclipseg.apps.serve.command import create_app
from partclipseg.shapes.renderer import render_scene
from partclipseg.vocabulary import CATALOGS, Vocabulary

STATIC = Path(partclipseg.__file__).parent / "apps" / "serve" / "static"
FILES = sorted(path.name for path in STATIC.iterdir() if path.suffix in {".js", ".css", ".svg"})


@pytest.fixture
def client(make_engine) -> TestClient:
    return TestClient(create_app(make_engine()), raise_server_exceptions=False)


@pytest.mark.parametrize("name", ["", *FILES])
def test_every_file_is_answered_whole_small_and_only_once(client, name):
    content = (STATIC / (name or "index.html")).read_bytes()
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "": "text/html"}
    plain = client.get(f"/{name}", headers={"Accept-Encoding": "identity"})
    assert plain.content == content
    assert plain.headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
    assert plain.headers["x-content-type-options"] == "nosniff"
    with client.stream("GET", f"/{name}") as packed:
        sent = b"".join(packed.iter_raw())
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(sent) == content
    again = client.get(f"/{name}", headers={"If-None-Match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head(f"/{name}").status_code == 200


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        *[("gzip", "gzip"), ("GZIP", "gzip"), ("br;q=1, gzip;q=0.8", "gzip")],
        *[("gzip;q=0", None), ("gzippy", None), ("", None)],
    ],
)
def test_files_are_packed_for_those_who_take_it(client, accept, encoding):
    assert client.get("/main.js", headers={"Accept-Encoding": accept}).headers.get("content-encoding") == encoding


def test_all_that_the_page_names_is_there():
    """Addresses are relative, so that the page works below a path of a proxy."""
    page = (STATIC / "index.html").read_text()
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page))
    for name in FILES:
        named |= set(re.findall(r'from "\./([^"]+)"', (STATIC / name).read_text()))
    assert named == set(FILES)


def test_the_policy_allows_nothing_from_elsewhere_and_no_scripts_in_the_page(client):
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=)", page)
    for name in FILES:
        script = (STATIC / name).read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", script)


@pytest.mark.parametrize(
    ("method", "path", "code", "sentence"),
    [
        ("GET", "/nothing", 404, "there is nothing at /nothing"),
        ("POST", "/nothing", 404, "there is nothing at /nothing"),
        ("GET", "/static/main.js", 404, "there is nothing at /static/main.js"),
        ("GET", "/tsconfig.json", 404, "there is nothing at /tsconfig.json"),
        ("GET", "/../page.py", 404, "there is nothing at "),
        ("GET", "/..%2fpage.py", 404, "there is nothing at /../page.py"),
        ("GET", "/%2e%2e/%2e%2e/command.py", 404, "there is nothing at "),
        ("GET", "/..%5cpage.py", 404, "there is nothing at "),
        ("GET", "//etc/passwd", 404, "there is nothing at "),
        ("GET", "/main.js%00.html", 404, "there is nothing at "),
        ("GET", "/v1/examples/..%2f..%2fpage.py", 404, "there is nothing at "),
        ("GET", "/v1/examples/scene-9.jpg", 404, "there is nothing at /v1/examples/scene-9.jpg"),
        ("GET", "/gradio_api/file=/etc/passwd", 404, "there is nothing at "),
        ("GET", "/v1/models/", 404, "there is nothing at /v1/models/"),
        ("GET", "/v1/examples/", 404, "there is nothing at /v1/examples/"),
        ("POST", "/v1/segment/", 404, "there is nothing at /v1/segment/"),
        ("GET", "/main.js/", 404, "there is nothing at /main.js/"),
        ("GET", "/healthz//", 404, "there is nothing at /healthz//"),
        ("GET", "/" + "x" * 5000, 404, "there is nothing at /xxx"),
        ("POST", "/", 405, "/ takes GET, not POST"),
        ("PUT", "/main.js", 405, "/main.js takes GET, not PUT"),
    ],
)
def test_there_is_nothing_else(client, method, path, code, sentence):
    answer = client.request(method, path, follow_redirects=False, content=b"x" * 100_000 if method != "GET" else None)
    assert answer.status_code == code
    assert answer.json()["detail"].startswith(sentence)
    assert len(answer.content) < 700


def test_examples_come_with_words_of_what_they_show(client):
    examples = client.get("/v1/examples").json()["examples"]
    assert len(examples) == 4
    members = {member.object for member in render_scene("test", 0, 96).members}
    assert set(Vocabulary.from_dict(examples[0]["vocabulary"]).objects) == members
    picture = client.get(f"/v1/examples/{examples[0]['name']}")
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content.startswith(b"\xff\xd8")


def test_examples_are_rendered_once_for_all_who_ask_at_once(client, monkeypatch):
    rendered = []

    def slow(*arguments):
        rendered.append(arguments)
        time.sleep(0.02)
        return render_scene(*arguments)

    monkeypatch.setattr("partclipseg.shapes.renderer.render_scene", slow)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(client.get, ["/v1/examples"] * 4))
    assert len({answer.text for answer in answers}) == 1
    assert len(rendered) == 4


def test_catalogues_are_listed_with_their_words(client):
    found = {one["name"]: one for one in client.get("/v1/catalogs").json()["catalogs"]}
    assert list(found) == list(CATALOGS)
    for name, one in found.items():
        assert Vocabulary.from_dict(one["vocabulary"]).names == Vocabulary.from_catalog(name).names
        assert one["classes"] == len(Vocabulary.from_catalog(name))


def test_models_say_which_is_built_in(make_engine):
    engine = make_engine("first", "second")
    engine.built_in = "second"
    models = TestClient(create_app(engine)).get("/v1/models").json()["models"]
    assert [(one["name"], one["built_in"]) for one in models] == [("first", False), ("second", True)]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("tsc"), reason="needs TypeScript's tsc")
def test_the_types_of_the_scripts_are_right():
    done = subprocess.run(["tsc", "--project", STATIC], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert json.loads((STATIC / "tsconfig.json").read_text())["compilerOptions"]["strict"]
