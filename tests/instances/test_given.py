"""Objects that the user gives: in Python, as COCO, as boxes in JSON."""

from __future__ import annotations

import json
import logging
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from partclipseg.data.coco_masks import encode_mask
from partclipseg.data.photo import PhotoError
from partclipseg.errors import UsageError
from partclipseg.instances.found import FoundObject
from partclipseg.instances.given import GivenObjects
from partclipseg.instances.sources import as_source, open_instance_source
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.from_dict({"dog": ["ear"], "police car": ["wheel"]})
SIZE = (30, 40)
MASK = np.zeros(SIZE, bool)
MASK[5:20, 10:30] = True


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def coco(**changes) -> dict:
    """Two photos: an outlined dog with its ear as PACO has it, a boxed car, a crowd, and a cat."""
    run = encode_mask(MASK)
    annotation = {"image_id": 1, "iscrowd": 0}
    return {
        "images": [{"id": 1, "file_name": "val/a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [
            {"id": 1, "name": "dog", "supercategory": "animal"},
            {"id": 2, "name": "dog:ear", "supercategory": "PART"},
            {"id": 3, "name": "Police_car_(automobile)"},
            {"id": 4, "name": "cat"},
        ],
        "annotations": [
            {**annotation, "id": 7, "category_id": 1, "segmentation": run, "bbox": [10, 5, 20, 15], "obj_ann_id": 7},
            {**annotation, "id": 8, "category_id": 2, "segmentation": run, "bbox": [10, 5, 2, 2], "obj_ann_id": 7},
            {**annotation, "id": 9, "category_id": 3, "bbox": [30, 20, 20, 20], "score": 0.25},
            {**annotation, "id": 10, "category_id": 1, "bbox": [0, 0, 40, 30], "segmentation": run, "iscrowd": 1},
            {**annotation, "id": 11, "category_id": 4, "bbox": [0, 0, 40, 30]},
        ],
        **changes,
    }


def test_coco(tmp_path, caplog):
    given = GivenObjects.read(written(tmp_path / "objects.json", coco()))
    with caplog.at_level(logging.WARNING):
        given.announce(WORDS)
    assert "left out, since no parts of it are asked for: 'cat'" in caplog.text
    dog, car = given.of("photos/val/a.jpg", SIZE, WORDS)
    assert (dog.object, dog.box, dog.score) == ("dog", (10, 5, 20, 15), 1)
    assert np.array_equal(dog.mask, MASK)
    assert (car.object, car.score, car.mask) == ("police car", 0.25, None)
    assert car.box == (30, 20, 10, 10), "cut to the photo"
    assert given.of("b.jpg", SIZE, WORDS) == []


def test_polygons_and_outlines_without_a_box(tmp_path):
    some = {"id": 1, "image_id": 2, "category_id": 1}
    polygon = {**some, "segmentation": [[10, 5, 30, 5, 30, 20, 10, 20]]}
    empty = {**some, "segmentation": [], "bbox": [1, 2, 3, 4]}
    given = GivenObjects.read(written(tmp_path / "o.json", coco(annotations=[polygon, empty])))
    outlined, boxed = given.of("b.jpg", SIZE, WORDS)
    assert np.array_equal(outlined.mask, MASK)
    assert outlined.box == (10, 5, 20, 15)
    assert (boxed.mask, boxed.box) == (None, (1, 2, 3, 4))


def test_boxes(tmp_path):
    content = {"a.jpg": [["dog", 1, 2, 11, 22], ["Police Car", 0, 0, 40.5, 30]], "sub/b.png": []}
    given = GivenObjects.read(written(tmp_path / "boxes.json", content))
    dog, car = given.of(str(tmp_path / "a.jpg"), SIZE, WORDS)
    assert (dog.object, dog.box, dog.score) == ("dog", (1, 2, 10, 20), 1)
    assert (car.object, car.box) == ("police car", (0, 0, 40, 30))
    for name in ("elsewhere/sub/b.png", "b.jpg"):  # by the end of the path, and by the stem
        assert GivenObjects.read(tmp_path / "boxes.json").of(name, SIZE, WORDS) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the objects' file .* is empty: replace it"),
        ("[1, 2]", "says where no objects are: it must be a COCO file, or JSON as"),
        ({}, "says where no objects are"),
        ({"a.jpg": {"dog": [1, 2, 3, 4]}}, "says where no objects are"),
        ({"a.jpg": [["dog", 1, 2, 3]]}, r'box 1 of a.jpg must be \["dog", x0, y0, x1, y1\]'),
        ({"a.jpg": [[1, 2, 3, 4, "dog"]]}, "box 1 of a.jpg must be"),
        ({"a.jpg": [["dog", 1, 2, 3, 4], ["dog", 9, 2, 3, 4]]}, "box 2 of a.jpg must have its upper left corner first"),
        ({"a.jpg": [["dog", 1, 2, 3, None]]}, "box 1 of a.jpg must have its upper left corner first"),
        ({"annotations": []}, "there is no list 'images' in it"),
        (coco(images=[{"id": 1}, {"id": 2, "file_name": "b.jpg"}]), "the photo 1 has no file_name: name its file"),
        (coco(annotations=[{"id": 1, "image_id": 5, "category_id": 1}]), "belongs to the photo 5, which the file does"),
    ],
)
def test_files_that_say_nothing(tmp_path, content, message):
    with pytest.raises(UsageError, match=message):
        GivenObjects.read(written(tmp_path / "objects.json", content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file .*boxes.json: check the path"):
        open_instance_source(str(tmp_path / "boxes.json"))


NOTHING = np.zeros(SIZE, bool)


@pytest.mark.parametrize(
    ("some", "message"),
    [
        (FoundObject("cat", (0, 0, 9, 9)), r"a.jpg: object 2 of instances: 'cat' is not an object of the"),
        (FoundObject("dog", (40, 0, 9, 9)), "object 2 of instances: the box from 40, 0 to 49, 9 has no pixel in"),
        (FoundObject("dog", (0, -20, 9, 9)), "has no pixel in the photo, which has 40x30: correct it"),
        (FoundObject("dog", (0, 0, 0, 9)), "has no pixel"),
        (FoundObject("dog", (0, 0, 9, 9), mask=MASK.T), "the mask has 30x40 pixels, the photo 40x30"),
        (FoundObject("dog", (0, 0, 9, 9), mask=NOTHING), "the mask has no pixel: leave the object out"),
    ],
)
def test_objects_that_do_not_fit_their_photo(some, message):
    given = GivenObjects.of_mapping({"a.jpg": [FoundObject("dog", (0, 0, 9, 9)), some]})
    with pytest.raises(UsageError, match=message) as caught:
        given.of("a.jpg", SIZE, WORDS)
    assert isinstance(caught.value, PhotoError), "the other photos of a run go on"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"bbox": [1, 2, 3]}, "annotation 5 of .*: the box of a dog must be four finite numbers"),
        ({"bbox": [50, 2, 3, 4]}, "annotation 5 of .*: the box from 50, 2"),
        ({}, "annotation 5 of .*: it has neither a box nor an outline"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, "annotation 5 of .*: the mask's run"),
        ({"bbox": [1, 2, 3, 4], "score": "high"}, "annotation 5 of .*: the score of a dog must be a number"),
    ],
)
def test_annotations_that_do_not_fit_their_photo(tmp_path, entry, message):
    annotations = [{"id": 5, "image_id": 2, "category_id": 1, **entry}]
    given = GivenObjects.read(written(tmp_path / "o.json", coco(annotations=annotations)))
    assert given.of("val/a.jpg", SIZE, WORDS) == []
    with pytest.raises(PhotoError, match=f"b.jpg: {message}"):
        given.of("b.jpg", SIZE, WORDS)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat"], r"categories \('cat'\) are no objects of the vocabulary \(dog, police car\): name the same objects"),
        (["dogs", "police cars"], r"categories \('dogs', 'police cars'\) are no objects"),
        (["dog's ear", "dog's leg"], "are no objects of the vocabulary"),
        ([f"w{number:02}" for number in range(20)], "'w07' and 12 more"),
        (["x" * 10_000], "are no objects of the vocabulary"),
    ],
)
def test_a_file_of_other_objects_alone(tmp_path, names, message):
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    box = {"image_id": 1, "bbox": [0, 0, 9, 9]}
    annotations = [{**box, "id": number, "category_id": number} for number in range(len(names))]
    file = coco(categories=categories, annotations=annotations)
    with pytest.raises(UsageError, match=message) as caught:
        GivenObjects.read(written(tmp_path / "objects.json", file)).announce(WORDS)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("annotations", [[], coco()["annotations"][3:4]])
def test_a_file_that_says_that_there_are_no_objects(tmp_path, annotations):
    given = GivenObjects.read(written(tmp_path / "objects.json", coco(annotations=annotations)))
    given.announce(WORDS)
    assert given.of("photos/val/a.jpg", SIZE, WORDS) == []


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_accents_are_in_any_form_of_unicode(forms):
    there, here = (unicodedata.normalize(form, "süß/é.jpg") for form in forms)
    given = GivenObjects.of_mapping({there: [FoundObject("dog", (0, 0, 9, 9))]})
    assert len(given.of(here, SIZE, WORDS)) == 1


def test_names_that_are_not_found_or_not_clear():
    some = [FoundObject("dog", (0, 0, 9, 9))]
    given = GivenObjects.of_mapping({"x/a.jpg": some, "y/a.jpg": [], "c.png": []})
    assert len(given.of("/data/x/a.jpg", SIZE, WORDS)) == 1
    assert given.of("c.jpg", SIZE, WORDS) == [], "by its stem"
    with pytest.raises(PhotoError, match=r"a.jpg: instances has 2 photos of that name, such as x/a.jpg: give"):
        given.of("a.jpg", SIZE, WORDS)
    with pytest.raises(PhotoError, match=r"d.jpg is not among the photos of instances: add it, with an empty list"):
        given.of("d.jpg", SIZE, WORDS)


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ("component", "'component' is neither 'components' nor a file of objects; for a detector give Detector"),
        (3, "instances must be 'components', a detector, a file, or FoundObject lists, not 3"),
        (b"components", "must be 'components', a detector"),
        ({"a.jpg": FoundObject("dog", (0, 0, 9, 9))}, "instances of a.jpg must be a list of FoundObject"),
        ({"a.jpg": [("dog", 0, 0, 9, 9)]}, "instances of a.jpg: object 1 must be a FoundObject"),
        ({3: []}, "a photo is named by its path, not by 3"),
    ],
)
def test_what_says_where_no_objects_are(instances, message):
    with pytest.raises(UsageError, match=message):
        as_source(instances)


@pytest.mark.parametrize("name", ["component", "Components", "COMPONENTS", "componets", "components "])
def test_a_mistyped_source_is_pointed_at(name):
    with pytest.raises(UsageError, match=f"--instances {name} names no source of objects, did you mean components"):
        open_instance_source(name)


def test_the_threshold_is_for_detectors():
    with pytest.raises(UsageError, match="--instance-threshold is for a detector"):
        open_instance_source("components", 0.5)
