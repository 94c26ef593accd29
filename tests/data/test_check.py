"""Every sort of defect is found, with the file it is in, and reading says the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from partclipseg.data.check import check_dataset, raise_if_broken
from partclipseg.data.datasets import open_dataset
from partclipseg.data.problem import DataError
from partclipseg.errors import PartCLIPSegError, UsageError

PARTS, OBJECTS = "annotations_detectron2_part", "annotations_detectron2_obj"


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def relabel(path: Path, value: int) -> None:
    labels = np.array(Image.open(path))
    labels[3, 5] = value
    Image.fromarray(labels).save(path)


def fill(path: Path, value: int) -> None:
    Image.fromarray(np.full_like(np.array(Image.open(path)), value)).save(path)


def convert(path: Path, dtype: type) -> None:
    Image.fromarray(np.array(Image.open(path)).astype(dtype)).save(path)


def colour(path: Path) -> None:
    Image.open(path).convert("RGB").save(path)


def resize(path: Path) -> None:
    Image.open(path).resize((12, 8), Image.Resampling.NEAREST).save(path)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_entry(path: Path, key: str, **changes: object) -> None:
    content = json.loads(path.read_text())
    content[key][0].update(changes)
    path.write_text(json.dumps(content))


def test_sound_data_is_counted(pascal) -> None:
    report = check_dataset("pascal-part-116", pascal.root)
    assert (report.ok, report.problems, report.notes) == (True, (), ())
    assert [(s.split, s.photos, s.sound, s.with_parts, sum(s.classes)) for s in report.splits] == [
        ("train", 1, 1, 1, 2),
        ("val", 1, 1, 1, 2),
    ]
    raise_if_broken(report)


PHOTO, PART, OBJECT = "images/val/2008_2.jpg", f"{PARTS}/val/2008_2.png", f"{OBJECTS}/val/2008_2.png"
LIST = f"{PARTS}/val_part_label_count.json"


@pytest.mark.parametrize(
    ("file", "change", "kind", "message"),
    [
        (PHOTO, Path.unlink, "missing photo", "the photo is missing"),
        (PHOTO, damage, "unreadable", "truncated"),
        (PHOTO, lambda path: path.write_bytes(b""), "unreadable", "empty"),
        (PHOTO, lambda path: path.write_text("no photo"), "unreadable", "not a photo"),
        (PART, damage, "unreadable", "cannot be read"),
        (PART, resize, "size", "is 12x8, but its photo is 6x4"),
        (PART, colour, "bit depth", "mode RGB, not a 8-bit grey label map"),
        (PART, lambda path: convert(path, np.uint16), "bit depth", "mode I;16"),
        (PART, lambda path: relabel(path, 116), "unknown label", "the label 116 (1 pixel) outside the class list"),
        (OBJECT, Path.unlink, "missing label", "the label map is missing"),
        (OBJECT, lambda path: relabel(path, 20), "unknown label", "which has 0 to 19, 255"),
        (OBJECT, resize, "size", "is 12x8"),
        (LIST, lambda path: edit(path, **{"2008_2.png": [60, 200]}), "unknown label", "does not have"),
        (LIST, lambda path: path.write_text("["), "unreadable", "is not a list of labels"),
    ],
)
def test_defects_of_pascal_are_found_by_checking_and_by_reading(
    pascal, file: str, change: Callable[[Path], object], kind: str, message: str
) -> None:
    change(pascal.root / file)
    problem = check_dataset("pascal-part-116", pascal.root).problems[0]
    assert (problem.kind, problem.file) == (kind, pascal.root / file)
    assert message in problem.message
    with pytest.raises(DataError) as caught:
        open_dataset("pascal-part-116", pascal.root)[0]
    assert caught.value.problem == problem


@pytest.mark.parametrize(
    ("file", "change", "kind", "named"),
    [
        (PART, Path.unlink, "missing label", PHOTO),
        (LIST, lambda path: edit(path, **{"2008_2.png": [1]}), "label count", LIST),
        (LIST, lambda path: path.write_text("{}"), "label count", LIST),
        (LIST, lambda path: edit(path, **{"gone.png": [1]}), "label count", LIST),
        (f"{PARTS}/val_obj_label_count.json", lambda path: edit(path, **{"2008_2.png": [1]}), "label count",
         f"{PARTS}/val_obj_label_count.json"),
    ],
)  # fmt: skip
def test_defects_of_pascal_that_only_checking_finds(
    pascal, file: str, change: Callable[[Path], object], kind: str, named: str
) -> None:
    change(pascal.root / file)
    report = check_dataset("pascal-part-116", pascal.root)
    assert (kind, pascal.root / named) in {(problem.kind, problem.file) for problem in report.problems}


def test_empty_maps(pascal) -> None:
    for path in pascal.root.glob(f"{PARTS}/*.json"):
        path.unlink()
    fill(pascal.root / PART, 255)
    assert check_dataset("pascal-part-116", pascal.root).ok  # a photo of boats teaches where no part is
    fill(pascal.root / OBJECT, 255)
    (problem,) = check_dataset("pascal-part-116", pascal.root).problems
    assert (problem.kind, problem.file) == ("empty", pascal.root / PHOTO)


def test_four_defects_are_four_lines(pascal) -> None:
    """One broken photo, one wrong size, one label too many, one missing file: each named, and refused together."""
    for key in "abcd":
        for folder, suffix in (("images", "jpg"), (PARTS, "png"), (OBJECTS, "png")):
            source = pascal.root / folder / "val" / f"2008_2.{suffix}"
            (pascal.root / folder / "val" / f"{key}.{suffix}").write_bytes(source.read_bytes())
    for path in pascal.root.glob(f"{PARTS}/*.json"):
        path.unlink()
    damage(pascal.root / "images/val/a.jpg")
    resize(pascal.root / PARTS / "val/b.png")
    relabel(pascal.root / PARTS / "val/c.png", 200)
    (pascal.root / "images/val/d.jpg").unlink()
    report = check_dataset("pascal-part-116", pascal.root, "test")
    named = {(problem.kind, problem.file.name) for problem in report.problems}
    assert named == {("unreadable", "a.jpg"), ("size", "b.png"), ("unknown label", "c.png"), ("missing photo", "d.jpg")}
    assert (report.splits[0].photos, report.splits[0].sound) == (5, 1)
    with pytest.raises(PartCLIPSegError) as caught:
        raise_if_broken(report)
    assert str(caught.value) == report.summary()
    for problem in report.problems:
        assert str(problem) in report.summary()
    assert "and 3 more" in report.summary(limit=1)


def test_leftovers_of_macos_are_notes(pascal) -> None:
    stray = pascal.text("images/val/._2008_2.jpg", "Mac OS X")
    report = check_dataset("pascal-part-116", pascal.root)
    assert report.ok
    assert [(note.kind, note.file) for note in report.notes] == [("stray file", stray)]


def test_progress_reaches_the_end(pascal) -> None:
    steps: list[tuple[int, int]] = []
    check_dataset("pascal-part-116", pascal.root, on_progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]


INSTANCES, ADE_PART = "ade20k_instance_val.json", f"{PARTS}/validation/v.png"


@pytest.mark.parametrize(
    ("file", "change", "kind", "message"),
    [
        (ADE_PART, lambda path: convert(path, np.uint8), "bit depth", "mode L, not a 16-bit grey label map"),
        (ADE_PART, lambda path: relabel(path, 234), "unknown label", "0 to 233, 65535"),
        (ADE_PART, Path.unlink, "missing label", "missing"),
        (INSTANCES, lambda path: edit_entry(path, "images", width=7), "size", f"{INSTANCES} says 7x4"),
        (INSTANCES, lambda path: edit_entry(path, "annotations", segmentation={"size": [4, 6], "counts": [3]}),
         "annotation", "annotation 7 of photo v: the mask's run lengths do not fill the photo"),
        (INSTANCES, lambda path: edit_entry(path, "annotations", category_id=44), "unknown label", "annotation 7"),
        (INSTANCES, lambda path: edit_entry(path, "annotations", image_id=3), "annotation", "annotation 7"),
        (INSTANCES, lambda path: edit_entry(path, "images", file_name="../v.jpg"), "path", "'../v.jpg' is refused"),
        (INSTANCES, lambda path: path.write_text("{"), "unreadable", "not valid JSON"),
    ],
)  # fmt: skip
def test_defects_of_ade20k(ade20k, file: str, change: Callable[[Path], object], kind: str, message: str) -> None:
    assert check_dataset("ade20k-part-234", ade20k.root).ok
    change(ade20k.root / file)
    report = check_dataset("ade20k-part-234", ade20k.root, "test")
    assert any(problem.kind == kind and message in str(problem) for problem in report.problems)
    with pytest.raises(DataError) as caught:
        open_dataset("ade20k-part-234", ade20k.root)[0]
    assert caught.value.problem in report.problems


def test_ade20k_tests_with_the_training_files_too(ade20k) -> None:
    damage(ade20k.root / "images/training/t.jpg")
    assert not check_dataset("ade20k-part-234", ade20k.root, "test").ok
    assert [split.split for split in check_dataset("ade20k-part-234", ade20k.root, "train").splits] == ["training"]


def test_part_imagenet(part_imagenet) -> None:
    report = check_dataset("part-imagenet", part_imagenet.root)
    assert report.ok
    assert [note.kind for note in report.notes] == ["left out", "left out"]  # one of a further synset in each split
    part_imagenet.photo("images/val/n02422699_8.JPEG")
    edit_entry(part_imagenet.root / "val.json", "annotations", category_id=26)
    problems = check_dataset("part-imagenet", part_imagenet.root).problems
    assert {(p.kind, p.file.name) for p in problems} == {
        ("missing label", "n02422699_8.JPEG"),
        ("unknown label", "val.json"),
    }


def test_a_split_that_is_not_there_is_a_note_and_half_a_split_is_not(pascal) -> None:
    (pascal.root / OBJECTS / "train").rename(pascal.root / OBJECTS / "away")
    report = check_dataset("pascal-part-116", pascal.root)
    (problem,) = report.problems
    assert problem.kind == "missing split"
    assert f"{OBJECTS}/train is missing" in problem.message
    for folder in ("images", PARTS):
        (pascal.root / folder / "train").rename(pascal.root / folder / "away")
    report = check_dataset("pascal-part-116", pascal.root)
    assert report.ok
    assert [note.kind for note in report.notes] == ["missing split"]
    with pytest.raises(PartCLIPSegError, match=r"has the test split .* but images/train is missing"):
        check_dataset("pascal-part-116", pascal.root, "train")
    with pytest.raises(UsageError, match="probably"):
        check_dataset("pascal-part-116", pascal.root.parent)


def test_own_coco(coco: Callable, rectangle: Callable) -> None:
    files = coco([("ear", "dog")], [("ear", [rectangle(0, 0, 1, 1)]), ("ear", [[0, 0, 1]])])
    report = check_dataset("coco", files.root)
    assert [(problem.kind, problem.file) for problem in report.problems] == [
        ("annotation", files.root / "annotations.json")
    ]
    assert "annotation 1 of photo a" in report.problems[0].message
    assert len(report.splits) == 1  # the one file serves as both splits, and is checked once
    with pytest.raises(UsageError, match="whose parts"):
        check_dataset("coco", coco([("ear", "")], []).root)


def test_own_coco_photo_without_parts_is_a_negative_beside_others(coco: Callable, rectangle: Callable) -> None:
    files = coco([("ear", "dog")], [("ear", [rectangle(0, 0, 1, 1)])])
    content = json.loads((files.root / "annotations.json").read_text())
    content["images"].append({"id": 6, "file_name": files.photo("b.jpg").name})
    files.json("annotations.json", content)
    assert check_dataset("coco", files.root).ok
    (problem,) = check_dataset("coco", files.json("annotations.json", {**content, "annotations": []})).problems
    assert (problem.kind, problem.file) == ("empty", files.root / "annotations.json")
    assert "no part is labelled in any photo: label some" in problem.message


@pytest.mark.parametrize(
    ("own", "split", "name"),
    [
        ({"annotations": "cars.json"}, None, "cars.json"),
        ({"annotations": "cars.json"}, "train", "train"),
        ({}, None, "annotations.json"),
        ({}, "test", "test"),
    ],
)
def test_a_file_that_serves_as_both_splits_goes_by_its_name(
    own: dict[str, str], split: Any, name: str, coco: Callable, rectangle: Callable
) -> None:
    files = coco([("ear", "dog")], [("ear", [rectangle(0, 0, 1, 1)])])
    (files.root / "cars.json").write_bytes((files.root / "annotations.json").read_bytes())
    given = {option: files.root / value for option, value in own.items()}
    report = check_dataset("coco", files.root, split, **given)
    assert [(counts.split, counts.photos) for counts in report.splits] == [(name, 1)]


def test_folders_that_serve_as_both_splits_have_no_name(files) -> None:
    files.text("classes.txt", "dog's ear")
    for folder in ("images", "labels"):
        (files.root / folder).mkdir()
    report = check_dataset("index-png", files.root)
    assert [counts.split for counts in report.splits] == [""]
    assert [problem.message for problem in report.problems] == ["there is no labelled photo: check --data"]
    (problem,) = check_dataset("index-png", files.root, "test").problems
    assert problem.message == "there is no labelled photo of the split test: check --data"


def test_own_index_pngs(files) -> None:
    files.text("classes.txt", "background\ndog's ear")
    for key, value in (("a", 1), ("b", 2), ("c", 0)):
        files.photo(f"images/{key}.jpg", 1, 2)
        files.labels(f"labels/{key}.png", [[value, 0]])
    report = check_dataset("index-png", files.root)
    assert [(p.kind, p.file.name) for p in report.problems] == [("unknown label", "b.png"), ("empty", "c.jpg")]


def test_no_photos_at_all_is_a_problem(files) -> None:
    files.text("classes.txt", "dog's ear")
    for name in ("images", "labels"):
        (files.root / name).mkdir()
    (problem,) = check_dataset("index-png", files.root).problems
    assert "no labelled photo" in problem.message


@pytest.mark.parametrize("scale", [1, 20])
def test_sideways_photos_are_compared_as_they_are_read(files, scale: int) -> None:
    files.text("classes.txt", "dog's ear")
    files.labels("labels/a.png", [[0] * 6 * scale] * 4 * scale)
    path = files.photo("images/a.jpg", 6 * scale, 4 * scale)
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # turned by a quarter
        image.save(path, exif=exif)
    assert check_dataset("index-png", files.root).ok
    assert open_dataset("index-png", files.root)[0].image.shape == (4 * scale, 6 * scale, 3)
