"""Options of `partclipseg serve` from a file and from the environment, and its log."""

from __future__ import annotations

import json

import pytest

from partclipseg.apps.cli import main

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from partclipseg.apps.serve.command import Serve


@pytest.fixture
def started(monkeypatch, model_directory) -> list:
    """Options of each server that would be started; the model is the small one."""
    seen = []
    monkeypatch.setattr(Serve, "run", lambda self: seen.append(self) or 0)
    return seen


def test_the_command_line_comes_first_then_the_environment_then_the_file(started, tmp_path, monkeypatch):
    path = tmp_path / "serve.yaml"
    models = "[partshapes, clipseg]"
    path.write_text(f"port: 1000\nmax_bytes: 1000\nmax-classes: 1000\nmodel: {models}\ntimeout: 1.5\ntoken:\n")
    monkeypatch.setenv("PARTCLIPSEG_SERVE_PORT", "2000")
    monkeypatch.setenv("PARTCLIPSEG_SERVE_MAX_BYTES", "2000")
    assert main(["serve", "--config", str(path), "--port=3000"]) == 0
    [options] = started
    assert (options.port, options.max_bytes, options.max_classes) == (3000, 2000, 1000)
    assert (options.model, options.timeout, options.token) == (("partshapes", "clipseg"), 1.5, None)


def test_the_environment_alone(started, tmp_path, monkeypatch):
    path = tmp_path / "serve.yaml"
    path.write_text("port: 1000")
    monkeypatch.setenv("PARTCLIPSEG_SERVE_CONFIG", str(path))
    monkeypatch.setenv("PARTCLIPSEG_SERVE_MODEL", "partshapes clipseg")
    assert main(["serve"]) == 0
    assert main(["serve", "--model", "clipseg"]) == 0
    found = [(options.port, options.model) for options in started]
    assert found == [(1000, ("partshapes", "clipseg")), (1000, ("clipseg",))]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("prot: 8080", "sets 'prot', which is no option of serve: the options are"),
        ("config: other.yaml", "sets 'config', which is no option of serve"),
        ("- port", "must have a line such as 'port: 8080' for each option"),
        ("port: {a: 1}", "sets port to {'a': 1}: write a number"),
        ("port: yes", "sets port to True: write a number"),
        ("port: [", "serve.yaml is not valid YAML"),
        ("port: 1\nport: 2", "has the key 'port' twice"),
        (None, "serve.yaml is missing: check the path"),
    ],
)
def test_wrong_files_are_sentences(started, tmp_path, capsys, content, sentence):
    path = tmp_path / "serve.yaml"
    if content is not None:
        path.write_text(content)
    assert main(["serve", "--config", str(path)]) == 2
    assert not started
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_wrong_variables_are_sentences(started, monkeypatch, capsys):
    monkeypatch.setenv("PARTCLIPSEG_SERVE_PROT", "8080")
    assert main(["serve"]) == 2
    assert "the environment sets 'prot', which is no option" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("level", ["warning", "info"])
def test_requests_are_logged_at_level_info(model_directory, monkeypatch, caplog, level):
    def run(self, sockets) -> None:
        TestClient(self.config.app, base_url="http://localhost").get("/healthz")
        for one in sockets:
            one.close()

    monkeypatch.setattr("uvicorn.Server.run", run)
    arguments = ["--port", "0", "--device", "cpu", "--model", str(model_directory), "--log-level", level]
    assert main(["serve", *arguments]) == 0
    lines = [json.loads(record.message) for record in caplog.records if record.name == "partclipseg.serve"]
    assert [line["path"] for line in lines] == ["/healthz"] * (level == "info")
