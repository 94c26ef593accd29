"""What files say of instances, read back by other tools; and that files without them are what they were."""

from __future__ import annotations

import csv
import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from partclipseg.data.datasets.registry import open_dataset
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.formats.overlay import legend_entries
from partclipseg.formats.palette import instance_colours
from partclipseg.formats.registry import data_set_formats
from partclipseg.formats.segment import Instance
from partclipseg.inference.result import PartResult
from partclipseg.instances.given import GivenObjects
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.load([("dog", "ear"), ("dog", "tail"), ("bus", "wheel")])
BUS, DOG = 0, 1


def instance(number: int, word: str, score: float) -> Instance:
    return Instance(number, word, WORDS.objects.index(word), score, 0, (0, 0, 0, 0), (1, 2, 30.126, 4), "detector")


def photo(with_instances: bool = True) -> PartResult:
    """Two dogs side by side, each of them with pixels without a part; a bus without an owner; a bus without a pixel."""
    labels, objects, owner = (np.full((40, 60), -1) for _ in range(3))
    for index, left in enumerate((2, 20)):
        window = slice(4, 20), slice(left, left + 14)
        owner[window], objects[window] = index, DOG
        labels[4:10, left : left + 5], labels[4:10, left + 9 : left + 14] = 0, 0  # two ears
        labels[12:20, left : left + 14] = 1 if index else -1
    labels[25:35, 40:50], objects[25:35, 40:50] = 2, BUS
    objects[36:40, 40:50] = BUS
    scores = np.where(labels == 0, 0.75, 0.5)
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    made = labels, objects, scores, WORDS, picture, "in/a b.jpg"
    if not with_instances:
        return PartResult.from_maps(*made)
    instances = [instance(1, "dog", 0.9), instance(2, "dog", 0.8), instance(3, "bus", 0.1)]
    return PartResult.from_maps(*made, instance_map=owner, instances=instances)


@pytest.fixture(scope="module")
def result() -> PartResult:
    return photo()


def test_json(result):
    document = json.loads(result.content("json"))
    assert [entry["number"] for entry in document["instances"]] == [1, 2, 3]
    assert document["instances"][0] == {
        "number": 1, "object": "dog", "index": DOG, "score": 0.9, "area": 224, "box": [2, 4, 14, 16],
        "found": [1, 2, 30.13, 4], "source": "detector",
    }  # fmt: skip
    assert [entry["area"] for entry in document["instances"]] == [224, 224, 0]
    assert [(entry["name"], entry["instance"]) for entry in document["segments"]] == [
        ("dog's ear", 1),
        ("dog's ear", 2),
        ("dog's tail", 2),
        ("bus's wheel", None),
    ]
    objects = [(entry["name"], entry["instance"]) for entry in document["objects"]]
    assert objects == [("dog", 1), ("dog", 2), ("bus", None)]


def read_back(document: dict, tmp_path) -> tuple[np.ndarray, np.ndarray]:
    """Label map and owners, by pycocotools: the owner is the place of its object among all objects."""
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(document))
    coco = COCO(path)
    labels, owner = np.full((2, 40, 60), -1)
    parts = {c["id"]: i for i, c in enumerate(coco.loadCats(coco.getCatIds())) if "'s" in c["name"]}
    annotations = coco.loadAnns(coco.getAnnIds())
    objects = [a["id"] for a in annotations if a.get("obj_ann_id") == a["id"]]
    for annotation in annotations:
        mask = coco.annToMask(annotation) > 0
        assert mask.sum() == annotation["area"]
        if annotation["category_id"] in parts:
            labels[mask] = parts[annotation["category_id"]]
        if annotation.get("obj_ann_id") == annotation["id"]:
            owner[mask] = objects.index(annotation["id"])
        elif "obj_ann_id" in annotation:  # a part, within its owner
            (whole,) = (other for other in annotations if other["id"] == annotation["obj_ann_id"])
            assert not (mask & ~(coco.annToMask(whole) > 0)).any()
    return labels, owner


def test_coco_is_read_back_equal(result, tmp_path):
    document = result.to_coco(first_annotation_id=11)
    labels, owner = read_back(document, tmp_path)
    assert np.array_equal(labels, result.label_map)
    assert np.array_equal(owner, result.instance_map)
    first, *rest = document["annotations"]
    assert first["category_id"] == len(WORDS) + 1 + DOG
    assert (first["id"], first["obj_ann_id"], first["score"]) == (11, 11, 0.9)
    assert [a.get("obj_ann_id") for a in rest] == [11, 13, 13, 13, None, None], "what has no owner comes last"
    assert [a["id"] for a in document["annotations"]] == [11, 12, 13, 14, 15, 16, 17]
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert names == {1: "dog's ear", 2: "dog's tail", 3: "bus's wheel", 4: "bus", 5: "dog"}


def test_coco_says_where_objects_are(result, tmp_path):
    """Its objects, outlined, can be given again: parts are told from objects by their owners."""
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(result.to_coco()))
    found = GivenObjects.read(path).of("a b.jpg", (40, 60), WORDS)
    assert [some.object for some in found] == ["dog", "dog"], "the rest of the bus has no owner, and is no object"
    for place, some in enumerate(found):
        assert np.array_equal(some.mask, result.instance_map == place)


def test_coco_as_own_data_has_the_same_instances(result, tmp_path):
    assert result.photo is not None
    (tmp_path / "in").mkdir()
    Image.fromarray(result.photo).save(tmp_path / "in/a b.jpg")
    (tmp_path / "test.json").write_text(json.dumps(result.to_coco()))
    dataset = open_dataset("coco", tmp_path).with_instances()
    sample = dataset[0]
    assert sample.instances is not None
    assert np.array_equal(sample.instances, result.instance_map)
    words = dataset.vocabulary.objects
    crowds = [one.label - len(dataset.vocabulary) for one in dataset.regions(0, sample).regions if one.crowd]
    assert [words[label] for label in crowds] == ["bus"]


def test_coco_without_instances_has_no_crowd():
    """Whole objects stand for their pixels without a part there, as they always did."""
    assert [entry["iscrowd"] for entry in photo(with_instances=False).to_coco()["annotations"]] == [0] * 5


def test_labelme_groups_are_owners(result):
    """Shapes of one label and group are one thing to labelme's converters; none may join two owners."""
    shapes = json.loads(result.content("labelme"))["shapes"]
    groups: dict[tuple[str, int], list[np.ndarray]] = {}
    for shape in shapes:
        groups.setdefault((shape["label"], shape["group_id"]), []).append(np.array(shape["points"]))
    assert list(groups) == [("dog's ear", 1), ("dog's ear", 2), ("dog's tail", 2), ("bus's wheel", 6)]
    assert [len(pieces) for pieces in groups.values()] == [2, 2, 1, 1]
    for (label, group), pieces in groups.items():
        points = np.concatenate(pieces)
        segment = next(s for s in result if s.name == label and s.instance == (group if group < 4 else None))
        x, y, width, height = segment.box
        assert (*points.min(0), *points.max(0)) == (x, y, x + width, y + height)


def test_masks(result):
    files = result.files(["masks"], stem="a")
    assert list(files) == [f"a.masks/{name}.png" for name in ("dog_1_ear", "dog_2_ear", "dog_2_tail", "bus_wheel")]
    for content, segment in zip(files.values(), result, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))) == 255, segment.mask)


def test_numbers(result):
    image = Image.open(io.BytesIO(result.content("instance-png")))
    assert image.mode == "I;16"
    assert np.array_equal(np.asarray(image), result.instance_map + 1)


def test_partpq(result):
    pixels = np.asarray(Image.open(io.BytesIO(result.content("partpq"))))
    owned = result.instance_map >= 0
    assert (pixels[~owned] == (255, 0, 255)).all(), "also the bus, which nobody owns"
    assert np.array_equal(pixels[owned][:, 0] - 1, result.object_map[owned])
    assert np.array_equal(pixels[owned][:, 1] - 1, result.instance_map[owned])
    parts = {-1: 255, 0: 1, 1: 2}
    assert pixels[owned][:, 2].tolist() == [parts[label] for label in result.label_map[owned].tolist()]


@pytest.mark.parametrize(
    ("words", "count", "message"),
    [
        ("dog: ear", 255, "can number 254 instances in a photo, and there are 255"),
        ("; ".join(f"o{i}: p" for i in range(100)), 0, "can number 99 objects, and there are 100"),
        (f"dog: {', '.join(f'p{i}' for i in range(100))}", 0, "can number 99 parts of one object, and there are 100"),
    ],
)
def test_what_partpq_cannot_number(words, count, message):
    vocabulary, empty = Vocabulary.load(words), np.full((4, 4), -1)
    instances = [Instance(n + 1, "dog", 0, 1, 0, (0, 0, 0, 0), (0, 0, 1, 1), "given") for n in range(count)]
    made = PartResult.from_maps(empty, empty, empty, vocabulary, instance_map=empty, instances=instances)
    with pytest.raises(PartCLIPSegError, match=message):
        made.content("partpq")
    assert made.content("instance-png")
    if not count:
        assert "photo.instance.png" in made.files(stem="photo")
        assert "photo.partpq.png" not in made.files(stem="photo"), "left out where all are meant"


def test_csv(result):
    header, *rows = csv.reader(io.StringIO(result.content("csv").decode()))
    assert header[-1] == "instance"
    assert [(row[2], row[3], row[5], row[-1]) for row in rows] == [
        # What is left of an owner without a part belongs to its area too.
        ("ear", "60", "0.267857", "1"),
        ("ear", "60", "0.267857", "2"),
        ("tail", "112", "0.500000", "2"),
        ("wheel", "100", "0.714286", ""),
    ]


def test_supervision(result):
    pytest.importorskip("supervision")
    detections = result.to_supervision()
    assert detections["instance"].tolist() == [1, 2, 2, 0]
    assert detections["object"].tolist() == ["dog", "dog", "dog", "bus"]
    assert detections["class_name"].tolist()[0] == "dog's ear"
    assert np.array_equal(detections.mask[1], result["dog 2's ear"].mask)
    assert set(photo(False).to_supervision().data) == {"class_name"}


def test_yolo_has_a_line_for_each_piece(result):
    assert [line.split()[0] for line in result.to_yolo().splitlines()] == ["0", "0", "0", "0", "1", "2"]


def test_legend_and_colours(result):
    module = result.labelled
    (labels, colours), rest = module.painted(), module.without_part
    entries = legend_entries(module.segments, colours, "parts", rest, colours[len(WORDS) :])
    assert [entry.text for entry in entries] == [
        *("dog 2", "tail", "ear", "bus's wheel", "dog 1's ear"),
        *("rest of dog 1", "rest of dog 2", "rest of the bus"),
    ]
    assert [entry.colour for entry in entries[-2:]] == [tuple(colours[labels[11, 20]]), tuple(colours[labels[37, 40]])]
    shades = instance_colours(["dog", "bus", *["dog"] * 6])
    assert len({tuple(colour) for colour in shades.tolist()}) == 8
    assert np.array_equal(shades[[0, 2]], instance_colours(["dog", "dog"]))


@pytest.mark.parametrize("view", ["parts", "objects"])
def test_overlay_outlines_and_numbers_owners(result, view):
    plain, drawn = (np.asarray(some.overlay(view, legend=False), int) for some in (photo(False), result))
    scale = drawn.shape[1] / 60
    if view == "parts":
        inside = tuple(slice(round(start * scale), round(end * scale)) for start, end in ((13, 19), (22, 32)))
        assert np.array_equal(plain[inside], drawn[inside]), "colours of parts stay"
    row, left = round(14 * scale), round(20 * scale)
    dark = (drawn[row, left - 4 : left + 6] == drawn[row, left]).all(1)
    assert dark.sum() == 2, "two pixels wide"
    assert drawn[row, left].max() < 60


def test_formats_of_instances_need_them(tmp_path):
    for name in ("instance-png", "partpq"):
        message = f"the format {name} is about instances, which were not asked for"
        with pytest.raises(UsageError, match=message):
            photo(False).save(tmp_path / "x", formats=["json", name])
        with pytest.raises(UsageError, match=message):
            photo(False).content(name)
    assert not (tmp_path / "x").exists()
    assert "a b.instance.png" in photo().files()
    assert "a b.instance.png" not in photo(False).files()


def test_notebooks_name_owners(result):
    page = result._repr_html_()
    assert "dog 2&#x27;s ear" in page


DIGESTS = {
    "a.parts.json": "1a848db593d5229c",
    "a.areas.csv": "955d2a373f733972",
    "a.coco.json": "e956a528c2cf7a39",
    "a.labelme.json": "33722171163fe949",
    "a.yolo.txt": "6cce9a107dc98dc7",
    "a.studio.json": "872e3d6f13e415c3",
    "record": "dc5e8ada0ec397dc",
    "png": "da8869fedd61a2ef",
    "masks": "6305e508718cb713",
}


def test_without_instances_files_are_what_they_were():
    """Digests of files as they were before there were instances."""
    files = photo(False).files(["json", "csv", "coco", "labelme", "yolo", "label-studio"], stem="a")
    files["record"] = json.dumps(photo(False).labelled.record).encode()
    files["png"] = np.asarray(photo(False).label_image()).tobytes()
    files["masks"] = "".join(photo(False).files(["masks"], stem="a")).encode()
    assert {name: hashlib.sha256(content).hexdigest()[:16] for name, content in files.items()} == DIGESTS


def test_every_photo_file_of_a_data_set_is_made(result):
    for name, kind in data_set_formats().items():
        if kind.make is not None:
            assert kind.content(result.labelled), name
