"""Bulk labelling: every format read back by a parser that is not ours, runs that are killed, photos that are bad."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from partclipseg.apps import bulk
from partclipseg.apps.bulk import BulkJob, Labeller, Manifest, Photo
from partclipseg.apps.bulk_engines import run_processes
from partclipseg.apps.bulk_files import write_collections
from partclipseg.apps.bulk_ray import RayCluster, ray_cluster, run_ray
from partclipseg.apps.cli import main
from partclipseg.errors import PartCLIPSegError
from partclipseg.files import locked
from partclipseg.inference.result import PartResult
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.shapes.renderer import render_scene
from partclipseg.shapes.world import partshapes_world
from partclipseg.vocabulary import Vocabulary

WORDS = "dog: ear, tail, leg; bus: wheel; bird: wing, leg"
FORMATS = ("coco", "yolo", "labelme", "png", "jsonl", "label-studio")


@pytest.fixture(scope="module")
def model(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose logits are smooth, as a trained one's are: all pixels of a token share their weights."""
    from partclipseg.models.partclipseg.model import PartCLIPSegModel

    directory = tmp_path_factory.mktemp("smooth") / "model"
    shutil.copytree(model_directory, directory)
    network = PartCLIPSegModel.from_pretrained(directory)
    with torch.no_grad():
        for head in (network.decoder.upsample, network.decoder.class_upsample):
            for layer in (head[2], head[4]):
                layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    network.save_pretrained(directory)
    return directory


def make_photos(folder: Path, count: int) -> None:
    for index in range(count):
        path = folder / f"scenes/{index % 3}/{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render_scene("test", index, 128).image).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven scenes in folders, two photos that differ in their suffix only, and two that cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    make_photos(folder, 11)
    first = folder / "scenes/0/000.png"
    Image.open(first).resize((90, 60)).save(folder / "twin.jpg")
    Image.open(first).resize((60, 90)).save(folder / "twin.png")
    (folder / "no photo.jpg").write_text("not a photo")
    (folder / "cut.png").write_bytes(first.read_bytes()[:900])
    return folder


def arguments(photos: Path, output: Path, model: Path, *more: str) -> list[str]:
    options = ["--vocabulary", WORDS, "--model", str(model), "--batch-size", "4", "--formats", *FORMATS]
    return ["label", str(photos), "--output", str(output), *options, "--workers", "1", *more]


@pytest.fixture(scope="module")
def labelled(photos: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("labels") / "out"
    assert main(arguments(photos, output, model)) == 1  # two photos are bad
    return output


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


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_relative_to(folder / "yolo/images")
    }


def records(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]


def index_map(output: Path, stem: str) -> np.ndarray:
    labels = np.asarray(Image.open(output / f"labels/{stem}.png")).astype(int)
    return np.where(labels == 255, -1, labels)


def rasterise(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies inside by the even-odd rule: one crossing test for each edge, nothing of the writer."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    inside = np.zeros(size, dtype=bool)
    for polygon in polygons:
        odd = np.zeros(size, dtype=bool)
        for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if y1 != y2:
                crosses = (y1 > y) != (y2 > y)
                odd ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
        inside |= odd
    return inside


def assert_outlines(polygons: dict[str, list[np.ndarray]], labels: np.ndarray, vocabulary=None) -> None:
    """Outlines follow the masks: a pixel differs only within reach of a border, and IoU is high.

    Outlines may leave the border by 1 pixel, a pixel's centre is half a diagonal from its corners: a pixel farther
    than 2 from every other label must be right. At most half of a band of 1 pixel may be wrong: with A pixels and a
    border of P pixels, IoU is at least 1 - P / A or so; nine tenths for anything as compact as these segments.
    """
    names = (vocabulary or Vocabulary.load(WORDS)).names
    padded = np.pad(labels, 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    interior = (windows == labels[:, :, None, None]).all((2, 3))
    checked = 0
    for index, name in enumerate(names):
        mask = labels == index
        drawn = rasterise(polygons.get(name, []), labels.shape)
        assert (mask == drawn)[interior].all(), name
        if (mask & interior).sum() > 0.5 * mask.sum() > 0:  # compact
            assert (mask & drawn).sum() / (mask | drawn).sum() > 0.9, name
            checked += 1
    assert checked, "no segment was compact enough for the test to mean anything"


# -- what is written ------------------------------------------------------------------------------------------


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
    found = bulk.find_all(job.folder, job.output)
    manifest = Manifest(tmp_path / "manifest.jsonl")
    manifest.append({"photo": photo.path, "status": "done"} for photo in found)
    write_collections(job, found, manifest)
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


# -- going on -------------------------------------------------------------------------------------------------


def test_a_second_run_does_nothing_but_try_the_failed(labelled, photos, model, tmp_path, capsys):
    output = tmp_path / "out"
    shutil.copytree(labelled, output, symlinks=True)
    shutil.copytree(photos, tmp_path / "photos")
    rest = [tmp_path / "photos", output, model]
    options = json.loads((output / "options.json").read_text())
    (output / "options.json").write_text(json.dumps(options | {"folder": str((tmp_path / "photos").resolve())}))
    Image.open(photos / "twin.jpg").save(tmp_path / "photos/no photo.jpg")
    (tmp_path / "photos/cut.png").unlink()
    assert main(arguments(*rest)) == 0
    # The batch of the mended photo is done again whole.
    assert "10 of 14 photos are labelled already" in " ".join(capsys.readouterr().out.split())
    assert len(records(output)) == 14
    assert main(arguments(*rest)) == 0
    assert "14 of 14 photos are labelled already" in " ".join(capsys.readouterr().out.split())


def test_missing_files_and_torn_lines_are_made_good(labelled, photos, model, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(labelled, output, symlinks=True)
    (output / "labels/scenes/1/001.png").unlink()  # all photos of its batch are done
    (output / "labels/.partclipseg-99999999-0123abcd.tmp.png").write_text("what a killed run leaves")
    lines = (output / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (output / "manifest.jsonl").write_bytes(b"".join(lines[:-2]) + lines[-2][:30])
    for name in ("annotations.coco.json", "report.html"):
        (output / name).unlink()
    assert main(arguments(photos, output, model)) == 1
    assert digests(output) == digests(labelled)


def test_what_is_appended_after_a_torn_line_is_kept(tmp_path):
    path = tmp_path / "manifest.jsonl"
    first, second = ({"photo": name, "status": "failed", "error": "x"} for name in "ab")
    Manifest(path).append([first])
    with path.open("a") as file:
        file.write('{"photo": "b", "sta')
    Manifest(path).append([second])
    assert list(Manifest(path)) == [first, second]


@pytest.mark.parametrize("name", ["a\u2028b", "a\u0085b", "a\nb", "a\rb", "a\x1eb"])
def test_names_with_line_ends_of_their_own(tmp_path, name):
    record = {"photo": name, "status": "done"}
    Manifest(tmp_path / "manifest.jsonl").append([record])
    again = Manifest(tmp_path / "manifest.jsonl")
    assert list(again) == [record]
    assert again.is_done(Photo(name, name))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--batch-size", "3"], "batch_size was 4, now 3"),
        (["--vocabulary", WORDS.replace("wing, leg", "wing, beak")], "without bird's leg and with bird's beak"),
        (
            ["--vocabulary", f"{WORDS}; ship: bow, hull, keel, mast, sail, deck, rope"],
            "vocabulary now with ship's bow, ship's hull, ship's keel, ship's mast, ship's sail and 2 more)",
        ),
        (["--formats", "coco"], "formats now without yolo, labelme, png, jsonl, label-studio"),
        (["--objects", "dog"], "objects now with dog"),
        (["--dtype", "bfloat16"], "dtype was float32, now bfloat16"),
    ],
)
def test_changed_options_are_refused_by_name(labelled, photos, model, tmp_path, capsys, change, named):
    before = digests(labelled)
    assert main([*arguments(photos, labelled, model), *change]) == 2
    assert named in capsys.readouterr().err
    assert digests(labelled) == before


def test_the_number_type_stays_that_of_the_first_run(model, tmp_path):
    """Left out, it is bfloat16 on a GPU and float32 on a CPU, so that another device would not go on."""
    make_photos(tmp_path / "photos", 1)
    call = arguments(tmp_path / "photos", tmp_path / "out", model)
    assert main([*call, "--dtype", "bfloat16"]) == 0
    (tmp_path / "out/labels/scenes/0/000.png").unlink()
    assert main(call) == 0
    assert json.loads((tmp_path / "out/options.json").read_text())["dtype"] == "bfloat16"


def test_changed_weights_are_refused(labelled, photos, model, tmp_path, capsys):
    other = tmp_path / "model"
    shutil.copytree(model, other)
    options = json.loads((labelled / "options.json").read_text())
    bulk.check_options(labelled / "options.json", options)
    segmenter = PartSegmenter.from_pretrained(other, "cpu")
    assert bulk.fingerprint(segmenter.model) == options["weights"]
    with torch.no_grad():
        segmenter.model.background[0, 0] += 1e-3
    with pytest.raises(PartCLIPSegError, match="weights have changed"):
        bulk.check_options(labelled / "options.json", options | {"weights": bulk.fingerprint(segmenter.model)})


def test_two_runs_at_once_are_refused(labelled, photos, model, capsys):
    with locked(labelled):
        assert main(arguments(photos, labelled, model)) == 1
    assert "another run is writing" in capsys.readouterr().err


# -- photos and workers that fail -----------------------------------------------------------------------------


def test_an_output_inside_the_folder_is_not_labelled(tmp_path):
    make_photos(tmp_path, 2)
    (tmp_path / "out/labels").mkdir(parents=True)
    shutil.copy(tmp_path / "scenes/0/000.png", tmp_path / "out/labels/000.png")
    (tmp_path / "out/yolo").mkdir()
    (tmp_path / "out/yolo/images").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "out/labels")
    (tmp_path / "scenes/circle").symlink_to(tmp_path)
    assert [p.path for p in bulk.find_all(tmp_path, tmp_path / "out")] == ["scenes/0/000.png", "scenes/1/001.png"]


@given(st.sets(st.from_regex(r"([ab]/)?[ab](\.jpg|\.png){1,3}", fullmatch=True)))
@example({"a.jpg", "a.png", "a.jpg.jpg"})
def test_all_stems_differ(paths):
    stems = bulk.find_stems(sorted(paths))
    assert stems.keys() == paths
    assert len(set(stems.values())) == len(paths)
    assert all(stem in (path, path[:-4]) for path, stem in stems.items())


def test_stems_that_differ_in_capitals_keep_their_suffixes():
    assert bulk.find_stems(["A.jpg", "a.png", "b.png"]) == {"A.jpg": "A.jpg", "a.png": "a.png", "b.png": "b"}


def test_linked_folders_of_photos_are_labelled(tmp_path):
    make_photos(tmp_path / "elsewhere", 1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/[link]").symlink_to(tmp_path / "elsewhere")
    assert [p.path for p in bulk.find_all(tmp_path / "photos", tmp_path / "out")] == ["[link]/scenes/0/000.png"]


def test_photos_inside_the_results_are_refused(tmp_path):
    make_photos(tmp_path / "out", 1)
    for output in ("out", "out/scenes"):
        with pytest.raises(PartCLIPSegError, match="lies in the folder for the results"):
            bulk.find_all(tmp_path / "out/scenes", tmp_path / output)


def small_job(photos: Path, output: Path, model: Path) -> BulkJob:
    return BulkJob(photos, output, Vocabulary.load(WORDS), ("png",), str(model), batch_size=4)


def test_the_photo_that_breaks_the_model_fails_alone(photos, model, tmp_path, monkeypatch):
    segmenter = PartSegmenter.from_pretrained(model, "cpu")
    whole = segmenter.pixel_values

    def pixel_values(images):
        if any((image == [255, 0, 0]).all() for image in images):
            raise RuntimeError("out of memory")
        return whole(images)

    monkeypatch.setattr(segmenter, "pixel_values", pixel_values)
    shutil.copytree(photos, tmp_path / "photos")
    Image.new("RGB", (70, 50), (255, 0, 0)).save(tmp_path / "photos/red.png")
    batch = [Photo("scenes/0/000.png", "a"), Photo("red.png", "b"), Photo("twin.png", "c")]
    found = Labeller(small_job(tmp_path / "photos", tmp_path, model), segmenter)(batch)
    assert [record["status"] for record in found] == ["done", "failed", "done"]
    assert found[1]["error"] == "RuntimeError: out of memory"
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["a.png", "c.png"]


def test_a_full_disk_stops_the_run(photos, model, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("partclipseg.apps.bulk._write", full)
    assert main(arguments(photos, tmp_path / "out", model)) == 1
    assert "No space left on device): make room" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--workers", "0"], 2, "--workers must be at least 1, not 0"),
        (["--min-score", "-1"], 2, "--min-score must be from 0 to 1, not -1"),
        (["--objects", "cat"], 2, "'cat' is not an object"),
        (["--formats"], 2, "no format is asked for"),
        (["--engine", "ray", "--device", "cuda:1"], 2, "--device cuda:1 cannot be had with --engine ray"),
    ],
)
def test_wrong_calls_are_named(photos, model, tmp_path, capsys, change, code, message):
    assert main([*arguments(photos, tmp_path / "out", model), *change]) == code
    assert message in capsys.readouterr().err


def test_folder_without_photos(model, tmp_path, capsys):
    assert main(arguments(tmp_path, tmp_path / "out", model)) == 2
    assert "no photos in this folder" in capsys.readouterr().err
    assert main(arguments(tmp_path / "nowhere", tmp_path / "out", model)) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_names_that_are_no_unicode(photos, model, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy(photos / "scenes/0/000.png", tmp_path / name)
    except OSError:
        pytest.skip("this file system takes Unicode only")
    output = tmp_path / "out"
    assert main(arguments(tmp_path, output, model)) == 0
    assert records(output)[0]["photo"] == name
    assert (output / "labels" / name).is_file()
    assert r"caf\udce9.png" in (output / "report.html").read_text()


# -- long runs ------------------------------------------------------------------------------------------------


def run_command(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "partclipseg.apps.cli", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """300 scenes and the real photos."""
    folder = tmp_path_factory.mktemp("many")
    make_photos(folder, 300)
    for path in (shared / "data/photos").glob("*.jpg"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(many: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "out"
    process = run_command(*arguments(many, output, model, "--workers", "2"))
    assert process.wait(280) == 0, process.communicate()[1]
    assert len(records(output)) >= 305
    return output


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def ray_listeners() -> list[str]:
    """Local addresses, as the kernel writes them, on which processes of Ray listen."""
    sockets: dict[str, str] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                sockets[f"socket:[{fields[9]}]"] = fields[1].split(":")[0]
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(word in (process / "cmdline").read_text() for word in ("ray::", "raylet", "gcs_server")):
                links = [str(path.readlink()) for path in (process / "fd").iterdir()]
                found += [sockets[link] for link in links if link in sockets]
        except OSError:
            continue  # it has ended meanwhile
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "engine"), [("1", "local"), ("2", "local"), ("2", "ray")])
def test_killed_and_taken_up_again_equals_uninterrupted(many, model, uninterrupted, tmp_path, workers, engine):
    if engine == "ray":
        pytest.importorskip("ray")
    output = tmp_path / "out"
    command = arguments(many, output, model, "--workers", workers, "--engine", engine)
    process = run_command(*command)
    deadline = time.monotonic() + 240
    addresses: set[str] = set()
    while lines_in(output / "manifest.jsonl") < 150 and process.poll() is None and time.monotonic() < deadline:
        addresses.update(ray_listeners() if engine == "ray" else ())
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = lines_in(output / "manifest.jsonl")
    assert 150 <= before < 300
    assert not (output / "annotations.coco.json").exists()
    process = run_command(*command)
    said = process.communicate(timeout=280)[0]
    assert process.returncode == 0
    assert f"{before} of 305 photos are labelled already" in said
    assert digests(output) == digests(uninterrupted)
    assert bool(addresses) == (engine == "ray")
    assert addresses <= LOOPBACK, "Ray can be reached from other machines"


@pytest.mark.slow
def test_a_worker_that_dies_takes_one_photo_with_it(photos, model, tmp_path):
    job = small_job(photos, tmp_path, model)
    found = bulk.find_all(photos, tmp_path / "elsewhere")
    batches = bulk.open_batches(job, found, Manifest(tmp_path / "none"))
    stream = run_processes(job, batches, ["cpu"], 2, 1)
    done = next(stream)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("finds the workers through /proc")
    workers = [
        int(pid) for pid in children.read_text().split() if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    os.kill(workers[0], signal.SIGKILL)
    done += [record for part in stream for record in part]
    assert sorted(record["photo"] for record in done) == sorted(photo.path for photo in found)
    assert sum(record["status"] == "done" for record in done) == 13


@pytest.mark.slow
def test_a_photo_that_kills_its_actor_fails_alone(photos, model, tmp_path, monkeypatch):
    pytest.importorskip("ray")

    class Deadly(BulkJob):
        """Local, so that it goes to the actors by value."""

        def own_files(self, photo):
            if photo.path == "scenes/1/004.png":
                os._exit(9)
            return super().own_files(photo)

    monkeypatch.chdir(tmp_path)  # actors do not share the working folder
    shutil.copytree(photos, "photos")
    found = bulk.find_all(Path("photos"), Path("out"))
    batches = [found[i : i + 4] for i in range(0, len(found), 4)]
    job = Deadly(Path("photos"), Path("out"), Vocabulary.load(WORDS), ("png",), str(model), batch_size=4)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with ray_cluster(2, 2, use_gpus=False) as cluster:
        assert cluster == RayCluster(workers=2, gpus=0, threads=1)
        done = [record for part in run_ray(job, batches, cluster) for record in part]
    assert signal.getsignal(signal.SIGTERM) is on_sigterm
    assert sorted(record["photo"] for record in done) == [photo.path for photo in found]
    errors = {record["photo"]: record["error"] for record in done if record["status"] == "failed"}
    assert errors.keys() == {"cut.png", "no photo.jpg", "scenes/1/004.png"}
    assert "the process died on this photo" in errors["scenes/1/004.png"]
    assert len(list(Path("out/labels").rglob("*.png"))) == 12


@pytest.mark.parametrize(
    ("workers", "gpus", "share"),
    [(1, 0, 0), (1, 1, 1), (4, 1, 0.25), (3, 2, 0.5), (3, 8, 1), (8, 8, 1)],
)
def test_every_worker_of_ray_finds_room_on_a_gpu(workers, gpus, share):
    assert RayCluster(workers, gpus, threads=1).share == share
    assert gpus == 0 or workers <= gpus * (1 // share)


@pytest.mark.parametrize(
    ("resources", "workers", "use_gpus", "expected"),
    [
        ({"CPU": 64.0, "GPU": 4.0}, None, True, RayCluster(4, 4, 16)),
        ({"CPU": 64.0, "GPU": 4.0}, 8, True, RayCluster(8, 4, 8)),
        ({"CPU": 64.0, "GPU": 4.0}, None, False, RayCluster(32, 0, 2)),
        ({"CPU": 64.0}, None, True, RayCluster(32, 0, 2)),
    ],
)
def test_workers_and_gpus_are_those_of_the_cluster(monkeypatch, resources, workers, use_gpus, expected):
    """The machine that the command is given on need not have any."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    with ray_cluster(workers, 2, use_gpus) as cluster:
        assert cluster == expected


def test_missing_ray_and_absent_clusters_are_named(monkeypatch):
    ray = pytest.importorskip("ray")

    def nobody(**_):
        raise ConnectionError("no answer")

    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.setattr(ray, "init", nobody)
    with pytest.raises(PartCLIPSegError, match="no Ray cluster answers at elsewhere:6379"), ray_cluster(1, 1, True):
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PartCLIPSegError, match=r'pip install -e "\.\[ray\]" in the folder'), ray_cluster(1, 1, True):
        pass
