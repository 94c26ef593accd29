"""Folders labelled with instances: stopped and taken up again, corrected, refused with other options."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.apps.label.helpers import WORDS, digests, make_photos, records

from partclipseg.apps.cli import main
from partclipseg.apps.label.job import BulkJob
from partclipseg.apps.label.labeller import Labeller
from partclipseg.models.registry import built_in_detector

FORMATS = (
    *("coco", "yolo", "labelme", "png", "jsonl", "csv", "masks", "soft-masks", "label-studio"),
    *("instance-png", "partpq"),
)


def call(photos: Path, output: Path, model: Path, *more: str) -> list[str]:
    options = ["--vocabulary", WORDS, "--model", str(model), "--batch-size", "4"]
    options += [] if "--formats" in more else ["--formats", *FORMATS]
    return ["label", str(photos), "--output", str(output), *options, "--workers", "1", *more]


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("album")
    make_photos(folder, 6)
    return folder


@pytest.fixture(scope="module")
def boxes(tmp_path_factory) -> Path:
    """Two dogs, the second without a mask's help over the first, and a bus in each photo but the first."""
    path = tmp_path_factory.mktemp("boxes") / "boxes.json"
    found = [["dog", 10, 10, 70, 110], ["dog", 50, 20, 120, 120], ["bus", 0, 0, 40, 40]]
    path.write_text(json.dumps({f"{n % 3}/{n:03}.png": found if n else [] for n in range(6)}))
    return path


@pytest.fixture(scope="module")
def labelled(album, model, boxes, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("labels") / "out"
    assert main(call(album, output, model, "--instances", str(boxes))) == 0
    return output


def test_files_agree(labelled):
    for record in records(labelled):
        stem = record["photo"].removesuffix(".png")
        numbers = np.asarray(Image.open(labelled / f"instances/{stem}.png")).astype(int)
        assert [(numbers == some["number"]).sum() for some in record["instances"]] == [
            some["area"] for some in record["instances"]
        ]
        for segment in record["segments"]:
            assert segment["instance"] is not None, "without a first look nothing is without an owner"
        shapes = json.loads((labelled / f"labelme/{stem}.json").read_text())["shapes"]
        owned = {(segment["name"], segment["instance"]) for segment in record["segments"]}
        assert {(shape["label"], shape["group_id"]) for shape in shapes} <= owned
    assert any(record["instances"] and record["segments"] for record in records(labelled))
    coco = json.loads((labelled / "annotations.coco.json").read_text())
    assert all("obj_ann_id" in annotation for annotation in coco["annotations"])
    assert "instance" in (labelled / "areas.csv").read_text().splitlines()[0]


def test_a_run_that_is_stopped_goes_on_to_the_same_bytes(labelled, album, model, boxes, tmp_path, monkeypatch):
    """As after `kill -9`: the second batch has no line, and some files of the first are gone."""
    output, done = tmp_path / "out", []
    original = Labeller.__call__

    def dying(self, batch):
        if done:
            raise KeyboardInterrupt
        done.append(batch)
        return original(self, batch)

    monkeypatch.setattr(Labeller, "__call__", dying)
    arguments = call(album, output, model, "--instances", str(boxes))
    assert main(arguments) == 130
    monkeypatch.undo()
    assert main(arguments) == 0
    assert digests(output) == digests(labelled)
    # Files that are deleted are made again from the manifest, to the byte.
    for folder in ("instances", "partpq", "labelme", "labels"):
        shutil.rmtree(output / folder)
    assert main(arguments) == 0
    assert digests(output) == digests(labelled)


def test_drafts_are_made_again_from_records(labelled, album, model, boxes, tmp_path):
    """Every file of a photo follows from its record alone: nothing of its instances is lost."""
    from partclipseg.apps.label.drafts import draft
    from partclipseg.apps.label.photos import find_all
    from partclipseg.apps.label.recorded import recorded_result
    from partclipseg.vocabulary import Vocabulary

    job = BulkJob(album, labelled, Vocabulary.load(WORDS), FORMATS)
    photos = {photo.path: photo for photo in find_all(album, labelled).photos}
    for record in records(labelled):
        photo = photos[record["photo"]]
        for name, path in job.own_files(photo).items():
            assert draft(job, name, photo, recorded_result(job, record)) == path.read_bytes(), name


def test_files_that_are_not_read_back_are_a_persons_too(labelled, album, model, boxes, tmp_path, capsys):
    output = tmp_path / "out"
    shutil.copytree(labelled, output, symlinks=True)
    places = [output / "instances/scenes/1/001.png", output / "partpq/scenes/1/001.png"]
    for path in places:
        Image.new("L", (128, 128), 1).save(path)
    theirs = [path.read_bytes() for path in places]
    for _ in range(2):
        assert main(call(album, output, model, "--instances", str(boxes))) == 0
        assert [path.read_bytes() for path in places] == theirs
        assert "2 files are a person's and kept; 0 photos are taken into" in capsys.readouterr().out
        (output / "labels/scenes/1/001.png").unlink(missing_ok=True)  # so that the photo is labelled again
    for path in places:
        path.unlink()
    assert main(call(album, output, model, "--instances", str(boxes))) == 0
    assert digests(output) == digests(labelled)


def test_corrected_parts_keep_their_owners(labelled, album, model, boxes, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(labelled, output, symlinks=True)
    options = json.loads((output / "options.json").read_text())
    record = next(r for r in records(labelled) if len({s["instance"] for s in r["segments"]}) > 1)
    stem = record["photo"].removesuffix(".png")
    labels = np.asarray(Image.open(output / f"labels/{stem}.png")).copy()
    before = np.asarray(Image.open(output / f"instances/{stem}.png")).astype(int)
    labels[60:64, 20:24], labels[0:4, 100:104] = 0, 0  # an ear within the first dog's box, and one far from all
    palette = Image.open(output / f"labels/{stem}.png").getpalette()
    changed = Image.fromarray(labels, mode="P")
    changed.putpalette(palette)
    changed.save(output / f"labels/{stem}.png")
    assert options["instances"] == str(boxes)
    assert main(call(album, output, model, "--instances", str(boxes))) == 0
    after = np.asarray(Image.open(output / f"instances/{stem}.png")).astype(int)
    assert (after[60:64, 20:24] == 1).all()
    assert (after[0:4, 100:104] == 0).all()
    untouched = np.ones(labels.shape, bool)
    untouched[60:64, 20:24] = untouched[0:4, 100:104] = False
    assert np.array_equal(after[untouched], before[untouched])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ([], "instances was {boxes}, now None"),
        (["--instances", "components"], "instances was {boxes}, now components"),
        (["--instances", "{boxes}", "--rest"], "rest was False, now True"),
    ],
)
def test_other_options_are_refused(labelled, album, model, boxes, capsys, change, named):
    more = [text.format(boxes=boxes) for text in change]
    formats = ["--formats", *(name for name in FORMATS if more or name not in {"instance-png", "partpq"})]
    assert main(call(album, labelled, model, *more, *formats)) == 2
    assert named.format(boxes=boxes) in capsys.readouterr().err


@pytest.fixture(scope="module")
def by_detector(model, tmp_path_factory) -> Path:
    """A folder that was labelled from within, where model, detector and results lie, too."""
    home = tmp_path_factory.mktemp("home")
    make_photos(home / "photos", 1)
    shutil.copytree(model, home / "model")
    shutil.copytree(built_in_detector(), home / "detector")
    (home / "link").symlink_to("detector")
    (home / "boxes.json").write_text(json.dumps({"scenes/0/000.png": [["dog", 10, 10, 70, 110]]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for output, source in (("by detector", "detector"), ("by boxes", "boxes.json")):
            assert main(call(Path("photos"), Path(output), Path("model"), "--instances", source)) == 0
    return home


@pytest.mark.parametrize(
    ("older", "at", "model_name", "source"),
    [
        *(
            (older, ".", model_name, source)
            for older in (False, True)
            for model_name, source in (
                ("model", "detector"),
                ("./model/", "detector/"),
                ("{home}/model", "{home}/detector"),
                ("model", "link"),
                ("model", "./boxes.json"),
            )
        ),
        (False, "photos", "../model", "../detector"),
        (False, "photos", "../model", "../boxes.json"),
    ],
)
def test_a_run_goes_on_however_its_model_and_detector_are_spelled(
    by_detector, monkeypatch, capsys, tmp_path, older, at, model_name, source
):
    """Older releases saved the names as they had been typed."""
    output = tmp_path / "out"
    shutil.copytree(by_detector / ("by boxes" if "boxes" in source else "by detector"), output, symlinks=True)
    if older:
        saved = json.loads((output / "options.json").read_text())
        saved |= {"model": "model", "instances": "boxes.json" if "boxes" in source else "detector"}
        (output / "options.json").write_text(json.dumps(saved))
    monkeypatch.chdir(by_detector / at)
    more = ["--instances", source.format(home=by_detector)]
    assert main(call(by_detector / "photos", output, Path(model_name.format(home=by_detector)), *more)) == 0
    assert "1 of 1 photo is labelled already" in capsys.readouterr().out


def test_another_detector_is_refused_by_its_full_name(by_detector, monkeypatch, capsys):
    monkeypatch.chdir(by_detector)
    arguments = call(Path("photos"), Path("by detector"), Path("model"))
    assert main([*arguments, "--instances", "partshapes-detector"]) == 2
    message = f"(instances was {by_detector}/detector, now partshapes-detector)"
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_built_in_model_may_be_named_or_left_out(by_detector, tmp_path, capsys):
    arguments = ["label", str(by_detector / "photos"), "--output", str(tmp_path / "out"), "--formats", "jsonl"]
    assert main(arguments) == 0
    assert main([*arguments, "--model", "partshapes"]) == 0
    assert "1 of 1 photo is labelled already" in capsys.readouterr().out


def test_a_changed_file_of_objects_is_refused(labelled, album, model, boxes, capsys):
    before = boxes.read_text()
    boxes.write_text(before.replace("110", "111"))
    try:
        assert main(call(album, labelled, model, "--instances", str(boxes))) == 2
    finally:
        boxes.write_text(before)
    assert "the objects in the file of --instances have changed since" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--formats", "instance-png"], "the format instance-png is about instances, which were not asked for"),
        (["--rest"], "--rest is for instances: say where objects are by --instances"),
        (["--outlines", "x"], "--outlines is for instances"),
        (["--instance-threshold", "0.5"], "--instance-threshold is for instances"),
        (["--instances", "components", "--instance-threshold", "5"], "--instance-threshold must be from 0 to 1, not 5"),
        (["--instances", "components", "--instance-threshold", "0.5"], "--instance-threshold is for a detector"),
        (["--instances", "components", "--zoom"], "--instances looks at crops already: leave --zoom out"),
        (["--instances", "gone.json"], "there is no file gone.json"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "label"])
def test_options_that_do_not_go_together(album, model, tmp_path, capsys, command, options, message):
    arguments = [command, str(album / "scenes/0"), "--output", str(tmp_path / "out"), "--model", str(model)]
    arguments += ["--vocabulary", WORDS]
    assert main([*arguments, *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "objects", "message"),
    [
        ("any: handle", "components", "the vocabulary names no object, so there are no instances"),
        ("horses: head", "{file}", "its categories ('dog') are no objects of the vocabulary (horses)"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "label"])
def test_words_that_do_not_fit_are_told_before_any_photo(
    album, model, tmp_path, capsys, command, words, objects, message
):
    path = tmp_path / "objects.json"
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}
    images, categories = [{"id": 1, "file_name": "000.png"}], [{"id": 1, "name": "dog"}]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": [annotation]}))
    arguments = [command, str(album / "scenes/0"), "--output", str(tmp_path / "out"), "--model", str(model)]
    assert main([*arguments, "--vocabulary", words, "--instances", objects.format(file=path)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list((tmp_path / "out").glob("*.json*")), "nothing was begun"


def test_other_categories_of_a_file_are_named_once(album, model, tmp_path, caplog):
    path = tmp_path / "objects.json"
    images = [{"id": n, "file_name": f"{n:03}.png"} for n in range(6)]
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    boxes = [{"id": n, "image_id": n % 6, "category_id": 1 + n % 2, "bbox": [9, 9, 60, 60]} for n in range(12)]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": boxes}))
    with caplog.at_level(logging.WARNING):
        assert main(call(album, tmp_path / "out", model, "--instances", str(path), "--batch-size", "2")) == 0
    assert caplog.text.count("left out, since no parts of it are asked for: 'cat'") == 1


def test_one_photo_that_does_not_fit_fails_alone(album, model, tmp_path, capsys):
    path = tmp_path / "boxes.json"
    photos = {f"{n:03}.png": [["dog", 10, 10, 70, 110]] for n in range(5)}
    path.write_text(json.dumps(photos | {"004.png": [["dog", 200, 10, 270, 110]]}))
    assert main(call(album, tmp_path / "out", model, "--instances", str(path))) == 1
    errors = {r["photo"]: r["error"] for r in records(tmp_path / "out") if r["status"] == "failed"}
    assert errors.keys() == {"scenes/1/004.png", "scenes/2/005.png"}
    assert "box 1 of" in errors["scenes/1/004.png"]
    assert "has no pixel in the photo" in errors["scenes/1/004.png"]
    assert "is not among the photos of" in errors["scenes/2/005.png"]


def test_damaged_records_are_refused(labelled, album, model, boxes, tmp_path, capsys):
    for number, change in enumerate(({"instances": 3}, {"instances": [{}]}, {"instances": []})):
        output = tmp_path / str(number)
        shutil.copytree(labelled, output, symlinks=True)
        lines = (output / "manifest.jsonl").read_text().splitlines()
        lines[3] = json.dumps(json.loads(lines[3]) | change)
        (output / "manifest.jsonl").write_text("\n".join(lines) + "\n")
        assert main(call(album, output, model, "--instances", str(boxes))) == 1
        assert "manifest.jsonl is damaged at line 4" in " ".join(capsys.readouterr().err.split())
