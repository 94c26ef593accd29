"""`partclipseg demo` runs without photo, words and network."""

from __future__ import annotations

import socket

import pytest
from PIL import Image

from partclipseg.apps.cli import main


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("the demo must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_demo(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path / "demo"), "--scenes", "1"]) == 0
    pictures = sorted((tmp_path / "demo").iterdir())
    assert [path.name for path in pictures] == ["scene0.prediction.png", "scene0.truth.png"]
    assert all(min(Image.open(path).size) >= 640 for path in pictures)
    output = capsys.readouterr().out
    assert "random weights" in output or "PartShapes only" in output
    assert "of the pixels right" in output


def test_no_scenes(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path / "demo"), "--scenes", "0"]) == 2
    assert "--scenes must be at least 1" in capsys.readouterr().err
