"""The readers on real files of each layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from partclipseg.data.check import check_dataset
from partclipseg.data.datasets import open_dataset
from partclipseg.data.sample import OUTSIDE, UNLABELLED, objects_in

CASES = [
    # data set, folder, split, options, records, classes of the vocabulary, classes that occur
    ("pascal-part-116", "PascalPart116", "train", {}, 9, 74, 32),
    ("pascal-part-116", "PascalPart116", "test", {}, 20, 116, 63),
    ("ade20k-part-234", "ADE20KPart234", "train", {}, 3, 176, 8),
    ("ade20k-part-234", "ADE20KPart234", "test", {}, 4, 234, 2),
    ("coco", "car_parts", "train", {"object": "car"}, 100, 18, 18),
    ("coco", "car_parts", "test", {"object": "car"}, 30, 18, 18),
]


@pytest.mark.parametrize(("name", "folder", "split", "options", "records", "classes", "occurring"), CASES)
def test_records_of_real_files(
    shared: Path, name: str, folder: str, split: str, options: dict, records: int, classes: int, occurring: int
) -> None:
    dataset = open_dataset(name, shared / "data" / folder, split, **options)
    assert (len(dataset), len(dataset.vocabulary)) == (records, classes)
    assert len(set(dataset.keys())) == records
    found: set[int] = set()
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample.key == dataset.keys()[index]
        assert sample.image.shape == (*sample.part_labels.shape, 3)
        assert sample.part_labels.shape == sample.object_labels.shape
        labelled = sample.part_labels != UNLABELLED
        owners = dataset.vocabulary.class_to_object[sample.part_labels[labelled]]
        np.testing.assert_array_equal(sample.object_labels[labelled], owners)
        assert sample.object_labels.min() >= OUTSIDE
        if split == "test":
            assert len(objects_in(sample.object_labels)) == 1
        found |= set(np.unique(sample.part_labels[labelled]).tolist())
    assert len(found) == occurring


@pytest.mark.parametrize(("name", "folder", "options"), sorted({(c[0], c[1], tuple(c[3].items())) for c in CASES}))
def test_real_files_are_sound(shared: Path, name: str, folder: str, options: tuple) -> None:
    report = check_dataset(name, shared / "data" / folder, **dict(options))
    assert report.problems == ()


def test_real_unseen_instances_of_ade20k(shared: Path) -> None:
    dataset = open_dataset("ade20k-part-234", shared / "data" / "ADE20KPart234")
    assert {record.source.objects[record.object or 0] for record in dataset.records} == {"van", "truck"}
