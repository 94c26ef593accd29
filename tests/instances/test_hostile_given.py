"""Files of objects as clumsy users and other tools write them: refused by name, or read as they are meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from partclipseg.apps.cli import main
from partclipseg.data.photo import PhotoError
from partclipseg.errors import UsageError
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.instances.found import FoundObject
from partclipseg.instances.given import GivenObjects
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.from_dict({"dog": ["ear"], "cat": ["ear"]})
SIZE = (40, 56)


def boxes(*corners: Any, word: str = "dog") -> dict[str, Any]:
    return {"a.png": [[word, *corners]]}


def coco(photo: dict[str, Any] | None = None, **annotation: Any) -> dict[str, Any]:
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 25, 25], **annotation}
    return {
        "images": [{"id": 1, "file_name": "a.png", **(photo or {})}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [entry],
    }


SHARES = [[0.1, 0.1, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9]]

REFUSED: dict[str, tuple[Any, str]] = {
    "corners exchanged": (boxes(30, 5, 5, 30), "upper left corner first"),
    "width and height for the second corner": (boxes(30, 5, 10, 10), "upper left corner first"),
    "no width": (boxes(5, 5, 5, 30), "upper left corner first"),
    "shares": (boxes(0.1, 0.2, 0.5, 0.9), "between 0 and 1: give pixels of the photo, not shares"),
    "shares of the whole photo": (boxes(0, 0, 1, 1), "between 0 and 1"),
    "shares in COCO": (coco(bbox=[0.1, 0.1, 0.5, 0.5]), "between 0 and 1"),
    "an outline in shares": (coco(bbox=None, segmentation=SHARES), "its outline lies between 0 and 1"),
    "an outline in shares of the whole photo": (
        coco(bbox=None, segmentation=[[0, 0, 1, 0, 1, 1, 0, 1]]),
        "its outline lies between 0 and 1",
    ),
    "an outline in shares and a box in pixels": (coco(segmentation=SHARES), "its outline lies between 0 and 1"),
    "an outline elsewhere": (coco(segmentation=[[40, 5, 50, 5, 50, 15]]), "its box and its outline do not meet"),
    "thousandths": (boxes(100, 200, 500, 900), "has no pixel in the photo, which has 56x40"),
    "outside": (boxes(-30, -30, -5, -5), "has no pixel in the photo"),
    "NaN": ('{"a.png": [["dog", NaN, 1, 2, 3]]}', "upper left corner first"),
    "infinity": ('{"a.png": [["dog", 0, 0, 1e400, 3]]}', "upper left corner first"),
    "400 digits": ('{"a.png": [["dog", 0, 0, ' + "9" * 400 + ", 30]]}", "upper left corner first"),
    "truth values": (boxes(False, False, True, True), "upper left corner first"),
    "numbers as text": (boxes("1", "2", "30", "30"), "upper left corner first"),
    "a score behind": (boxes(5, 5, 30, 30, 0.9), "a word and two corners"),
    "a long unknown word": (boxes(5, 5, 30, 30, word="x" * 10_000), "is not an object of the vocabulary"),
    "one photo, two spellings": ({"a.png": [], "./a.png": []}, "'a.png' and './a.png' name one photo"),
    "one photo, two slashes": ({"x/a.png": [], "x\\a.png": []}, "name one photo: put its objects together"),
    "one photo, double slash": ({"x/a.png": [], "x//a.png": []}, "name one photo"),
    "COCO, a photo twice": (
        {**coco(), "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "./a.png"}]},
        "the entries 1 and 2 of 'images' are the same photo",
    ),
    "another size": (coco({"width": 560, "height": 400}), "its photo is 560x400 there, and the photo here 56x40"),
    "turned": (coco({"width": 40, "height": 56}), "its photo is 40x56 there.* resized or turned"),
    "another height alone": (coco({"height": 41}), "resized or turned"),
}


def read(content: Any, folder: Path) -> GivenObjects:
    path = folder / "objects.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return GivenObjects.read(path)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path):
    content, message = REFUSED[name]
    with pytest.raises(UsageError, match=message) as caught:
        read(content, tmp_path).of("photos/a.png", SIZE, WORDS)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("content", "box"),
    [
        (boxes(5, 5, 30, 30), (5, 5, 25, 25)),
        (boxes(0, 0, 1.5, 1), (0, 0, 1.5, 1)),
        (boxes(-30, -30, 20, 500), (0, 0, 20, 40)),
        (coco({"width": 56, "height": 40}), (5, 5, 25, 25)),
        (coco({"width": "56"}), (5, 5, 25, 25)),
        (coco(segmentation=[[4, 4, 20, 4, 20, 20]]), (5, 5, 25, 25)),
        ({"photos/a.png": [["dog", 5, 5, 30, 30]], "other/a.png": []}, (5, 5, 25, 25)),
    ],
)
def test_what_is_taken(content: Any, box: Any, tmp_path: Path):
    assert [some.box for some in read(content, tmp_path).of("photos/a.png", SIZE, WORDS)] == [box]


def test_one_entry_is_not_taken_for_two_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_directory: Path, capsys: Any
):
    monkeypatch.chdir(tmp_path)
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / folder / "a.png")
    given = read(boxes(5, 5, 30, 30), tmp_path)
    for name in ("x/a.png", "./x/a.png", str(tmp_path / "x" / "a.png")):
        assert len(given.of(name, SIZE, WORDS)) == 1
    with pytest.raises(PhotoError, match=r"the entry 'a.png' of .* fits two photos, x/a.png and y/a.png: give the"):
        given.of("y/a.png", SIZE, WORDS)
    given.check_photos(["x/a.png", "x/none.png"])
    for command in (["predict", "x/a.png", "y/a.png"], ["label", "."]):
        options = ["--vocabulary", "dog: ear", "--model", str(model_directory), "--instances", "objects.json"]
        assert main([*command, *options, "--output", "out"]) == 2
        assert "fits two photos" in " ".join(capsys.readouterr().err.split())
    # A mapping in Python has the same rules.
    some: Callable[[], list[FoundObject]] = lambda: [FoundObject("dog", (0, 0, 0.5, 0.5))]  # noqa: E731
    with pytest.raises(UsageError, match="name one photo"):
        GivenObjects.of_mapping({"a.png": some(), "./a.png": some()})
    with pytest.raises(UsageError, match="between 0 and 1"):
        GivenObjects.of_mapping({"a.png": some()}).of("a.png", SIZE, WORDS)
    with pytest.raises(UsageError, match="object 1 of instances: the box lies between 0 and 1"):
        PartSegmenter.from_pretrained(model_directory)("x/a.png", "dog: ear", instances=some())
    corner = np.zeros(SIZE, bool)
    corner[0, 0] = True  # its box lies between 0 and 1 as well
    assert len(GivenObjects.of_mapping({"a.png": [FoundObject.from_mask("dog", corner)]}).of("a.png", SIZE, WORDS)) == 1
