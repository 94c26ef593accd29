"""Connections of a started server: slow ones are closed, and too many make room for those who have something to ask."""

from __future__ import annotations

import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi")

from partclipseg.apps.cli import main
from partclipseg.apps.serve.connections import ConnectionLimits, allow_files
from partclipseg.errors import UsageError

HALF_HEAD = b"GET /v1/models HTTP/1.1\r\nHost: local"
HALF_BODY = (
    b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 90000\r\n\r\n{"
)


PATIENCE = 60
"""Seconds after which the tests give up; the server whose limits are tested answers at once, or never."""

OPTIONS = ("--connections", "60", "--connections-per-address", "40", "--token", "secret")


@pytest.fixture(scope="module")
def address(server: Callable, model_directory: Path) -> Iterator[str]:
    """A server that waits a second for a request."""
    with server("--model", model_directory, *OPTIONS, "--idle-timeout", "1") as (address, _):
        yield address.partition("?")[0]


@pytest.fixture(scope="module")
def waiting(server: Callable, model_directory: Path) -> Iterator[str]:
    """A server that waits for requests longer than a test does."""
    with server("--model", model_directory, *OPTIONS, "--idle-timeout", "1000") as (address, _):
        yield address.partition("?")[0]


def opened(stack: ExitStack, address: str, sent: bytes) -> socket.socket:
    place = ("127.0.0.1", httpx.URL(address).port)
    connection = stack.enter_context(socket.create_connection(place, timeout=PATIENCE))
    connection.sendall(sent)
    return connection


def assert_well(address: str) -> None:
    assert httpx.get(f"{address}healthz", trust_env=False, timeout=PATIENCE).text == "ok"


def all_of(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while piece := connection.recv(65536):
            answer += piece
    except ConnectionResetError:
        pass
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", HALF_HEAD, HALF_BODY], ids=["nothing", "half a head", "half a body"])
def test_many_that_never_finish_keep_nobody_out(waiting, sent):
    with ExitStack() as stack:
        connections = []
        for number in range(150):
            connections.append(opened(stack, waiting, sent))
            if number % 30 == 29:
                assert_well(waiting)
        while len(connections) > 40:  # the others were closed to make room
            ready, _, _ = select.select(connections, [], [], PATIENCE)
            assert ready, f"{len(connections)} are open"
            for connection in ready:
                all_of(connection)
                connections.remove(connection)
    assert_well(waiting)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "answer"), [(b"", b""), (HALF_HEAD, b""), (HALF_BODY, b"HTTP/1.1 408 ")], ids=["nothing", "head", "body"]
)
def test_a_request_that_does_not_come_is_not_waited_for(address, sent, answer):
    with ExitStack() as stack:
        start = time.perf_counter()
        said = all_of(opened(stack, address, sent))
        assert said.startswith(answer)
        assert (said == b"") == (answer == b"")
        assert not answer or b"the body of the request came too slowly" in said
        assert time.perf_counter() - start > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "more"),
    [
        (HALF_HEAD, b"x"),
        (HALF_BODY, b"x"),
        (b"", b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n\r\n" * 100),
    ],
    ids=["head", "body", "answers that are not read"],
)
def test_a_little_now_and_then_is_not_enough(address, sent, more):
    with ExitStack() as stack:
        connection = opened(stack, address, sent)
        connection.settimeout(0.1)
        start = time.perf_counter()
        while time.perf_counter() - start < PATIENCE:
            try:
                connection.send(more)
            except TimeoutError:
                continue
            except OSError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("the connection is still open")


@pytest.mark.slow
def test_a_slow_but_steady_body_is_read(address):
    """The limit is on the speed, not on the whole."""
    with ExitStack() as stack:
        body = b'{"photo": "%s"}' % (b"A" * 60_000)
        head = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\nConnection: close\r\n"
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection = opened(stack, address, head)
        for start in range(0, len(body), 4000):  # far more than the limit, should the pauses become longer
            time.sleep(0.15)
            connection.sendall(body[start : start + 4000])
        answer = all_of(connection)
        assert answer.startswith(b"HTTP/1.1 422 ")
        assert b"no words are given" in answer


@pytest.mark.slow
def test_a_request_to_upgrade_is_answered_as_any_other_and_says_nothing(server, model_directory):
    """Uvicorn would advise whoever started the server to install a library."""
    with server("--model", model_directory) as (address, process), ExitStack() as stack:
        for kind in (b"websocket", b"h2c", b"WebSocket"):
            head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: %s\r\n" % kind
            key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            assert all_of(opened(stack, address, head + key)).startswith(b"HTTP/1.1 200 ")
        process.send_signal(signal.SIGINT)
        process.wait(60)
        assert process.output.read() == ""


def test_the_limits_are_those_that_the_command_names(monkeypatch):
    seen = []

    def noted(limits: ConnectionLimits) -> int:
        seen.append(limits)
        raise UsageError("that is enough")

    monkeypatch.setattr("partclipseg.apps.serve.connections.allow_files", noted)
    assert main(["serve", "--connections", "7", "--connections-per-address", "5", "--idle-timeout", "3"]) == 2
    assert seen == [ConnectionLimits(connections=7, connections_per_address=5, idle_timeout=3)]


@pytest.mark.parametrize("number", [0, -1])
@pytest.mark.parametrize("name", ["connections", "connections_per_address", "idle_timeout"])
def test_limits_must_be_positive(name, number):
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} must be greater than 0"):
        ConnectionLimits(**{name: number})


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "backlog"),
    [(1024, 4096, 2760, 2048), (500, 1000, 1000, 288), (1024, -1, 2760, 2048), (20_000, 20_000, None, 2048)],
)
def test_the_process_may_open_a_file_for_each_connection(monkeypatch, soft, hard, raised, backlog):
    resource = pytest.importorskip("resource")
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert allow_files(ConnectionLimits()) == backlog
    assert asked == ([(raised, hard)] if raised else [])


def test_too_few_files_are_a_sentence(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 700))
    with pytest.raises(UsageError, match="--connections 512 needs 776 open files, and the system allows 700: take few"):
        allow_files(ConnectionLimits())
