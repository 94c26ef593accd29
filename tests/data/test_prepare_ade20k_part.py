"""ADE20K's files into ADE20K-Part-234: names, chains of parts, visible masks, and the 3 real photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from tests.hashes import hashes

from partclipseg.data.prepare.ade20k_part import NAME, SAME_OBJECT, SAME_PART, ADE20KPartRecipe
from partclipseg.data.prepare.recipe import Layout
from partclipseg.data.prepare.runner import prepare
from partclipseg.errors import PartCLIPSegError
from partclipseg.vocabulary import Catalog, ObjectPart

SHARED = Path(__file__).resolve().parents[3] / "shared"
RAW, MADE = SHARED / "data/ade20k_raw", SHARED / "data/ADE20KPart234"
real = pytest.mark.skipif(not (RAW.is_dir() and MADE.is_dir()), reason="the real photos are not here")

CATALOG = Catalog.load(NAME)
HEIGHT, WIDTH = 4, 8
CAR = "car, auto, automobile, machine, motorcar"


def label(word: str, part: str) -> int:
    return CATALOG.object_parts.index(ObjectPart(word, part))


def write_photo(root: Path, items: list[dict], key: str = "ADE_train_1", split: str = "training") -> Path:
    """A photo with annotations as ADE20K has them; an item: id, name, ispartof, box (columns), hidden (columns)."""
    folder = root / "images/ADE" / split / "street"
    (folder / key).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{key}.jpg")
    objects = []
    for item in items:
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[:, slice(*item["box"])] = 255
        mask[:, slice(*item.get("hidden", (0, 0)))] = 128
        name = f"{key}/instance_{item['id']:03}.png"
        Image.fromarray(mask).save(folder / name)
        parts = {"ispartof": item.get("ispartof", []), "part_level": 0}
        objects.append({"id": item["id"], "name": item["name"], "parts": parts, "instance_mask": name})
    path = folder / f"{key}.json"
    path.write_text(json.dumps({"annotation": {"object": objects}}))
    return path


ITEMS = [
    {"id": 0, "name": CAR, "box": (0, 6), "hidden": (5, 6)},
    {"id": 7, "name": "window", "ispartof": 3, "box": (2, 3)},
    {"id": 3, "name": "door", "ispartof": 0, "box": (1, 4)},
    {"id": 4, "name": "windshield", "ispartof": 0, "box": (4, 6), "hidden": (5, 6)},
    {"id": 5, "name": "rim", "ispartof": 0, "box": (0, 1)},
    {"id": 8, "name": "building, edifice", "box": (6, 8)},
    {"id": 9, "name": "door", "ispartof": 8, "box": (6, 7)},
    {"id": 10, "name": "van", "box": (7, 8), "hidden": (7, 8)},
]


def test_parts_are_drawn_for_the_object_at_the_top(tmp_path):
    write_photo(tmp_path / "raw", ITEMS)
    summary = prepare(ADE20KPartRecipe([tmp_path / "raw"]), tmp_path / "out")
    assert (dict(summary.photos), dict(summary.unknown)) == ({"training": 1}, {"car: rim": 1})
    part_map = np.asarray(Image.open(tmp_path / "out/annotations_detectron2_part/training/ADE_train_1.png"))
    door, window, none = label("car", "door"), label("car", "window"), 65535
    assert part_map.dtype == np.uint16
    assert part_map[0].tolist() == [none, door, window, door, window, window, none, none]

    content = json.loads((tmp_path / "out/ade20k_instance_train.json").read_text())
    assert content["images"] == [{"id": 1, "file_name": "ADE_train_1.jpg", "height": HEIGHT, "width": WIDTH}]
    assert [category["name"] for category in content["categories"]] == list(CATALOG.objects)
    (car,) = content["annotations"]  # the building's door is a part, and the van is hidden altogether
    assert (car["id"], car["image_id"], car["category_id"]) == (1, 1, CATALOG.objects.index("car"))
    assert (car["area"], car["bbox"]) == (20, [0, 0, 5, 4])
    assert coco.decode(car["segmentation"])[0].tolist() == [1] * 5 + [0] * 3
    assert not (tmp_path / "out/ade20k_instance_val.json").exists()


def test_a_photo_without_parts_is_left_out(tmp_path):
    write_photo(tmp_path / "raw", ITEMS[:1], "ADE_val_1", "validation")
    write_photo(tmp_path / "raw", ITEMS, "ADE_val_2", "validation")
    summary = prepare(ADE20KPartRecipe([tmp_path / "raw"]), tmp_path / "out")
    assert (dict(summary.photos), summary.left_out) == ({"validation": 1}, 1)
    assert [path.name for path in (tmp_path / "out/images/validation").iterdir()] == ["ADE_val_2.jpg"]
    images = json.loads((tmp_path / "out/ade20k_instance_val.json").read_text())["images"]
    assert [(image["id"], image["file_name"]) for image in images] == [(1, "ADE_val_2.jpg")]


def test_merged_words_are_classes_of_the_benchmark():
    assert set(SAME_OBJECT.values()) <= set(CATALOG.objects)
    for word, parts in SAME_PART.items():
        for raw, part in parts.items():
            assert ObjectPart(word, part) in CATALOG.object_parts
            assert ObjectPart(word, raw) not in CATALOG.object_parts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ispartof": 99}, "part of 99, which is not there"),
        ({"ispartof": 3}, "part of itself"),
        ({"instance_mask": "../../secret.png"}, "refused"),
        ({"instance_mask": "gone.png"}, "gone.png: cannot be read"),
        ({"instance_mask": []}, "not an ADE20K annotation"),
        ({"name": None, "parts": None}, "not an ADE20K annotation"),
    ],
)
def test_wrong_annotations_are_named(tmp_path, change, words):
    path = write_photo(tmp_path / "raw", ITEMS)
    content = json.loads(path.read_text())
    door = content["annotation"]["object"][2]
    if "ispartof" in change:
        door["parts"].update(change)
    else:
        door.update(change)
    path.write_text(json.dumps(content))
    (tmp_path / "raw/images/ADE/secret.png").write_bytes(b"")
    (job,) = ADE20KPartRecipe([tmp_path / "raw"]).jobs()
    with pytest.raises(PartCLIPSegError, match=words):
        job.run(Layout(tmp_path / "out"))


def test_a_mask_of_another_size_is_named(tmp_path):
    path = write_photo(tmp_path / "raw", ITEMS)
    Image.new("RGB", (9, 9)).save(path.with_suffix(".jpg"))
    (job,) = ADE20KPartRecipe([tmp_path / "raw"]).jobs()
    with pytest.raises(PartCLIPSegError, match="is 8x4, but its photo is 9x9"):
        job.run(Layout(tmp_path / "out"))


def test_latin_1_annotations_are_read(tmp_path):
    path = write_photo(tmp_path / "raw", ITEMS)
    path.write_bytes(path.read_bytes().replace(b"building, edifice", b"caf\xe9"))
    assert prepare(ADE20KPartRecipe([tmp_path / "raw"]), tmp_path / "out").photos["training"] == 1


@real
def test_the_3_real_photos_give_the_benchmarks_files(tmp_path):
    before = hashes(RAW)
    summary = prepare(ADE20KPartRecipe([RAW]), tmp_path)
    assert hashes(RAW) == before
    assert (dict(summary.photos), summary.failures, summary.left_out) == ({"training": 3}, (), 0)
    maps = sorted(MADE.rglob("*.png"))
    assert len(maps) == 3
    for path in maps:
        here, there = (np.asarray(Image.open(p)) for p in (tmp_path / path.relative_to(MADE), path))
        assert here.dtype == there.dtype == np.uint16
        np.testing.assert_array_equal(here, there)
    name = "ade20k_instance_train.json"
    assert json.loads((tmp_path / name).read_bytes()) == json.loads((MADE / name).read_bytes())
    for path in MADE.rglob("*.jpg"):
        assert (tmp_path / path.relative_to(MADE)).read_bytes() == path.read_bytes()
