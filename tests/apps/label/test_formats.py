"""What a run writes: every format is read back by a parser that is not ours."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.apps.label.helpers import (
    WORDS,
    arguments,
    assert_outlines,
    index_map,
    make_photos,
    records,
)

from partclipseg.apps.cli import main
from partclipseg.apps.label.collections import write_collections
from partclipseg.apps.label.job import BulkJob
from partclipseg.apps.label.manifest import Manifest
from partclipseg.apps.label.people import Results
from partclipseg.apps.label.photos import find_all
from partclipseg.inference.photos import LoadedPhoto
from partclipseg.inference.result import PartResult
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.kept_files import KeptFiles
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.shapes.renderer import render_scene
from partclipseg.shapes.world import partshapes_world
from partclipseg.vocabulary import Vocabulary


def test_a_second_look_when_asked(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_photos(tmp_path / "photos", 2)
    looks: list[int] = []

    def counted(self, photos, maps, vocabulary, present_objects=None):
        looks.append(len(photos))
        return maps

    monkeypatch.setattr(PartSegmenter, "look_again", counted)
    once, twice = (arguments(tmp_path / "photos", tmp_path / name, model) for name in ("once", "twice"))
    assert main(once) == 0
    assert looks == []
    assert main([*twice, "--zoom"]) == 0
    assert looks == [2]
    assert main(twice) == 2, "a run goes on as it was begun"


def test_manifest_has_a_line_for_every_photo_in_order(labelled, photos):
    lines = records(labelled)
    assert [line["photo"] for line in lines] == sorted(line["photo"] for line in lines)
    assert {line["photo"]: line.get("error", "")[:21] for line in lines if line["status"] == "failed"} == {
        "cut.png": "truncated or damaged ",
        "no photo.jpg": "not a photo in a know",
    }
    done = [line for line in lines if line["status"] == "done"]
    assert len(done) == 13
    assert all(str(photos) not in json.dumps(line) for line in lines), "paths are relative to the folder"


def test_photos_of_one_stem_do_not_overwrite_each_other(labelled):
    assert index_map(labelled, "twin.jpg").shape == (60, 90)
    assert index_map(labelled, "twin.png").shape == (90, 60)


def test_coco_loads_in_pycocotools(labelled):
    from pycocotools.coco import COCO

    coco = COCO(labelled / "annotations.coco.json")
    coco.info()  # raises without a header
    assert len(coco.getImgIds()) == 13
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(Vocabulary.load(WORDS).names)
    for image in coco.loadImgs(coco.getImgIds()):
        labels = np.full((image["height"], image["width"]), -1)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            mask = coco.annToMask(annotation).astype(bool)
            assert annotation["area"] == mask.sum()
            labels[mask] = annotation["category_id"] - 1
        stem = image["file_name"] if "twin" in image["file_name"] else image["file_name"].removesuffix(".png")
        assert (labels == index_map(labelled, stem)).all()
    assert len(coco.anns) > 13


def ultralytics_list(data_yaml: Path) -> list[str]:
    """Paths of the training images as Ultralytics finds them: `check_det_dataset`, `BaseDataset.get_img_files`."""
    source = (data_yaml.parent / yaml.safe_load(data_yaml.read_text())["train"]).resolve()
    if source.is_dir():
        return sorted(str(path) for path in source.rglob("*.*"))
    parent = f"{source.parent}{os.sep}"
    lines = source.read_text(encoding="utf-8").strip().splitlines()
    return sorted(line.replace("./", parent) if line.startswith("./") else line for line in lines)


def ultralytics_label(image: str) -> Path:
    """Its `img2label_paths`."""
    return Path("/labels/".join(image.rsplit("/images/", 1)).rsplit(".", 1)[0] + ".txt")


def test_yolo_is_read_back(labelled, photos):
    data = yaml.safe_load((labelled / "yolo/data.yaml").read_text())
    assert data["names"] == dict(enumerate(Vocabulary.load(WORDS).names))
    assert data["val"] == data["train"]
    images = ultralytics_list(labelled / "yolo/data.yaml")
    assert len(images) == 11, "neither failed photos nor those of one stem"
    for image in images:
        text = ultralytics_label(image).read_text()
        height, width = np.asarray(Image.open(image)).shape[:2]
        polygons: dict[str, list[np.ndarray]] = {}
        for line in text.splitlines():
            index, *numbers = line.split()
            points = np.array(numbers, dtype=float).reshape(-1, 2)
            assert points.min() >= 0
            assert points.max() <= 1
            polygons.setdefault(data["names"][int(index)], []).append(points * [width, height])
        stem = Path(image).relative_to(labelled.resolve() / "yolo/images").with_suffix("")
        assert_outlines(polygons, index_map(labelled, str(stem)))


def test_yolo_lists_only_photos_whose_labels_it_finds(tmp_path):
    names = ("a.jpg", "b.c.jpg", "twin.jpg", "twin.png", "images/d.jpg", "e\u2028.jpg", os.fsdecode(b"caf\xe9.jpg"))
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"")
    job = BulkJob(tmp_path / "photos", tmp_path / "out", Vocabulary.load(WORDS), ("yolo",))
    found = find_all(job.folder, job.output).photos
    manifest = Manifest(tmp_path / "manifest.jsonl", 6)
    manifest.append({"photo": photo.path, "status": "done", "width": 1, "height": 1, "segments": []} for photo in found)
    write_collections(job, found, Results(manifest), KeptFiles(job.output, "collections"))
    images = ultralytics_list(job.output / "yolo/data.yaml")
    assert [Path(image).name for image in images] == ["a.jpg", "b.c.jpg"]
    own = {photo.path: job.own_files(photo)["yolo"].resolve() for photo in found}
    assert [ultralytics_label(image) for image in images] == [own["a.jpg"], own["b.c.jpg"]]


def test_labelme_is_read_back(labelled, photos):
    for path in sorted((labelled / "labelme/scenes").rglob("*.json")):
        document = json.loads(path.read_text())
        # labelme and X-AnyLabeling look for the photo from the file's own folder.
        photo = path.parent / document["imagePath"]
        assert Image.open(photo).size == (document["imageWidth"], document["imageHeight"])
        polygons: dict[str, list[np.ndarray]] = {}
        for shape in document["shapes"]:
            assert shape["shape_type"] == "polygon"
            polygons.setdefault(shape["label"], []).append(np.array(shape["points"]))
        assert_outlines(polygons, index_map(labelled, str(path.relative_to(labelled / "labelme").with_suffix(""))))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_outlines_of_drawn_things_are_read_back(index):
    """Curves, holes and thin parts, which the random model has none of."""
    scene = render_scene("test", index, 192)
    vocabulary = partshapes_world().vocabulary
    parts = scene.parts.astype(np.int32)
    objects = np.array([*vocabulary.class_to_object, -1])[parts]
    result = PartResult.from_maps(parts, objects, np.ones(parts.shape), vocabulary)
    polygons: dict[str, list[np.ndarray]] = {}
    for line in result.to_yolo().splitlines():
        number, *points = line.split()
        name = vocabulary.names[int(number)]
        polygons.setdefault(name, []).append(np.array(points, dtype=float).reshape(-1, 2) * 192)
    assert_outlines(polygons, parts, vocabulary)


def test_label_studio_is_read_back(labelled, photos):
    import xml.etree.ElementTree as ElementTree

    interface = ElementTree.parse(labelled / "label_studio.xml").getroot()
    (labels,) = interface.findall("PolygonLabels")
    (image,) = interface.findall("Image")
    tasks = json.loads((labelled / "label_studio.json").read_text())
    assert len(tasks) == 13
    assert image.get("value") == "$image"
    known = {label.get("value") for label in labels}
    for task in tasks:
        (place,) = parse_qs(urlparse(task["data"]["image"]).query)["d"]  # below the document root
        assert (photos.parent / place).is_file()
        path = str(Path(place).relative_to(photos.name))
        polygons: dict[str, list[np.ndarray]] = {}
        for region in task["predictions"][0]["result"]:
            assert (region["from_name"], region["to_name"]) == (labels.get("name"), image.get("name"))
            (name,) = region["value"]["polygonlabels"]
            assert name in known
            scale = np.array([region["original_width"], region["original_height"]]) / 100
            polygons.setdefault(name, []).append(np.array(region["value"]["points"]) * scale)
        if path.startswith("scenes"):
            assert_outlines(polygons, index_map(labelled, path.removesuffix(".png")))


def test_jsonl_has_the_done_photos(labelled):
    lines = [json.loads(line) for line in (labelled / "labels.jsonl").read_text().splitlines()]
    assert [line["photo"] for line in lines] == [r["photo"] for r in records(labelled) if r["status"] == "done"]
    assert all("status" not in line for line in lines)


def test_labels_are_those_of_the_segmenter(labelled, photos, model):
    result = PartSegmenter.from_pretrained(model, "cpu")(photos / "scenes/1/004.png", WORDS)
    # Alone in its batch, so that sums come out differently in the last digits: ties may fall the other way.
    assert (index_map(labelled, "scenes/1/004") == result.label_map).mean() > 0.999


def test_parts_below_a_score_are_left_out(labelled, photos, model, tmp_path):
    output = tmp_path / "out"
    before = [segment["score"] for record in records(labelled) for segment in record.get("segments", ())]
    different = sorted(set(before))
    limit = sum(different[len(different) // 2 :][:2]) / 2  # between two, since they are written rounded
    assert main([*arguments(photos, output, model), "--min-score", str(limit)]) == 1  # of the photos two are bad
    after = [segment["score"] for record in records(output) for segment in record.get("segments", ())]
    assert sorted(after) == sorted(score for score in before if score >= limit)
    shapes = [s for path in (output / "labelme").rglob("*.json") for s in json.loads(path.read_text())["shapes"]]
    assert min(shape["score"] for shape in shapes) >= limit - 1e-3


def test_report_is_self_contained(labelled):
    page = (labelled / "report.html").read_text()
    assert "13" in page
    assert "no photo.jpg" in page
    assert page.count("data:image/jpeg;base64,") == 13
    assert "http" not in page.replace("http-equiv", "")


def test_fast_reading_when_asked(photos, labelled, model, tmp_path, monkeypatch):
    decoded: list[tuple[bool, bool]] = []
    read = LoadedPhoto.read

    def noted(source, image_shape, max_pixels, keep=True, fast=False):
        decoded.append((keep, fast))
        return read(source, image_shape, max_pixels, keep, fast)

    monkeypatch.setattr(LoadedPhoto, "read", noted)
    output = tmp_path / "fast"
    assert main(arguments(photos, output, model, "--fast-reading")) == 1  # two photos cannot be read
    assert set(decoded) == {(False, True)}
    assert json.loads((output / "options.json").read_text())["fast_reading"] is True
    assert "fast_reading" not in json.loads((labelled / "options.json").read_text())
    exact, fast = ({record["photo"]: record for record in records(run)} for run in (labelled, output))
    assert exact.keys() == fast.keys()
    for name, record in exact.items():
        assert all(record.get(key) == fast[name].get(key) for key in ("status", "error", "width", "height", "content"))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--zoom"], "zoom looks"),
        (["--instances", "components"], "instances look"),
        ([], "this model looks"),
    ],
)
def test_fast_reading_is_refused(photos, model, tmp_path, monkeypatch, capsys, more, reason):
    if not more:
        monkeypatch.setattr(PartCLIPSegModel, "ahead_shape", None)
    assert main(arguments(photos, tmp_path / "out", model, "--fast-reading", *more)) == 2
    expected = f"fast reading cannot be used here, since {reason} at photos at their own size: leave it out"
    assert expected in capsys.readouterr().err


def test_words_of_any_object(model: Path, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 1)
    command = ["label", str(tmp_path / "photos"), "--output", str(tmp_path / "out"), "--model", str(model)]
    assert main([*command, "--vocabulary", "any: handle", "--formats", "coco", "--workers", "1"]) == 0
    content = json.loads((tmp_path / "out/annotations.coco.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["handle"]
