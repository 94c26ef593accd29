"""Fixtures for the tests of `partclipseg serve`: engines and started servers."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.apps.serve.api_requests import picture
from tests.processes import Command


@pytest.fixture(scope="session")
def random_segmenter(model_directory: Path):
    from partclipseg.inference.segmenter import PartSegmenter

    return PartSegmenter.from_pretrained(model_directory, "cpu")


@pytest.fixture
def make_engine(random_segmenter) -> Iterator[Callable]:
    """Makes engines of the random model with the given limits; closes them at the end."""
    pytest.importorskip("fastapi")
    from partclipseg.apps.serve.engine import Engine, Limits
    from partclipseg.inference.segmenter import PartSegmenter

    engines = []

    def make(*names: str, **limits) -> Engine:
        model, tokenizer = random_segmenter.model, random_segmenter.tokenizer
        segmenters = {name: PartSegmenter(model, tokenizer) for name in names or ("random",)}
        engines.append(Engine(segmenters, Limits(**limits)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def photo() -> bytes:
    """A photo of coarse random colours, as a PNG file."""
    return picture()


@pytest.fixture
def engine(make_engine):
    """An engine with small limits."""
    return make_engine(max_bytes=100_000, max_pixels=1_000_000, max_classes=50)


@pytest.fixture
def client(engine):
    """A client of the API of `engine`."""
    from starlette.testclient import TestClient

    from partclipseg.apps.serve.api import create_api

    return TestClient(create_api(engine), raise_server_exceptions=False)


@contextmanager
def started_server(
    *options: object, run: Callable[[list[str]], int] | None = None, **environment: str
) -> Iterator[tuple[str, Command]]:
    """`partclipseg serve` as a process on a free loopback port: its address, as printed, and the process."""
    pytest.importorskip("fastapi")
    process = Command("serve", "--port", "0", *options, run=run, environment=environment)
    try:
        said = ""
        for line in process.output:
            said += line
            if found := re.search(r"open (http://\S+)", line):
                yield found[1], process
                break
        else:
            pytest.fail(f"the server did not start: {said}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except AssertionError:
                process.kill()
                raise


@contextmanager
def running_application(engine, **options) -> Iterator[str]:
    """The application in a thread of this process, at a free port of this machine: its address."""
    import uvicorn

    from partclipseg.apps.serve.command import create_app
    from partclipseg.apps.serve.log import AccessLog

    app = AccessLog(create_app(engine, **{"local": True, **options}))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    [address] = [socket.getsockname() for one in server.servers for socket in one.sockets]
    yield f"http://127.0.0.1:{address[1]}/"
    server.should_exit = True
    thread.join(60)


@pytest.fixture(scope="session")
def serving() -> Callable:
    return running_application


@pytest.fixture(scope="session")
def server() -> Callable:
    return started_server


@pytest.fixture(scope="session")
def served(model_directory: Path) -> Iterator[str]:
    """The address of a server of the random model that all tests share."""
    with started_server("--model", model_directory) as (address, _):
        yield address
