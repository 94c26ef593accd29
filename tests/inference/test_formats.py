"""What other tools get from a result: YOLO, Label Studio, supervision, notebooks."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from partclipseg.errors import PartCLIPSegError
from partclipseg.formats.label_studio import label_studio_interface
from partclipseg.formats.palette import part_colours
from partclipseg.inference.result import PartResult
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.load([("dog", "ear"), ("dog", "tail"), ("R&D", '<"head">')])


@pytest.fixture
def result() -> PartResult:
    """A rectangle of the first class, an L of the third, on 40 x 20 pixels."""
    labels = np.full((20, 40), -1)
    labels[2:12, 4:14] = 0
    labels[10:18, 20:36] = 2
    labels[10:14, 28:36] = -1
    objects = np.array([*WORDS.class_to_object, -1])[labels]
    scores = np.where(labels == 0, 0.75, 0.5)
    return PartResult.from_maps(labels, objects, scores, WORDS, np.zeros((20, 40, 3), np.uint8), "a b.jpg")


def test_yolo(result):
    first, second = result.to_yolo().splitlines()
    index, *numbers = first.split()
    assert index == "0"
    points = np.array(numbers, float).reshape(-1, 2) * [40, 20]
    assert {tuple(point) for point in points.tolist()} == {(4, 2), (14, 2), (14, 12), (4, 12)}
    assert second.startswith("2 ")
    assert len(second.split()) == 1 + 2 * 6  # the six corners of an L


def test_label_studio(result):
    task = result.to_label_studio("/data/a.jpg", "v1")
    assert task["data"] == {"image": "/data/a.jpg"}
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "v1"
    first = prediction["result"][0]
    assert first["value"]["polygonlabels"] == ["dog's ear"]
    assert first["score"] == 0.75
    assert sorted(map(tuple, first["value"]["points"])) == [(10, 10), (10, 60), (35, 10), (35, 60)]  # percent


def test_label_studio_interface_escapes_names():
    import xml.etree.ElementTree as ElementTree

    interface = ElementTree.fromstring(label_studio_interface(WORDS))
    assert [label.get("value") for label in interface.iter("Label")] == list(WORDS.names)
    assert all(re.fullmatch("#[0-9a-f]{6}", label.get("background")) for label in interface.iter("Label"))


def test_supervision(result):
    supervision = pytest.importorskip("supervision")
    detections = result.to_supervision()
    assert detections.xyxy.tolist() == [[4, 2, 14, 12], [20, 10, 36, 18]]
    assert detections.class_id.tolist() == [0, 2]
    assert detections.confidence.tolist() == [0.75, 0.5]
    assert detections.area.tolist() == [100, 96]
    assert detections["class_name"].tolist() == ["dog's ear", 'R&D\'s <"head">']
    # It is what supervision's own tools take.
    drawn = supervision.MaskAnnotator().annotate(result.photo.copy(), detections)
    assert (drawn.any(2) == (result.label_map >= 0)).all()


def test_supervision_of_nothing():
    supervision = pytest.importorskip("supervision")
    empty = np.full((4, 4), -1)
    found = PartResult.from_maps(empty, empty, np.zeros((4, 4)), WORDS).to_supervision()
    assert found == supervision.Detections.empty()


def test_missing_supervision_is_named(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(PartCLIPSegError, match="pip install supervision"):
        result.to_supervision()


def test_supervision_is_imported_when_asked_for_only():
    code = "import sys, partclipseg.inference.result; sys.exit('supervision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_notebooks_show_picture_and_table(result):
    page = result._repr_html_()
    picture = Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])))
    assert picture.size[0] / picture.size[1] == 2
    rows = re.findall(r"<tr><td>.*?</tr>", page)
    assert ["dog&#x27;s ear" in rows[0], "R&amp;D&#x27;s &lt;&quot;head&quot;&gt;" in rows[1]] == [True, True]
    assert "12.5%" in rows[0]
    assert "0.75" in rows[0]
    assert f"background:#{bytes(part_colours(WORDS)[0]).hex()}" in rows[0]


def test_notebooks_of_nothing():
    empty = np.full((4, 4), -1)
    assert "nothing found" in PartResult.from_maps(empty, empty, np.zeros((4, 4)), WORDS)._repr_html_()
