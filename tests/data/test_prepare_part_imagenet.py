"""PartImageNet_Seg into the 40 objects of the benchmark, on a source in the form of the released one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.hashes import hashes

from partclipseg.data.datasets.part_imagenet import PartImageNet
from partclipseg.data.prepare.part_imagenet import PartImageNetRecipe
from partclipseg.data.prepare.runner import prepare
from partclipseg.errors import PartCLIPSegError

TIGER, IMPALA, OTHER = "n02129604", "n02422699", "n02100735"  # seen, unseen, not among the 40
CATEGORIES = [{"id": i, "name": f"Quadruped {part}"} for i, part in enumerate(("Head", "Body", "Foot", "Tail"))]


def make_source(root: Path) -> Path:
    number = 0
    for split in ("train", "val", "test"):
        images, annotations = [], []
        for synset in (TIGER, IMPALA, OTHER):
            number += 1
            name = f"{synset}_{number}.JPEG"
            photo = root / "images" / split / name
            photo.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (10, 8), (number, 0, 0)).save(photo, "JPEG")
            images.append({"id": number, "file_name": name, "width": 10, "height": 8})
            for category in (0, 3):
                box = [1, category, 5, category, 5, category + 2, 1, category + 2]
                annotation = {"id": 10 * number + category, "image_id": number, "category_id": category, "area": 8}
                annotations.append({**annotation, "segmentation": [box], "bbox": [1, category, 4, 2], "iscrowd": 0})
        path = root / "annotations" / split / f"{split}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return root


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_train_has_the_seen_objects_and_val_all(tmp_path, mode):
    source = make_source(tmp_path / "PartImageNet_Seg")
    before = hashes(source)
    summary = prepare(PartImageNetRecipe([source], mode), tmp_path / "out")
    assert hashes(source) == before
    assert (dict(summary.photos), len(summary.objects), len(summary.parts)) == ({"train": 1, "val": 2}, 2, 4)
    photos = {
        path.relative_to(tmp_path / "out/images").as_posix() for path in (tmp_path / "out/images").rglob("*.JPEG")
    }
    assert photos == {f"train/{TIGER}_1.JPEG", f"val/{TIGER}_4.JPEG", f"val/{IMPALA}_5.JPEG"}
    val = json.loads((tmp_path / "out/val.json").read_text())
    assert [image["id"] for image in val["images"]] == [4, 5]
    assert [annotation["id"] for annotation in val["annotations"]] == [40, 43, 50, 53]
    assert val["categories"] == CATEGORIES


def test_the_reader_reads_what_was_prepared(tmp_path):
    prepare(PartImageNetRecipe([make_source(tmp_path / "raw")]), tmp_path / "out")
    source = PartImageNet.open(tmp_path / "out", "val")
    assert (len(source.photos), source.defects, source.other_synsets) == (2, (), {})
    labels = source.read_labels(source.photos[0], (8, 10))
    assert len(set(labels.parts.ravel().tolist())) == 3  # head, tail, unlabelled


def test_a_photo_in_several_folders_is_that_of_the_split(tmp_path):
    source = make_source(tmp_path / "raw")
    twin = source / "all" / f"{TIGER}_4.JPEG"
    twin.parent.mkdir()
    twin.write_bytes(b"other")
    prepare(PartImageNetRecipe([source]), tmp_path / "out")
    expected = (source / f"images/val/{TIGER}_4.JPEG").read_bytes()
    assert (tmp_path / f"out/images/val/{TIGER}_4.JPEG").read_bytes() == expected


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("annotations/val/val.json", None, r"val\.json is not in the source"),
        ("annotations/val/val.json", "{}", "not PartImageNet's COCO JSON"),
        ("annotations/val/val.json", "[", "val.json: it is not valid JSON"),
        ("annotations/val/val.json", '{"images": [], "images": []}', "has the key 'images' twice"),
        (
            "annotations/val/val.json",
            '{"images": [], "categories": [], "annotations": [{"image_id": 1, "category_id": 40}]}',
            "category 40",
        ),
        (f"images/val/{TIGER}_4.JPEG", None, rf"{TIGER}_4\.JPEG of val\.json is not in the source"),
    ],
)
def test_wrong_sources_are_named(tmp_path, path, text, words):
    source = make_source(tmp_path / "raw")
    (source / path).unlink()
    if text is not None:
        (source / path).write_text(text)
    with pytest.raises(PartCLIPSegError, match=words):
        prepare(PartImageNetRecipe([source]), tmp_path / "out")


def test_a_broken_photo_fails_alone(tmp_path):
    source = make_source(tmp_path / "raw")
    (source / f"images/val/{TIGER}_4.JPEG").write_bytes(b"broken")
    summary = prepare(PartImageNetRecipe([source]), tmp_path / "out")
    assert len(summary.failures) == 1
    assert f"{TIGER}_4.JPEG: not a photo" in summary.failures[0]
    assert [i["id"] for i in json.loads((tmp_path / "out/val.json").read_text())["images"]] == [5]
