"""A picture for each part, a table of areas, and probabilities."""

from __future__ import annotations

import base64
import csv
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from partclipseg.apps.cli import main
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.formats.archive import zip_archive
from partclipseg.formats.masks import mask_names
from partclipseg.inference.result import PartResult
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.shapes.renderer import render_scene
from partclipseg.vocabulary import Vocabulary

SCENE = render_scene("test", 2, 128)  # a bus
BUS = Vocabulary.from_text("bus: body, window, wheel, door, light, mirror")


@pytest.fixture(scope="module")
def segmenter() -> PartSegmenter:
    return PartSegmenter.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def result(segmenter) -> PartResult:
    return segmenter(Image.fromarray(SCENE.image).resize((150, 100)), BUS)


def pixels(content: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(content))
    assert picture.mode == "L"
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("dog", "ear")], ["dog_ear.png"]),
        ([("swivel chair", "seat cushion")], ["swivel_chair_seat_cushion.png"]),
        ([("a/b", "c\\d"), ("driver's cab", "roof")], ["a_b_c_d.png", "driver_s_cab_roof.png"]),
        ([("a b", "c"), ("a", "b c"), ("A", "B_c")], ["a_b_c.png", "a_b_c_2.png", "A_B_c_3.png"]),
        ([("..", "..")], ["part.png"]),
        ([("chien", "œil"), ("犬", "耳")], ["chien_œil.png", "犬_耳.png"]),
        ([("x" * 300, "y"), ("x" * 300, "z")], ["x" * 200 + ".png", "x" * 200 + "_2.png"]),
    ],
)
def test_names_of_masks(pairs, expected):
    assert list(mask_names(pairs)) == expected


def test_masks_are_the_segments(result, tmp_path):
    assert len(result) >= 3
    paths = result.save(tmp_path, "photo", formats=["masks"])
    assert [path.name for path in paths] == [f"bus_{segment.part}.png" for segment in result]
    for path, segment in zip(paths, result, strict=True):
        assert path.parent == tmp_path / "photo.masks"
        assert np.array_equal(pixels(path.read_bytes()), np.where(segment.mask, 255, 0))
    with pytest.raises(UsageError, match="masks are several files"):
        result.content("masks")


def test_a_probability_is_what_the_scores_are_means_of(result):
    for segment in result:
        found = result.probability(segment.name.upper())
        assert found.dtype == np.float32
        assert found.shape == result.size
        assert found[segment.mask].mean() == pytest.approx(segment.score, abs=1e-4)
        assert 0 <= found.min() <= found.max() <= 1
    absent = result.probability("bus's mirror")
    assert absent.shape == result.size


def test_soft_masks_are_the_probabilities(result):
    files = result.files(["soft-masks"])
    assert len(files) == len(result)
    for content, segment in zip(files.values(), result, strict=True):
        assert np.abs(pixels(content) / 255 - result.probability(segment.name)).max() <= 0.5 / 255 + 1e-6
    assert not any("soft" in name for name in result.files())  # only where they are asked for


def test_a_pickled_result_keeps_its_probabilities(result):
    content = pickle.dumps(result)
    assert len(content) < 8_000_000  # without the model
    name = result[0].name
    assert np.array_equal(pickle.loads(content).probability(name), result.probability(name))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda result: result.probability("bus's chimney"), UsageError, "not an object-part of the vocabulary"),
        (lambda result: result.probability("bus"), UsageError, "not an object-part"),
        (lambda result: bare(result).probability("bus's wheel"), PartCLIPSegError, "made without a model"),
        (lambda result: bare(result).files(["soft-masks"]), PartCLIPSegError, "made without"),
    ],
)
def test_what_has_no_probability(result, call, error, message):
    with pytest.raises(error, match=message):
        call(result)


def bare(result: PartResult) -> PartResult:
    return PartResult(result.label_map, result.object_map, result.scores, result.vocabulary)


def rows_of(result: PartResult) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(result.content("csv").decode())))


def test_a_table_of_areas(result):
    rows = rows_of(result)
    assert [row["part"] for row in rows] == [segment.part for segment in result]
    assert [int(row["area"]) for row in rows] == [segment.area for segment in result]
    on_object, on_parts = (result.object_map >= 0).sum(), (result.label_map >= 0).sum()
    assert sum(float(row["share_of_object"]) for row in rows) == pytest.approx(on_parts / on_object, abs=1e-4)
    assert sum(float(row["share_of_photo"]) for row in rows) == pytest.approx((result.label_map >= 0).mean(), abs=1e-4)


def test_shares_of_a_bus_of_which_wheels_alone_are_asked(segmenter):
    [wheel] = rows_of(segmenter(SCENE.image, "bus: wheel"))
    assert 0 < float(wheel["share_of_object"]) < 0.5
    rows = rows_of(segmenter(SCENE.image, "bus: body; wheel"))
    assert {row["part"]: row["share_of_object"] != "" for row in rows} == {"body": True, "wheel": False}


@pytest.fixture
def album(tmp_path):
    (tmp_path / "album").mkdir()
    Image.fromarray(SCENE.image).save(tmp_path / "album/a.png")
    return tmp_path / "album"


def test_predict_replaces_its_masks_and_keeps_those_of_others(album, tmp_path, capsys):
    out = tmp_path / "out"

    def predict(words: str) -> set[str]:
        options = ["--vocabulary", words, "--output", str(out), "--format", "masks", "csv"]
        assert main(["predict", str(album), *options]) == 0
        return {path.name for path in (out / "a.masks").iterdir()}

    first = predict(BUS.to_text())
    assert {"bus_body.png", "bus_wheel.png"} <= first
    (out / "a.masks" / "bus_body.png").write_bytes(b"painted over")
    (out / "a.masks" / "mine.png").write_bytes(b"mine")
    second = predict("bus: wheel, window")
    assert second == {"bus_body.png", "bus_wheel.png", "bus_window.png", "mine.png"}
    assert (out / "a.masks" / "bus_body.png").read_bytes() == b"painted over"
    rows = list(csv.DictReader((out / "areas.csv").open()))
    assert {row["part"] for row in rows} == {"wheel", "window"}
    assert {row["photo"] for row in rows} == {str(album / "a.png")}


def test_label_writes_masks_of_all_photos(album, tmp_path):
    labels = tmp_path / "labels"
    options = ["--vocabulary", BUS.to_text(), "--output", str(labels), "--formats", "masks", "csv", "png"]
    assert main(["label", str(album), *options, "--workers", "1"]) == 0
    assert {"bus_body.png", "bus_wheel.png"} <= {path.name for path in (labels / "masks/a").iterdir()}
    index = {pair.part: number for number, pair in enumerate(BUS.object_parts)}
    drafted = np.asarray(Image.open(labels / "labels/a.png"))
    for path in (labels / "masks/a").glob("*.png"):
        mask = pixels(path.read_bytes()) > 0
        assert np.array_equal(mask, drafted == index[path.stem.removeprefix("bus_")])
    assert len(list(csv.DictReader((labels / "areas.csv").open()))) == len(list((labels / "masks/a").iterdir()))


def test_the_api_answers_masks(result):
    pytest.importorskip("fastapi")
    from partclipseg.apps.serve.api import answer_model, content_of

    content = content_of(result, ["masks", "csv", "json"], 0.6)
    assert set(content["masks"]) == {f"bus_{segment.part}.png" for segment in result}
    wheel = pixels(base64.b64decode(content["masks"]["bus_wheel.png"]))
    assert np.array_equal(wheel > 0, result["bus's wheel"].mask)
    json.dumps(content)
    fields = answer_model().model_fields
    assert fields["masks"].annotation == dict[str, str] | None
    names = zipfile.ZipFile(io.BytesIO(zip_archive(result.files(["masks"])))).namelist()
    assert "photo.masks/bus_wheel.png" in names or any(name.endswith(".masks/bus_wheel.png") for name in names)
