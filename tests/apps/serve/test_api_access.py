"""Who may call the HTTP API: tokens, names of the server, pages of other origins."""

from __future__ import annotations

import pytest
from tests.apps.serve.api_requests import URL, WORDS, post

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from partclipseg.apps.serve.access import COOKIE, protect
from partclipseg.apps.serve.api import create_api


def test_the_right_token_only(make_engine, photo):
    client = TestClient(protect(create_api(make_engine()), "secret"), follow_redirects=False)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}, {"Cookie": f"{COOKIE}=wrong"}):
        for answer in (post(client, photo, headers), client.get("/v1/models", headers=headers)):
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "Authorization: Bearer TOKEN" in answer.json()["detail"]
    assert client.get("/healthz").status_code == 200
    assert client.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
    assert client.get("/?token=wrong", headers={"Accept": "text/html"}).text.startswith("<!doctype html>")
    for accept, page in (("TEXT/HTML", True), ("text/html;q=0", False), ("*/*", False)):
        assert client.get("/", headers={"Accept": accept}).text.startswith("<!doctype html>") == page
    # A browser comes by the address that the server prints, and keeps a cookie.
    welcome = client.get("/v1/models?token=secret&x=1")
    assert (welcome.status_code, welcome.headers["location"]) == (303, "/v1/models?x=1")
    assert "HttpOnly" in welcome.headers["set-cookie"]
    assert client.get("/v1/models").status_code == 200  # the client keeps cookies, as browsers do


def test_the_description_names_the_token_if_there_is_one(make_engine):
    assert "security" not in TestClient(protect(create_api(make_engine()))).get("/openapi.json").text
    client = TestClient(protect(create_api(make_engine()), "secret"), headers={"Authorization": "Bearer secret"})
    description = client.get("/openapi.json").json()
    [(name, scheme)] = description["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert description["security"] == [{name: []}]
    assert description["paths"]["/healthz"]["get"]["security"] == []  # open to all


LOCAL = {"localhost:7860", "LOCALHOST", "127.0.0.1:7860", "127.0.0.1", "[::1]:7860", "127.0.0.2:80"}
ELSEWHERE = {"evil.example:7860", "localhost.evil.example", "10.0.0.1", "[::2]:7860", "[::1", "127.0.0.1@evil.example"}


@pytest.mark.parametrize("host", sorted(LOCAL | ELSEWHERE | {""}))
def test_a_local_server_answers_to_its_own_names_only(make_engine, photo, host):
    """A page elsewhere may let its own name point here, and would then be of the same origin."""
    client = TestClient(protect(create_api(make_engine()), local=True))
    for answer in (client.get("/v1/models", headers={"Host": host}), post(client, photo, {"Host": host})):
        assert (answer.status_code == 403) == (host not in LOCAL)
        assert host in LOCAL or "answers to localhost and 127.0.0.1 only" in answer.json()["detail"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000", "http://[", None, "own"])
def test_a_local_server_refuses_what_pages_elsewhere_send(make_engine, photo, origin):
    client = TestClient(protect(create_api(make_engine()), local=True))
    headers = {"Host": "localhost:7860"} | ({"Origin": origin} if origin else {})
    if origin == "own":
        headers["Origin"] = "http://localhost:7860"
    answer = post(client, photo, headers, vocabulary=WORDS)
    if origin in {None, "own"}:
        assert answer.status_code == 200
    else:
        assert answer.status_code == 403
        assert "another page" in answer.json()["detail"]
    assert client.get("/healthz", headers=headers).status_code == 200


@pytest.mark.parametrize("token", [None, "secret"])
def test_others_may_be_called_by_any_name(make_engine, token):
    """A server for the network, or one behind a proxy, which asks for its token."""
    client = TestClient(protect(create_api(make_engine()), token, local=bool(token)))
    headers = {"Host": "parts.example", "Origin": "https://parts.example", "Authorization": "Bearer secret"}
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_other_methods_ask_for_the_token_too(make_engine):
    client = TestClient(protect(create_api(make_engine()), "secret"))
    for method, path, code in (("GET", URL, 401), ("HEAD", "/v1/models", 401), ("HEAD", "/healthz", 200)):
        assert client.request(method, path).status_code == code
    local = TestClient(protect(create_api(make_engine()), local=True), headers={"Host": "evil.example"})
    for method, path in (("GET", URL), ("HEAD", "/healthz")):
        assert local.request(method, path).status_code == 403
