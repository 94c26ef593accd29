"""Every command with a small random PartCATSeg, on a real photo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.models.partcatseg.small import build, small_config

from partclipseg.apps.cli import main
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig
from partclipseg.models.registry import load_tokenizer
from partclipseg.vocabulary import Vocabulary

WORDS = "dog: head, ear, leg; cat: head, tail"


@pytest.fixture(params=[PartCATSegConfig, CATSegConfig], ids=["partcatseg", "catseg"])
def directory(request: pytest.FixtureRequest, tmp_path: Path, tokenizer_directory: Path) -> Path:
    build(small_config(request.param)).save_pretrained(tmp_path / "model")
    load_tokenizer(tokenizer_directory).save_pretrained(tmp_path / "model")
    Vocabulary.load(WORDS).save(tmp_path / "model" / "vocabulary.json")
    return tmp_path / "model"


@pytest.fixture
def photo(shared: Path, tmp_path: Path) -> Path:
    source = shared / "data" / "photos" / "dog.jpg"
    if not source.is_file():
        pytest.skip("needs the shared photos")
    (tmp_path / "photos").mkdir()
    with Image.open(source) as image:
        image.convert("RGB").resize((320, 240)).save(tmp_path / "photos" / "dog.png")
    return tmp_path / "photos" / "dog.png"


@pytest.mark.parametrize("options", [[], ["--zoom"], ["--objects", "dog"]], ids=["pred-all", "zoom", "oracle-obj"])
def test_predict(directory: Path, photo: Path, tmp_path: Path, options: list[str]) -> None:
    out = ["--output", str(tmp_path / "out"), "--device", "cpu", "--format", "json"]
    assert main(["predict", str(photo), "--model", str(directory), *out, *options]) == 0
    found = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert found
    if options[:1] == ["--objects"]:
        result = PartSegmenter.from_pretrained(directory, device="cpu")(str(photo), objects=["dog"])
        assert set(np.unique(result.label_map)) <= {0, 1, 2}


def test_label(directory: Path, photo: Path, tmp_path: Path) -> None:
    options = ["--model", str(directory), "--output", str(tmp_path / "labels"), "--device", "cpu"]
    assert main(["label", str(photo.parent), "--vocabulary", WORDS, *options]) == 0
    assert any((tmp_path / "labels").rglob("*dog*"))


def test_evaluate(directory: Path, own_data: Path, tmp_path: Path) -> None:
    options = ["--dataset", "index-png", "--root", str(own_data), "--device", "cpu", "--workers", "0"]
    rule = ["--rule", "partcatseg", "--boundary", "none", "--output", str(tmp_path / "report")]
    assert main(["evaluate", str(directory), *options, *rule]) == 0
    scores = json.loads((tmp_path / "report" / "scores.json").read_text())["scores"]
    assert set(scores) == {"oracle_obj", "pred_all", "strict"}
    for protocol in ("oracle_obj", "pred_all"):
        assert scores[protocol]["records"] == 6
        by_rule = {one["rule"]: one for one in scores[protocol]["rules"]}
        assert scores[protocol]["all"]["iou"] == by_rule["partcatseg"]["all"]
    assert "(chosen)" in (tmp_path / "report" / "report.md").read_text()


def test_the_page_of_serve_shows_maps_without_attention(directory: Path, photo: Path) -> None:
    pytest.importorskip("fastapi")
    from partclipseg.apps.serve.explain import explain

    segmenter, image = PartSegmenter.from_pretrained(directory, device="cpu"), np.asarray(Image.open(photo))
    for objects in (None, ["dog"]):
        explained = explain(segmenter, image, Vocabulary.load(WORDS), objects)
        expected = segmenter(image, WORDS, objects=objects)
        assert np.array_equal(explained.result.label_map, expected.label_map)
        assert explained.attention == ()
        assert [shown.name for shown in explained.probabilities if shown.kind == "object-part"]


def test_serve_answers(directory: Path, photo: Path) -> None:
    pytest.importorskip("fastapi")
    from partclipseg.apps.serve.engine import Engine, Limits, PhotoTask

    segmenter, image = PartSegmenter.from_pretrained(directory, device="cpu"), np.asarray(Image.open(photo))
    engine = Engine({"small": segmenter}, Limits())
    try:
        found = engine.submit(PhotoTask("small", engine.vocabulary(WORDS, "small"), None), image).result(60)
    finally:
        engine.close()
    assert np.array_equal(found.label_map, segmenter(image, WORDS).label_map)
