"""Tiny data sets on disk, in the layouts that the readers know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partclipseg.vocabulary import Catalog

PASCAL = Catalog.load("pascal-part-116")


class Files:
    """Writes photos, label maps and JSON below a root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def photo(self, name: str, height: int = 4, width: int = 6) -> Path:
        return self._image(name, np.full((height, width, 3), 128, dtype=np.uint8))

    def labels(self, name: str, rows: list[list[int]], dtype: type = np.uint8) -> Path:
        return self._image(name, np.array(rows, dtype=dtype))

    def json(self, name: str, content: object) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    def text(self, name: str, content: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def _image(self, name: str, array: np.ndarray) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def part(name: str) -> int:
    """The number of an object-part in Pascal-Part-116's files."""
    return [pair.name for pair in PASCAL.object_parts].index(name)


def thing(word: str) -> int:
    """The number of an object in Pascal-Part-116's files."""
    return PASCAL.objects.index(word)


@pytest.fixture
def pascal(files: Files) -> Files:
    """One photo in each split with a person (seen), a dog (unseen) and a boat (without parts)."""
    hair, ear, none = part("person's hair"), part("dog's ear"), 255
    person, dog, boat = thing("person"), thing("dog"), thing("boat")
    for split, key in (("train", "2008_1"), ("val", "2008_2")):
        files.photo(f"images/{split}/{key}.jpg")
        files.labels(
            f"annotations_detectron2_part/{split}/{key}.png",
            [
                [hair, hair, none, none, none, none],
                [none, none, none, ear, ear, none],
                [none, none, none, none, none, none],
                [none, none, none, none, none, none],
            ],
        )
        files.labels(
            f"annotations_detectron2_obj/{split}/{key}.png",
            [
                [person, person, none, none, none, none],
                [person, person, none, dog, person, none],  # the person's hand on the dog's ear: the maps disagree
                [none, none, none, dog, none, none],
                [boat, boat, none, none, none, none],
            ],
        )
        lists = {"part": sorted([hair, ear]), "obj": sorted([person, dog, boat])}
        for kind, labels in lists.items():
            files.json(f"annotations_detectron2_part/{split}_{kind}_label_count.json", {f"{key}.png": labels})
    return files


@pytest.fixture
def ade20k(files: Files) -> Files:
    """A photo of two cars (seen) and a van (unseen) in each split; the second car overlaps the first."""
    catalog = Catalog.load("ade20k-part-234")
    names = [pair.name for pair in catalog.object_parts]
    wheel, van_wheel, none = names.index("car's wheel"), names.index("van's wheel"), 65535
    for folder, short, key in (("training", "train", "t"), ("validation", "val", "v")):
        files.photo(f"images/{folder}/{key}.jpg")
        files.labels(
            f"annotations_detectron2_part/{folder}/{key}.png",
            [
                [wheel, none, wheel, none, none, none],
                [none, none, none, none, none, none],
                [none, none, none, none, none, van_wheel],
                [none, none, none, none, none, none],
            ],
            np.uint16,
        )
        car, van = catalog.objects.index("car"), catalog.objects.index("van")
        boxes = ((car, 0, 0, 3, 2), (car, 2, 0, 2, 1), (van, 4, 2, 2, 2))  # category, x, y, width, height
        annotations = [
            {"id": 7 + place, "image_id": 1, "category_id": category, "segmentation": [box(x, y, w, h)]}
            for place, (category, x, y, w, h) in enumerate(boxes)
        ]
        photos = [{"id": 1, "file_name": f"{key}.jpg", "height": 4, "width": 6}]
        files.json(f"ade20k_instance_{short}.json", {"images": photos, "annotations": annotations})
    return files


@pytest.fixture
def part_imagenet(files: Files) -> Files:
    """An impala (unseen), a minibus (seen) and a synset that is none of the 40 objects, in both splits."""
    names = ("n02423022_1.JPEG", "n02422699_7.JPEG", "n09999999_3.JPEG")  # gazelle (seen), impala (unseen), other
    for split in ("train", "val"):
        photos = [{"id": i, "file_name": name, "height": 4, "width": 6} for i, name in enumerate(names)]
        annotations = []
        for i, name in enumerate(names):
            files.photo(f"images/{split}/{name}")
            # Category 0 is "Quadruped Head", 1 "Quadruped Body"; the head lies on the body.
            annotations += [
                {"id": 2 * i, "image_id": i, "category_id": 0, "segmentation": [box(0, 0, 2, 1)]},
                {"id": 2 * i + 1, "image_id": i, "category_id": 1, "segmentation": [box(0, 0, 6, 2)]},
            ]
        files.json(f"{split}.json", {"images": photos, "annotations": annotations})
    return files


@pytest.fixture
def part_imagenet_ood(files: Files) -> Files:
    """A photo of a quadruped to train on and one of another synset to test on, in the release's layout."""
    categories = [
        {"id": 1, "name": "Quadruped Head", "supercategory": "Quadruped"},
        {"id": 2, "name": "Quadruped Body", "supercategory": "Quadruped"},
        {"id": 3, "name": "Car Side Mirror", "supercategory": "Car"},
    ]
    for split, name in (("train", "n02423022_1"), ("test", "n02422699_7")):
        files.photo(f"{split}/{name.split('_')[0]}/{name}.JPEG")
        photos = [{"id": 4, "file_name": f"{name}.JPEG", "height": 4, "width": 6}]
        annotations = [
            {"id": 8, "image_id": 4, "category_id": 1, "segmentation": [box(0, 0, 2, 1)]},
            {"id": 9, "image_id": 4, "category_id": 2, "segmentation": [box(0, 0, 6, 2)]},
        ]
        files.json(f"{split}.json", {"images": photos, "annotations": annotations, "categories": categories})
    return files


@pytest.fixture
def part_imagenet_pp(files: Files) -> Files:
    """Ten photos of a chiton, whose shell lies in its body, and ten of a crane of one category."""
    words = {"n01955084": ("body", "shell"), "n02012849": ("wing",)}
    for synset, parts in words.items():
        categories = [{"id": number, "name": part} for number, part in enumerate(parts, start=1)]
        photos, annotations = [], []
        for number in range(10):
            name = f"{synset}_{number}.JPEG"
            files.photo(f"images/{synset}/{name}")
            photos.append({"id": number, "file_name": name, "height": 4, "width": 6})
            annotations += [
                {
                    "id": 10 * number + category["id"],
                    "image_id": number,
                    "category_id": category["id"],
                    "segmentation": [box(0, 0, 6 // category["id"], 2)],
                }
                for category in categories
            ]
        files.json(f"json/{synset}.json", {"images": photos, "annotations": annotations, "categories": categories})
    files.text("including/n01955084.txt", "shell:body")
    files.json("discarded_data.json", [{"file_name": "n02012849_3.JPEG"}])
    files.text("LOC_synset_mapping.txt", "n01955084 chiton, coat-of-mail shell\nn02012849 crane\nn03126707 crane\n")
    return files


@pytest.fixture
def instructpart(files: Files) -> Files:
    """A kettle's handle to train on, and a kettle's spout and a pair of scissors' blade to test on."""
    texts = ["How to lift it?", "Lift the kettle.", "the handle of the kettle", "where to hold", "handle", "hold"]
    for folder, split, pairs in (
        ("train/train1800", "train", [("kettle", "handle")]),
        ("train/train200", "train", []),
        ("test", "test", [("kettle", "spout"), ("pair of scissors", "blade")]),
    ):
        entries = []
        for place, (word, part) in enumerate(pairs):
            key = f"p{place}-{word}-{part}".replace(" ", "_")
            files.photo(f"{folder}/images/{key}.jpg")
            files.labels(f"{folder}/masks/{key}.png", [[255, 255, 0, 0, 0, 0]] + 3 * [[0] * 6])
            part_list = [{"object": word, "part": part, "affordance": "lift", "action": "lift", "instruction": texts}]
            entries.append({"image_path": f"p{place}.jpg", "part_list": part_list})
        files.json(f"{folder}/data_{split}.json", entries)
    return files


@pytest.fixture
def partonomy_core(files: Files) -> Files:
    """Two questions about one photo of an airplane, one about a mug, as a list of questions."""
    files.photo("images/airplanes--agricultural/a.jpg")
    files.photo("images/kitchen--mug/m.jpg")
    wing = {"segmentation": {"size": [4, 6], "counts": [0, 4, 20]}, "image_path": "a.jpg"}
    tail = {"size": [4, 6], "polygon": box(4, 0, 2, 4)}
    plane = {
        "image_path": "/data/authors/images/airplanes--agricultural/a.jpg",
        "image_label": "airplanes--agricultural",
        "segmentations": {"wing": [wing], "airplanes--agricultural--part:tail": [tail]},
        "question": "What parts?",
        "question_type": "identification",
    }
    mug = {
        "image_path": "images/kitchen--mug/m.jpg",
        "image_label": "kitchen--mug",
        "segmentations": {"handle": [tail]},
        "question_type": "identification",
    }
    files.json("questions.json", [plane, {**plane, "question_type": "positive"}, mug])
    files.json("object_names_to_nl.json", {"airplanes--agricultural": "agricultural airplane"})
    return files


def box(x: float, y: float, width: float, height: float) -> list[float]:
    """A rectangle as a COCO polygon."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


@pytest.fixture
def coco(files: Files) -> Callable[..., Files]:
    """Write ``annotations.json`` with one photo; categories as (name, supercategory), masks as (name, polygons)."""

    def write(
        categories: list[tuple[str, str]], masks: list[tuple[str, object]], photo: dict[str, object] | None = None
    ) -> Files:
        files.photo("a.jpg")
        ids = {name: number for number, (name, _) in enumerate(categories, start=1)}
        files.json(
            "annotations.json",
            {
                "images": [{"id": 5, "file_name": "a.jpg", "height": 4, "width": 6} if photo is None else photo],
                "categories": [{"id": ids[name], "name": name, "supercategory": group} for name, group in categories],
                "annotations": [
                    {"id": i, "image_id": 5, "category_id": ids[name], "segmentation": segmentation}
                    for i, (name, segmentation) in enumerate(masks)
                ],
            },
        )
        return files

    return write


@pytest.fixture
def rectangle() -> Callable[[float, float, float, float], list[float]]:
    return box
