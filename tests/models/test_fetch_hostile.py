"""Models by name in the hands of clumsy users: odd folders, own catalogues, notes and files of people."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.models.hosts import Hosts

from partclipseg.apps.cli import main
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import expanded
from partclipseg.models.fetch import add, checksum_of, fetch, remove
from partclipseg.models.released import catalogue, find_release, home

NAME = "partclipseg-pascal"
ENTRY = {"method": "partclipseg", "drive": "1", "vocabulary": "dog: ear"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("~nobody-of-this-name/x", "PARTCLIPSEG_HOME is ~nobody-of-this-name/x, .* give the path in full"),
        ("file", "PARTCLIPSEG_HOME names .*file, which is a file: let it name a folder"),
    ],
)
def test_a_home_that_is_none(value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    monkeypatch.setenv("PARTCLIPSEG_HOME", value)
    with pytest.raises(PartCLIPSegError, match=message):
        home()
    assert main(["models"]) == 1
    assert value in capsys.readouterr().err


def test_a_home_of_blanks_is_none_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARTCLIPSEG_HOME", "")
    usual = home()
    monkeypatch.setenv("PARTCLIPSEG_HOME", " ")
    assert home() == usual
    with pytest.raises(PartCLIPSegError, match="data is ~nobody-of-this-name, and this system knows of no such home"):
        expanded("~nobody-of-this-name", "data")
    monkeypatch.delenv("PARTCLIPSEG_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: nobody())
    with pytest.raises(PartCLIPSegError, match="no home folder: let PARTCLIPSEG_HOME name a folder"):
        home()


def nobody() -> Path:
    raise RuntimeError("Could not determine home directory.")


def entry(**changes: Any) -> dict[str, Any]:
    return {"models": {"mine": {**ENTRY, **changes}}}


def named(name: str) -> dict[str, Any]:
    return {"models": {name: ENTRY}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sources": [1], "models": {}}, "'sources' must be a table, with a table for each name"),
        ({"sources": "x", "models": {}}, "'sources' must be a table"),
        ({"sources": None, "models": {}}, "'sources' must be a table"),
        ({"sources": {"own": 7}, "models": {}}, "'sources' must be a table, with a table for each name"),
        ({"data": [1], "models": {}}, "'data' must be a table, with text"),
        ({"modles": {}, "models": {}}, "unknown tables 'modles'"),
        (entry(method=7), "'mine' has 7 as 'method', which must be text"),
        (entry(method=[1]), "as 'method', which must be text"),
        (entry(source=[1]), "as 'source', which must be text"),
        (entry(data={}), "as 'data', which must be text"),
        (entry(data=None), "None as 'data', which must be text"),
        (entry(megabytes="829"), "'829' as 'megabytes', which must be a number"),
        (entry(megabytes=0), "0 as 'megabytes'"),
        (entry(megabytes=-1), "-1 as 'megabytes'"),
        (entry(megabytes=True), "True as 'megabytes'"),
        (entry(megabytes=float("nan")), "nan as 'megabytes'"),
        (entry(megabytes=float("inf")), "inf as 'megabytes'"),
        (entry(drive=None), "None as 'drive'"),
        (entry(drive=7), "7 as 'drive'"),
        (entry(drive=""), "'' as 'drive'"),
        (entry(drive="https://drive.google.com/file/d/abc/view"), "the id of a file alone, which stands after /d/"),
        (entry(hub="a/b"), "needs either 'drive' or 'hub'"),
        ({"models": {"mine": {"hub": 7}}}, "7 as 'hub', which must be owner/model"),
        ({"models": {"mine": {"hub": "../../etc"}}}, "must be owner/model"),
        ({"models": {"mine": {"hub": "https://huggingface.co/a/b"}}}, "must be owner/model, without an address"),
        (entry(vocabulary=7), "7 as 'vocabulary'"),
        (entry(vocabulary=" "), "' ' as 'vocabulary'"),
        (entry(config="x"), "'x' as 'config', which must be a table"),
        (entry(config=None), "None as 'config'"),
        (entry(built_in="no"), "'no' as 'built_in'"),
        ({"models": {"mine": {"built_in": True}}}, "stands for the built-in model partshapes"),
        (named("partshapes"), "stands for the built-in model partshapes"),
        (entry(note=7), "7 as 'note'"),
        (named("x" * 300), "has more than 100 characters"),
        ({"models": {"Mine": ENTRY, "mine": ENTRY}}, "'mine' differs from 'Mine' in capitals alone"),
        (named("PartCLIPSeg-Pascal"), "differs from 'partclipseg-pascal' in capitals alone"),
        *[
            (named(name), "cannot be a folder's name")
            for name in ("", " ", "a\0b", "a\nb", "\ud800", "*", "a?", "--x", " x", "x ", "m.", "a/b", "a:b", ".hidden")
        ],
    ],
)
def test_an_own_catalogue_of_wrong_values(content: Any, message: str, cache: Path):
    (cache / "models.json").write_text(json.dumps(content))
    with pytest.raises(PartCLIPSegError, match=message) as caught:
        catalogue()
    assert "models.json" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.symlink_to("/nowhere/models.json"), "a link that leads nowhere"),
        (lambda path: os.mkfifo(path), "no regular file"),
    ],
)
def test_an_own_catalogue_that_is_no_file(make: Callable[[Path], Any], message: str, cache: Path):
    (cache / "models.json").unlink()
    make(cache / "models.json")
    with pytest.raises(PartCLIPSegError, match=f"your own catalogue .*{message}.*move it away"):
        catalogue()


@pytest.mark.parametrize("name", ["PARTCLIPSEG-PASCAL", "PartCLIPSeg_Pascal", " partclipseg-pascal", f"{NAME}.pth"])
def test_names_in_odd_capitals_find_the_nearest(name: str, cache: Path, capsys: Any):
    assert main(["models", "--fetch", name]) == 2
    assert f"did you mean {NAME}?" in " ".join(capsys.readouterr().err.split())
    assert main(["predict", "photo.jpg", "--vocabulary", "dog: ear", "--model", name]) == 1
    assert f"did you mean {NAME}?" in " ".join(capsys.readouterr().err.split())


def test_a_long_name_is_not_echoed(cache: Path):
    with pytest.raises(UsageError) as caught:
        fetch("x" * 10_000)
    assert len(str(caught.value)) < 300


IN_THE_WAY: dict[str, Callable[[Path, Path], Any]] = {
    "notes": lambda place, other: (place.mkdir(), (place / "notes.txt").write_text("mine")),
    "a folder in it": lambda place, other: (place / "mine").mkdir(parents=True),
    "a file": lambda place, other: place.write_text("mine"),
    "a link to a folder": lambda place, other: ((other / "x").touch(), place.symlink_to(other)),
    "a link to nowhere": lambda place, other: place.symlink_to("/nowhere/model"),
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_is_in_a_models_place_is_kept(name: str, cache: Path, tmp_path: Path):
    place, other = find_release(NAME).directory, tmp_path / "other"
    place.parent.mkdir(parents=True)
    other.mkdir()
    IN_THE_WAY[name](place, other)
    before = contents(place), contents(other)
    for call in (lambda: fetch(NAME), lambda: add(NAME, file_of_right_size(cache))):
        with pytest.raises(PartCLIPSegError, match="is in the way and is no whole model: move it away, or give"):
            call()
        assert (contents(place), contents(other)) == before
    kept = remove(NAME)
    if name == "a folder in it":  # of empty folders nothing is lost
        assert kept is None
    else:
        assert kept is not None
        assert kept == place.with_name(f"{NAME}.kept")
        assert (contents(kept), contents(other)) == before
    assert not os.path.lexists(place)


def contents(place: Path) -> Any:
    if place.is_symlink():
        return str(place.readlink())
    return place.read_text() if place.is_file() else sorted(path.name for path in place.rglob("*"))


def file_of_right_size(cache: Path) -> Path:
    path = cache / "by hand.pth"
    path.write_bytes(b"x" * int(1e6 * (find_release(NAME).megabytes or 0)))
    return path


def test_removal_keeps_what_a_person_made_or_changed(hosts: Hosts, cache: Path):
    place = fetch(NAME)
    (place / "notes.txt").write_text("mine")
    (place / "vocabulary.json").write_text('{"dog": ["nose"]}')
    assert remove(NAME) == place.with_name(f"{NAME}.kept")
    kept = place.with_name(f"{NAME}.kept")
    assert {path.name: path.read_text() for path in kept.iterdir()} == {
        "notes.txt": "mine",
        "vocabulary.json": '{"dog": ["nose"]}',
    }
    assert not find_release(NAME).is_here
    # Another removal has another place, and one of an unchanged model leaves nothing.
    (fetch(NAME) / "notes.txt").write_text("more")
    assert remove(NAME) == place.with_name(f"{NAME}.kept-2")
    # Notes of an earlier version have no digests: files are known by their names.
    origin = fetch(NAME) / "origin.json"
    notes = json.loads(origin.read_text())
    origin.write_text(json.dumps({key: value for key, value in notes.items() if key != "files"}))
    (place / "mine.txt").touch()
    assert remove(NAME) == place.with_name(f"{NAME}.kept-3")
    assert [path.name for path in place.with_name(f"{NAME}.kept-3").iterdir()] == ["mine.txt"]
    assert fetch(NAME) == place
    assert remove(NAME) is None
    assert not place.exists()
    # Damaged notes of the checksum are told before anything is fetched.
    release = find_release(NAME)
    digest, asked = release.checksum.read_bytes(), len(hosts.asked)
    for content in (b"\xff\xfe\0", b"", b"hello", digest[:30], b"\xef\xbb\xbf" + digest):
        release.checksum.write_bytes(content)
        with pytest.raises(PartCLIPSegError, match=r"sha256 is damaged, it holds no SHA-256: delete it"):
            fetch(NAME)
    assert len(hosts.asked) == asked
    release.checksum.write_bytes(digest.upper())
    assert checksum_of(release) == digest.decode().strip()
    release.download.mkdir()
    with pytest.raises(PartCLIPSegError, match=r"files/.*\.pth .*a folder stands where a file should be"):
        fetch(NAME)
    release.download.rmdir()
    # Wishes that cannot be fulfilled.
    fetch(NAME)
    for call, message in {
        (f"{NAME}", "--keep-original"): "is here already, and nothing is fetched: give `partclipseg models --remove",
        (f"{NAME}", "--accept-changed"): "is here already, and nothing is fetched: give `partclipseg models --remove",
        ("partshapes", "--keep-original"): "has no .pth file to keep",
        ("clipseg", "--keep-original"): "has no .pth file to keep",
    }.items():
        with pytest.raises(UsageError, match=message):
            fetch(call[0], call[1] == "--keep-original", call[1] == "--accept-changed")
