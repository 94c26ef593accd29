"""The zoo source, registered and applied by FiftyOne itself; a data set needs its MongoDB beside."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.integrations.conftest import INTEGRATIONS

from partclipseg import PartSegmenter
from partclipseg.errors import UsageError
from partclipseg.inference.result import PartResult

fo = pytest.importorskip("fiftyone")
foz = pytest.importorskip("fiftyone.zoo")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the source as an archive, on this machine; FiftyOne keeps what it registers in a new folder."""
    folder = tmp_path_factory.mktemp("fiftyone")
    fo.config.model_zoo_dir = str(folder / "zoo")
    (folder / "site").mkdir()
    shutil.make_archive(str(folder / "site" / "partclipseg"), "zip", INTEGRATIONS, "fiftyone_zoo")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder / "site"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/partclipseg.zip"
    server.shutdown()


@pytest.fixture(scope="module")
def model(source: str) -> Any:
    foz.register_zoo_model_source(source)
    return foz.load_zoo_model("partclipseg")


def assert_same(found: Any, result: PartResult) -> None:
    assert len(found.detections) == len(result) > 0
    height, width = result.size
    for detection, segment in zip(found.detections, result, strict=True):
        words = detection.label, detection["object"], detection["part"]
        assert words == (segment.name, segment.object, segment.part)
        assert detection["owner"] == segment.instance
        assert detection.confidence == pytest.approx(segment.score)
        x, y, w, h = (value * side for value, side in zip(detection.bounding_box, (width, height) * 2, strict=True))
        assert (x, y, w, h) == pytest.approx(segment.box)
        whole = np.zeros((height, width), bool)
        whole[round(y) : round(y + h), round(x) : round(x + w)] = detection.mask
        np.testing.assert_array_equal(whole, segment.mask)


def test_the_zoo_lists_and_loads_the_model(model: Any, segmenter: PartSegmenter, photo: np.ndarray):
    assert "partclipseg" in foz.list_zoo_models()
    assert model.media_type == "image"
    result = segmenter(photo)
    assert_same(model.predict(photo), result)
    one, other = model.predict_all([photo, photo[:100]])
    assert_same(one, result)
    assert_same(other, segmenter(photo[:100]))
    assert model.predict_all([]) == []


def test_words_and_options_reach_the_segmenter(model: Any, segmenter: PartSegmenter, photo: np.ndarray):
    words = "bus: wheel, window"
    asked = foz.load_zoo_model("partclipseg", vocabulary=words, zoom=True)
    assert_same(asked.predict(photo), segmenter(photo, words, zoom=True))
    with pytest.raises(UsageError, match="'bus' has no part"):
        foz.load_zoo_model("partclipseg", vocabulary="bus:").predict(photo)


def test_parts_know_their_owner(model: Any, segmenter: PartSegmenter, two_scenes: np.ndarray):
    asked = foz.load_zoo_model("partclipseg", instances="components")
    result = segmenter(two_scenes, instances="components")
    assert len({segment.instance for segment in result}) >= 2
    assert_same(asked.predict(two_scenes), result)


def test_the_form_of_the_app(model: Any):
    form = foz.get_zoo_model("partclipseg").resolve_input(None)
    assert set(form.type.properties) == {"vocabulary", "model", "zoom"}


def test_a_data_set_keeps_the_parts(model: Any, segmenter: PartSegmenter, photo: np.ndarray, tmp_path: Path):
    try:
        dataset = fo.Dataset()
    except Exception as error:
        pytest.skip(f"needs FiftyOne's MongoDB ({type(error).__name__})")
    photos = [photo, photo[:, :120], photo[:100]]
    for place, one in enumerate(photos):
        Image.fromarray(one).save(tmp_path / f"{place}.png")
    dataset.add_images([str(tmp_path / f"{place}.png") for place in range(3)])
    dataset.apply_model(model, label_field="parts", batch_size=2, progress=False)
    for sample, one in zip(dataset, photos, strict=True):
        assert_same(sample["parts"], segmenter(one))
    dataset.delete()
