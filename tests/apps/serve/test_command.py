"""`partclipseg serve` as people start it: a process, its address, its end."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from partclipseg.apps.cli import main
from partclipseg.apps.serve.command import addresses, create_app

pytest.importorskip("fastapi")

from fastapi import FastAPI
from starlette.testclient import TestClient
from tests.apps.serve.api_requests import picture, post

from partclipseg.apps.serve.api import create_api
from partclipseg.apps.serve.engine import Engine, Limits, PhotoTask, worker_devices
from partclipseg.apps.serve.question import SegmentRequest

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = (REPOSITORY / "docs" / "serve.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    return tmp_path


def example(language: str, address: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    assert len(found) == 1
    assert "http://127.0.0.1:7860/" in found[0]
    return found[0].replace("http://127.0.0.1:7860/", address)


@pytest.mark.slow
def test_the_python_example_runs(served, folder, capsys):
    exec(compile(example("python", served), "serve.md", "exec"), {})
    assert re.search(r"^(dog's (ear|tail)|bus's wheel) 0\.\d+ \[\d+, \d+, \d+, \d+\]$", capsys.readouterr().out, re.M)
    assert Image.open(folder / "labels.png").size == (48, 40)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("bash"), reason="needs curl and bash")
def test_the_curl_example_runs(served, folder):
    done = subprocess.run(["bash", "-ec", example("bash", served)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["photo"] == "photo.jpg"
    with zipfile.ZipFile(folder / "parts.zip") as archive:
        assert sorted(archive.namelist()) == ["photo.coco.json", "photo.overlay.png"]


def test_the_answer_shown_has_the_fields_of_one(make_engine, folder):
    [block] = re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)
    shown = json.loads(block)
    files = {"photo": ("scene.png", (folder / "photo.jpg").read_bytes())}
    answer = TestClient(create_api(make_engine())).post("/v1/segment", files=files, data={"vocabulary": "dog: ear"})
    assert list(shown) == list(answer.json())
    for segment in [*shown["segments"], *shown["objects"]]:
        assert list(segment) == list(answer.json()["segments"][0])
    assert set(SegmentRequest.model_fields) <= set(re.findall(r"^\| `(\w+)` \|", PAGE, re.M))


@pytest.mark.slow
def test_the_page_and_its_own_requests_ask_for_the_token(server, model_directory):
    with (
        server("--model", model_directory, PARTCLIPSEG_TOKEN="secret") as (address, _),
        httpx.Client(follow_redirects=True, trust_env=False, timeout=60) as client,
    ):
        assert address.endswith("?token=secret")
        base = address.partition("?")[0]
        assert [client.get(base + path).status_code for path in ("", "main.js", "v1/models")] == [401, 401, 401]
        assert client.get(base + "healthz").status_code == 200
        page = client.get(address)
        assert page.status_code == 200
        assert "secret" not in str(page.url)
        assert client.get(base + "main.js").status_code == 200  # by its cookie


@pytest.mark.slow
def test_on_this_machine_alone_it_answers_to_no_other_name(served):
    with httpx.Client(trust_env=False, timeout=60) as client:
        assert [client.get(served, headers={"Host": host}).status_code for host in ("localhost", "a.b")] == [200, 403]


@pytest.mark.slow
def test_behind_a_proxy_of_this_machine_clients_are_those_that_it_names(server, model_directory):
    with server("--model", model_directory, "--rate", "1") as (address, _):
        # The last address is the proxy's own word.
        asked = ("203.0.113.1", "203.0.113.1", "198.51.100.7, 203.0.113.1", "203.0.113.2")
        headers = [{"X-Forwarded-For": clients} for clients in asked]
        codes = [httpx.post(f"{address}v1/segment", headers=one, timeout=60).status_code for one in headers]
    assert codes == [415, 429, 429, 415]


@pytest.mark.slow
def test_stopping_finishes_what_is_running(server, model_directory, folder):
    boundary = b"x"
    body = (
        b'--x\r\nContent-Disposition: form-data; name="vocabulary"\r\n\r\ndog: ear\r\n'
        b'--x\r\nContent-Disposition: form-data; name="photo"; filename="photo.jpg"\r\n\r\n'
        + (folder / "photo.jpg").read_bytes()
        + b"\r\n--x--\r\n"
    )
    head = (
        b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary="
        + boundary
        + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with server("--model", model_directory) as (address, process):
        port = httpx.URL(address).port
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.settimeout(60)
            connection.sendall(head + body[:100])
            httpx.get(address + "healthz", trust_env=False, timeout=60)  # answered after the head above has been read
            process.send_signal(signal.SIGTERM)
            for _ in range(1000):  # until the door is closed
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=60).close()
                    time.sleep(0.05)
                except ConnectionRefusedError:
                    break
            else:
                pytest.fail("the server still takes connections")
            connection.sendall(body[100:])
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"dog's ear" in answer
        assert process.wait() in {0, -signal.SIGTERM}


@pytest.mark.slow
def test_stopping_waits_no_longer_than_the_timeout(server, model_directory):
    head = (
        b"POST /v1/explain HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: 1000\r\n\r\n--x"
    )
    with server("--model", model_directory, "--timeout", "1") as (address, process):
        with socket.create_connection(("127.0.0.1", httpx.URL(address).port)) as connection:
            connection.settimeout(60)
            connection.sendall(head)  # and nothing more
            httpx.get(address + "healthz", trust_env=False, timeout=60)  # answered after the head above has been read
            process.send_signal(signal.SIGTERM)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        # The upload is given up after the timeout, either for the stop or for its own slowness.
        stopped = answer.startswith(b"HTTP/1.1 503") and b"the server has stopped" in answer
        assert stopped or (answer.startswith(b"HTTP/1.1 504") and b"not done within 1 second:" in answer)
        assert process.wait() in {0, -signal.SIGTERM}
        assert "Traceback" not in process.output.read()


@pytest.mark.slow
def test_many_clients_and_a_full_queue(model_directory, server, monkeypatch, capsys):
    """The load benchmark, smaller: nothing is lost or breaks, memory stays, refusals come at once."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    benchmark = importlib.import_module("serve")

    @contextmanager
    def started(*options: str) -> Iterator[tuple[str, int]]:
        """Start a server as the benchmark does, in a process that has imported everything."""
        with server(*options) as (address, process):
            yield address, process.pid

    monkeypatch.setattr(benchmark, "started", started)
    benchmark.main(["--model", str(model_directory), "--requests", "24", "--clients", "8", "--rounds", "3"])
    report = json.loads(capsys.readouterr().out)
    [load] = report["load"].values()
    assert (load["answers"], load["lost"]) == ({"200": 72}, 0)
    memory = load["memory_mb"]
    # The first round fills pools and arenas. Of the 48 requests after it, each has 1.6 MB of photo and maps.
    assert memory[-1] - memory[1] < 50
    assert set(report["full_queue"]["answers"]) == {"200", "503"}
    assert report["full_queue"]["refusal_seconds"]["median"] < 2  # of clients that compete with the model for the cores


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", ["http://127.0.0.1:80/"]),
        ("::1", ["http://[::1]:80/"]),
        ("parts.example", ["http://parts.example:80/"]),
        ("0.0.0.0", ["http://workshop:80/", "http://127.0.0.1:80/"]),
        ("::", ["http://workshop:80/", "http://[::1]:80/"]),
    ],
)
def test_addresses_can_be_opened(monkeypatch, host, expected):
    monkeypatch.setattr("socket.gethostname", lambda: "workshop")
    assert addresses(host, 80) == expected
    assert addresses(host, 80, "secret") == [f"{address}?token=secret" for address in expected]
    assert addresses(host, 80, "a&b#c+d%") == [f"{address}?token=a%26b%23c%2Bd%25" for address in expected]


@pytest.fixture
def started(model_directory, monkeypatch):
    """Start the command with options; returns its engine. Nothing is served."""

    def start(*options: str):
        engines = []
        monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: [one.close() for one in sockets])
        monkeypatch.setattr(
            "partclipseg.apps.serve.command.create_app", lambda engine, *_, **__: engines.append(engine) or FastAPI()
        )
        given = [one.format(model=model_directory) for one in options]
        assert main(["serve", "--port", "0", "--device", "cpu", *given]) == 0
        return engines[0]

    return start


@pytest.mark.parametrize("models", [[], ["partshapes"], ["{model}"], ["{model}", "partshapes"]])
def test_the_built_in_model_is_said_to_know_no_photos(started, capsys, models):
    engine = started(*(["--model", *models] if models else []))
    there = not models or "partshapes" in models
    assert ("the built-in model knows rendered scenes only" in capsys.readouterr().out) == there
    assert engine.built_in == ("partshapes" if there else None)


@pytest.mark.parametrize(
    ("options", "has_one", "said"),
    [
        ([], True, False),  # the line about the built-in model says it
        (["--instance-threshold", "0.7"], True, False),
        (["--model", "{model}"], False, False),
        (["--model", "{model}", "--detector", "partshapes-detector"], True, True),
    ],
)
def test_the_built_in_detector(started, capsys, options, has_one, said):
    engine = started(*options)
    assert (engine.detector is not None) == has_one
    assert "--instance-threshold" not in options or engine.detector.threshold == 0.7
    line = "the built-in detector knows rendered scenes only; for photos name another with --detector"
    assert (line in capsys.readouterr().out) == said


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--port", "70000"], 2, "--port must lie in 0..65535"),
        (["--queue", "0"], 2, "--queue must be greater than 0"),
        (["--rate", "-1"], 2, "--rate must be at least 0"),
        (["--workers", "0"], 2, "--workers must be at least 1"),
        (["--max-photos", "0"], 2, "--max-photos must be greater than 0"),
        (["--model", "{model}", "--instance-threshold", "0.5"], 2, "--instance-threshold is for a detector"),
        (["--model", "{model}", "--device", "toaster"], 2, "no device 'toaster'"),
        (["--model", "nowhere/at/all"], 1, "nowhere/at/all"),
        (["--model", "{model}", "{model}"], 2, "named twice"),
        (["--model", "{model}", "--port", "{taken}"], 1, "choose another --port"),
        (["--model", "{model}", "--host", "192.0.2.1"], 1, "give an address of this machine as --host"),
        (["--model", "{model}", "--host", "no host"], 1, "give an address of this machine as --host"),
        *((["--token", token], 2, "the token must be one word") for token in ("", " ", "a b", "schlüssel", "a\tb")),
    ],
)
def test_errors(model_directory, capsys, options, code, words):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        values = {"model": model_directory, "taken": taken.getsockname()[1]}
        assert main(["serve", *(option.format(**values) for option in options)]) == code
    assert words in "".join(capsys.readouterr()).replace("\n", " ")


@pytest.mark.parametrize(
    ("device", "gpus", "workers", "expected"),
    [
        (None, 0, 2, [None, None]),
        (None, 2, 1, [None]),
        (None, 2, 3, ["cuda:0", "cuda:1", "cuda:0"]),
        ("cuda", 4, 2, ["cuda:0", "cuda:1"]),
        ("cuda:1", 4, 2, ["cuda:1", "cuda:1"]),
        ("cpu", 4, 2, ["cpu", "cpu"]),
    ],
)
def test_workers_take_the_gpus_in_turn(monkeypatch, device, gpus, workers, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert worker_devices(device, workers) == expected


def test_two_workers_answer_as_one(model_directory, monkeypatch):
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    engine = Engine.load([str(model_directory)], "cpu", None, Limits(), workers=2)
    photos = [picture(30 + number, 40, number) for number in range(6)]
    try:
        words = engine.vocabulary("dog: ear; bus: wheel", engine.model_name(None))
        tasks = [PhotoTask(engine.model_name(None), words, None) for _ in photos]
        futures = [engine.submit(task, engine.read_photo(one)) for task, one in zip(tasks, photos, strict=True)]
        for future, photo in zip(futures, photos, strict=True):
            alone = engine.segmenters[engine.model_name(None)](photo, words)
            assert np.array_equal(future.result(60).label_map, alone.label_map)
        # Rates and metrics are those of the server, not of a worker.
        client = TestClient(create_app(engine, rate=2))
        assert [post(client, photos[0], vocabulary="dog: ear").status_code for _ in range(3)] == [200, 200, 429]
        assert "partclipseg_batch_photos_sum 8.0" in client.get("/metrics").text
    finally:
        engine.close()
    assert len(engine.others) == 1


def test_without_its_packages_it_names_them(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert 'pip install ".[serve]" in the folder of this repository' in said


def test_importing_the_package_leaves_the_servers_packages_alone():
    code = "import sys, partclipseg.apps.cli, partclipseg; sys.exit(bool({'uvicorn', 'fastapi'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
