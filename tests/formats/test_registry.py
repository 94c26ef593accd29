"""Formats by name: a format that a test defines goes wherever formats go, and what each room may import."""

from __future__ import annotations

import ast
import io
import json
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import partclipseg
from partclipseg.apps.cli import main
from partclipseg.errors import UsageError
from partclipseg.formats.archive import zip_archive
from partclipseg.formats.format import Format
from partclipseg.formats.registry import FORMATS, all_formats, data_set_formats, single_formats
from partclipseg.inference.result import PartResult
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.load("dog: ear, head; bus: wheel")


def counts(text: bytes | str) -> list[list[str]]:
    return [line.split("\t") for line in (text if isinstance(text, str) else text.decode()).splitlines()]


@pytest.fixture
def toy(monkeypatch):
    """A table of pixels, defined here and named in `FORMATS` alone."""

    def make(photo, place):
        return "".join(f"{segment.name}\t{segment.area}\n" for segment in photo.segments)

    def collect(data_set):
        yield "table/all.tsv", (f"{record['photo']}\t{len(record['segments'])}\n" for _, record in data_set.records)

    kind = Format(
        name="table", help="pixels of each part, for spreadsheets", suffix=".table.tsv", make=make, folder="table",
        collect=collect,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "a_format_of_a_test", SimpleNamespace(FORMAT=kind))
    monkeypatch.setitem(FORMATS, "table", "a_format_of_a_test:FORMAT")


@pytest.fixture
def result() -> PartResult:
    labels = np.array([[0, 0, -1], [2, -1, -1]])
    objects = np.array([*WORDS.class_to_object, -1])[labels]
    return PartResult.from_maps(labels, objects, np.full((2, 3), 0.5), WORDS, name="album/a.jpg")


@pytest.fixture
def album(tmp_path) -> Path:
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8))
    (tmp_path / "album").mkdir()
    colours.resize((40, 30)).save(tmp_path / "album/a.png")
    return tmp_path / "album"


EXPECTED = [["dog's ear", "2"], ["bus's wheel", "1"]]


def test_a_new_format_is_saved_and_zipped(toy, result, tmp_path):
    (path,) = result.save(tmp_path, formats=["table"])
    assert path.name == "a.table.tsv"
    assert counts(path.read_text()) == counts(result.content("table")) == EXPECTED
    archive = zipfile.ZipFile(io.BytesIO(zip_archive(result.files())))
    assert counts(archive.read("a.table.tsv")) == EXPECTED
    single = [f"a{kind.suffix}" for kind in single_formats().values() if kind.make and not kind.needs_instances]
    assert sorted(archive.namelist()) == sorted([*single, "a.masks/dog_ear.png", "a.masks/bus_wheel.png"])


@pytest.mark.parametrize("command", ["predict", "label"])
def test_a_new_format_is_in_the_help(toy, command, capsys):
    assert main([command, "--help"]) == 0
    assert "table: pixels of each part, for spreadsheets." in " ".join(capsys.readouterr().out.replace("│", "").split())


def test_a_new_format_is_predicted_and_labelled(toy, album, model_directory, tmp_path):
    options = ["--vocabulary", "dog: ear, head; bus: wheel", "--model", str(model_directory)]
    out, labels = tmp_path / "out", tmp_path / "labels"
    assert main(["predict", str(album), *options, "--output", str(out), "--format", "table"]) == 0
    assert sum(int(area) for _, area in counts((out / "a.table.tsv").read_text())) <= 40 * 30
    assert main(["label", str(album), *options, "--output", str(labels), "--formats", "table", "--workers", "1"]) == 0
    rows = counts((labels / "table/a.tsv").read_text())
    assert rows == counts((out / "a.table.tsv").read_text())
    assert counts((labels / "table/all.tsv").read_text()) == [["a.png", str(len(rows))]]


def test_a_new_format_is_served(toy):
    pytest.importorskip("fastapi")
    from partclipseg.apps.serve.api import answer_model
    from partclipseg.apps.serve.question import SegmentRequest, form_schema

    schema = SegmentRequest.model_json_schema()["properties"]["formats"]
    assert schema["items"]["enum"] == [*single_formats(), "all"]
    assert "table: pixels of each part, for spreadsheets" in schema["description"]
    assert "for spreadsheets" in form_schema(SegmentRequest)["properties"]["formats"]["description"]
    assert "table" in answer_model().model_json_schema()["properties"]
    assert SegmentRequest(photo=b"x", formats="table, json").formats == ["table", "json"]


def test_without_it_the_format_is_unknown(result, capsys, album):
    with pytest.raises(UsageError, match="unknown format 'table': choose from overlay"):
        result.content("table")
    for command, option in (("predict", "--format"), ("label", "--formats")):
        assert main([command, str(album), option, "table", "--output", "x"]) == 2
        assert "unknown format 'table': choose from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("formats", "words"),
    [
        (["tiff"], "unknown format 'tiff': choose from overlay, png, masks, soft-masks, json, csv, coco, labelme"),
        (["json", "tiff"], "unknown format 'tiff'"),
        (["jsonl"], "unknown format 'jsonl'"),
        ([""], "unknown format ''"),
        ("yollo", "unknown format 'yollo', did you mean yolo"),
        ("json, tiff", "unknown format 'tiff'"),
        ([], "no format is asked for: choose from overlay"),
    ],
)
def test_formats_that_a_photo_alone_does_not_have(result, formats, words, tmp_path):
    for call in (lambda: result.save(tmp_path / "new", formats=formats), lambda: result.files(formats)):
        with pytest.raises(UsageError, match=words):
            call()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("formats", ["json, yolo", ["json,yolo"], ["json,", "yolo"], ("yolo", "json", "json")])
def test_names_of_formats_may_have_commas_between_them(result, formats):
    assert set(result.files(formats)) == set(result.files(["json", "yolo"]))


def test_predict_writes_every_format(album, model_directory, tmp_path):
    options = ["--vocabulary", "dog: ear, head; bus: wheel", "--model", str(model_directory)]
    options += ["--instances", "components", "--output", str(tmp_path / "out")]
    assert main(["predict", str(album), *options, "--format", *FORMATS]) == 0
    single = [f"a{kind.suffix}" for kind in all_formats().values() if not kind.is_collected]
    shared = ["annotations.coco.json", "areas.csv", "labels.jsonl", "label_studio.xml"]
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == sorted([*single, *shared])
    (line,) = (tmp_path / "out/labels.jsonl").read_text().splitlines()
    coco = json.loads((tmp_path / "out/annotations.coco.json").read_text())
    parts = [annotation for annotation in coco["annotations"] if annotation["category_id"] <= 3]
    masks = [annotation["segmentation"] for annotation in parts]
    assert [segment["rle"] for segment in json.loads(line)["segments"]] == masks


def test_names_and_files_are_distinct():
    kinds = all_formats()
    assert [kind.name for kind in kinds.values()] == list(FORMATS)
    suffixes = [kind.suffix for kind in single_formats().values()]
    folders = [kind.folder for kind in data_set_formats().values() if kind.folder]
    ranks = [kind.precedence for kind in kinds.values() if kind.read]
    for values in (suffixes, folders, ranks):
        assert len(set(values)) == len(values)
    for kind in kinds.values():
        assert kind.help
        assert not kind.help.endswith(".")
        assert kind.is_single or kind.collect
        assert not kind.is_single or kind.suffix.count(".") == (1 if kind.make_many else 2)


def test_formats_know_lower_floors_only():
    package = Path(partclipseg.__file__).parent
    lower = {"errors", "files", "journal", "json_file", "likeness", "machine", "processes"}
    lower |= {"vocabulary", "maps", "data", "formats"}
    for path in (package / "formats").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            rooms = {name.split(".")[1] for name in names if name.startswith("partclipseg.")}
            assert rooms <= lower, f"{path.name} imports {rooms - lower}"
            assert "torch" not in {name.split(".")[0] for name in names}
