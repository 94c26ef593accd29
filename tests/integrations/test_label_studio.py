"""The Label Studio backend, served by Label Studio's own package; its regions are read by Label Studio's own SDK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from tests.integrations.conftest import load

from partclipseg import PartSegmenter
from partclipseg.data.coco_masks import decode_mask

api = pytest.importorskip("label_studio_ml.api")
brush = pytest.importorskip("label_studio_sdk.converter.brush")
label_interface = pytest.importorskip("label_studio_sdk.label_interface")

LABELS = ("bus's wheel", "bus's window", "bus's body")
backend = load("label_studio.py")


def interface(kind: str, labels: tuple[str, ...] = LABELS) -> str:
    entries = "".join(f'<Label value="{label}"/>' for label in labels)
    return (
        f'<View><Image name="picture" value="$photo"/><Choices name="c" toName="picture"><Choice value="x"/></Choices>'
        f'<{kind} name="parts" toName="picture">{entries}</{kind}></View>'
    )


@pytest.fixture
def client(tmp_path: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Any:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    (tmp_path / "broken.png").write_bytes(b"no photo")
    monkeypatch.setenv("LOCAL_FILES_SERVING_ENABLED", "true")
    return api.init_app(backend.PartBackend, model_dir=str(tmp_path / "models")).test_client()


def ask(client: Any, config: str, *photos: Path) -> Any:
    tasks = [{"id": place, "data": {"photo": f"/data/local-files/?d={path}"}} for place, path in enumerate(photos)]
    project = {"project": "1.1", "schema": config, "label_config": config, "force_reload": True}
    assert client.post("/setup", json=project).status_code == 200
    return client.post("/predict", json={**project, "tasks": tasks})


@pytest.mark.parametrize("kind", ["PolygonLabels", "BrushLabels"])
def test_regions_are_the_parts_of_the_photo(
    kind: str, client: Any, tmp_path: Path, segmenter: PartSegmenter, photo: np.ndarray
):
    assert client.get("/health").json["status"] == "UP"
    answer = ask(client, interface(kind), tmp_path / "photo.png")
    assert answer.status_code == 200
    (prediction,) = answer.json["results"]
    result = segmenter(photo, list(LABELS))
    assert len(result) > 0
    sizes = {(region["original_height"], region["original_width"]) for region in prediction["result"]}
    assert sizes == {result.size}
    for segment in result:
        its = [r["value"] for r in prediction["result"] if r["value"][kind.lower()] == [segment.name]]
        if kind == "BrushLabels":
            (value,) = its
            pixels = brush.decode_rle(value["rle"]).reshape(*result.size, 4)
            np.testing.assert_array_equal(pixels[..., 3] > 0, segment.mask)
        else:
            height, width = result.size
            polygons = [(np.array(value["points"]) * [width / 100, height / 100]).ravel().tolist() for value in its]
            drawn = decode_mask(polygons, result.size)
            assert np.count_nonzero(drawn & segment.mask) > 0.8 * np.count_nonzero(drawn | segment.mask)


def test_each_object_has_brushes_of_its_own(
    client: Any, tmp_path: Path, two_scenes: np.ndarray, segmenter: PartSegmenter, monkeypatch: pytest.MonkeyPatch
):
    Image.fromarray(two_scenes).save(tmp_path / "two.png")
    monkeypatch.setenv("PARTCLIPSEG_INSTANCES", "components")
    backend.load_segmenter.cache_clear()
    answer = ask(client, interface("BrushLabels"), tmp_path / "two.png")
    backend.load_segmenter.cache_clear()
    result = segmenter(two_scenes, list(LABELS), instances="components")
    labels = [region["value"]["brushlabels"] for region in answer.json["results"][0]["result"]]
    assert labels == [[segment.name] for segment in result]
    assert len(labels) > len({segment.name for segment in result})


@pytest.mark.parametrize("kind", ["PolygonLabels", "BrushLabels"])
def test_the_sdk_finds_the_prediction_valid(kind: str, client: Any, tmp_path: Path):
    (prediction,) = ask(client, interface(kind), tmp_path / "photo.png").json["results"]
    known = label_interface.LabelInterface(interface(kind))
    assert known.validate_prediction({**prediction, "model_version": "1"})
    wrong = [{**prediction["result"][0], "from_name": "other"}]
    assert not known.validate_prediction({**prediction, "result": wrong, "model_version": "1"})


def test_a_photo_that_cannot_be_read_does_not_end_the_others(client: Any, tmp_path: Path):
    names = ("photo.png", "broken.png", "absent.png", "photo.png")
    answer = ask(client, interface("PolygonLabels"), *(tmp_path / name for name in names))
    first, broken, absent, last = answer.json["results"]
    assert broken["result"] == absent["result"] == []
    assert first == last
    assert first["result"]


def test_an_interface_without_a_fitting_control():
    with pytest.raises(backend.PartCLIPSegError, match="no PolygonLabels or BrushLabels with labels: add one"):
        backend.find_control({"c": {"type": "Choices", "to_name": ["picture"], "inputs": [], "labels": ["x"]}})


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans()))
def test_brushes_are_what_the_sdk_reads(mask: np.ndarray):
    decoded = brush.decode_rle(backend.brush_rle(mask))
    np.testing.assert_array_equal(decoded, np.repeat(mask.ravel(), 4) * np.uint8(255))


@pytest.mark.parametrize("fill", [False, True])
def test_runs_longer_than_sixteen_bits(fill: bool):
    mask = np.full((300, 301), fill)
    decoded = brush.decode_rle(backend.brush_rle(mask))
    np.testing.assert_array_equal(decoded, np.repeat(mask.ravel(), 4) * np.uint8(255))
