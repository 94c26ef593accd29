"""Which object a part belongs to, read from COCO files with `obj_ann_id` and from PACO's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partclipseg import open_dataset
from partclipseg.data.augment import Augmentation
from partclipseg.data.check import check_dataset
from partclipseg.data.coco_masks import decode_mask, encode_mask
from partclipseg.data.problem import DataError
from partclipseg.data.regions import PhotoRegions
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.training.data import open_training_data
from partclipseg.training.recipe import own_data

HEIGHT, WIDTH = 4, 12
CATEGORIES = [
    {"id": 1, "name": "dog's ear", "supercategory": "dog"},
    {"id": 2, "name": "dog's leg", "supercategory": "dog"},
    {"id": 3, "name": "cat's ear", "supercategory": "cat"},
    {"id": 4, "name": "dog", "supercategory": "dog"},
    {"id": 5, "name": "cat", "supercategory": "cat"},
]
EAR, LEG, CAT_EAR, DOG, CAT = range(1, 6)


def columns(start: int, stop: int) -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[:, start:stop] = True
    return encode_mask(mask)


def mark(number: int, category: int, start: int, stop: int, owner: int | None = None, **more: Any) -> dict[str, Any]:
    entry = {"id": number, "image_id": 1, "category_id": category, "segmentation": columns(start, stop), **more}
    return entry if owner is None else {**entry, "obj_ann_id": owner}


TWO_DOGS = [
    mark(10, DOG, 0, 5, 10),
    mark(11, EAR, 0, 2, 10),
    mark(12, LEG, 3, 4, 10),
    mark(20, DOG, 5, 9, 20),
    mark(21, EAR, 5, 6, 20),
    mark(22, EAR, 8, 9, 20),  # the other ear
    mark(30, CAT, 10, 12, 30),
]


def write(
    files, annotations: list[dict[str, Any]], categories: Any = None, name: str = "test.json", **image: Any
) -> Path:
    files.photo("photo.jpg", HEIGHT, WIDTH)
    content = {
        "images": [{"id": 1, "file_name": "photo.jpg", "height": HEIGHT, "width": WIDTH, **image}],
        "annotations": annotations,
        "categories": CATEGORIES if categories is None else categories,
    }
    return files.json(name, content)


def first(values: np.ndarray) -> list[int]:
    assert (values == values[0]).all()
    return values[0].tolist()


def named(truth: PhotoRegions, names: tuple[str, ...]) -> dict[tuple[str, int], tuple[list[int], bool]]:
    """The columns of each region by its name and instance, and whether it is a crowd."""
    found = {}
    for one in truth.regions:
        mask = decode_mask(one.region, (HEIGHT, WIDTH))
        assert one.area == mask.sum()
        assert (names[one.label], one.instance) not in found
        found[names[one.label], one.instance] = (np.flatnonzero(mask[0]).tolist(), one.crowd)
    return found


def names_of(dataset) -> tuple[str, ...]:
    return (*dataset.vocabulary.names, *dataset.vocabulary.objects)


def test_own_coco_with_owners(files) -> None:
    write(files, TWO_DOGS)
    dataset = open_dataset("coco", files.root).with_instances()
    sample = dataset[0]
    assert (len(dataset), dataset.exhaustive, sample.key) == (1, True, "photo")
    assert sample.instances is not None
    assert first(sample.instances) == [0] * 5 + [1] * 4 + [-1] + [2] * 2
    truth = dataset.regions(0, sample)
    assert (truth.negative, truth.not_exhaustive) == (None, frozenset())
    assert named(truth, names_of(dataset)) == {
        ("dog", 0): ([0, 1, 2, 3, 4], False),
        ("dog's ear", 0): ([0, 1], False),
        ("dog's leg", 0): ([3], False),
        ("dog", 1): ([5, 6, 7, 8], False),
        ("dog's ear", 1): ([5, 8], False),  # both ears are one region
        ("cat", 2): ([10, 11], False),
    }


@pytest.mark.parametrize(
    ("annotations", "instances"),
    [
        # Without obj_ann_id every whole object is one, and parts belong to the object of their word under them.
        ([mark(1, DOG, 0, 4), mark(2, EAR, 1, 2), mark(3, DOG, 6, 9)], [0] * 4 + [-1] * 2 + [1] * 3 + [-1] * 3),
        ([mark(1, CAT, 0, 4), mark(2, EAR, 1, 2)], [0, -1, 0, 0] + [-1] * 8),
        # Parts alone name an owner that is annotated by one of them: refused below; an object without parts is one.
        ([mark(1, DOG, 0, 2, 1)], [0, 0] + [-1] * 10),
        # A part without an owner where others have one.
        ([mark(1, DOG, 0, 2, 1), mark(2, EAR, 5, 6)], [0, 0] + [-1] * 10),
        # A crowd is no instance, nor are the parts that name it.
        ([mark(1, DOG, 0, 4, 1, iscrowd=1), mark(2, EAR, 0, 1, 1), mark(3, DOG, 5, 6, 3)], [-1] * 5 + [0] + [-1] * 6),
        # A part that reaches beyond its object belongs to it, over the object beneath.
        ([mark(1, DOG, 0, 3, 1), mark(2, EAR, 2, 5, 1), mark(3, DOG, 4, 12, 3)], [0] * 5 + [1] * 7),
        # The smaller of two objects lies on top, as in the label maps.
        ([mark(1, DOG, 0, 12, 1), mark(2, CAT, 3, 5, 2)], [0] * 3 + [1] * 2 + [0] * 7),
        # Ids are numbers or text, in any spelling.
        ([mark(1, DOG, 0, 2, "1"), {**mark(0, EAR, 0, 1, 1.0), "id": "x"}], [0, 0] + [-1] * 10),  # type: ignore
    ],
)
def test_instance_maps(files, annotations: list[dict[str, Any]], instances: list[int]) -> None:
    write(files, annotations)
    dataset = open_dataset("coco", files.root).with_instances()
    sample = dataset[0]
    assert sample.instances is not None
    assert first(sample.instances) == instances
    assert sample.instances.dtype == np.int32
    crowds = {one.instance < 0 for one in dataset.regions(0, sample).regions if one.crowd}
    assert crowds <= {True}


def test_an_object_without_an_outline_of_its_own_is_the_union_of_its_parts(files) -> None:
    """As with a mask that covers nothing; the ids still tell whose the parts are."""
    write(files, [{**mark(1, DOG, 0, 2, 1), "segmentation": []}, mark(2, EAR, 0, 2, 1), mark(3, LEG, 4, 5, 1)])
    dataset = open_dataset("coco", files.root).with_instances()
    found = named(dataset.regions(0, dataset[0]), names_of(dataset))
    assert found["dog", 0][0] == [0, 1, 4]


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([mark(1, DOG, 0, 2, 1), mark(2, EAR, 0, 1, 7)], "annotation 2 has the obj_ann_id 7, which no annotation has"),
        (
            [mark(1, DOG, 0, 2, 1), {**mark(2, EAR, 0, 1, 1), "image_id": 2}],
            "annotation 2 has the obj_ann_id 1, which belongs to another photo",
        ),
        ([mark(1, DOG, 0, 2, 1), mark(1, EAR, 0, 1, 1)], "two annotations have the id 1"),
        ([mark(1, DOG, 0, 2, 1), mark(2, EAR, 0, 1, [1])], "annotation 2 has the obj_ann_id [1], which is neither"),  # type: ignore
        ([mark(1, DOG, 0, 2, 1), mark(2, EAR, 0, 1, True)], "annotation 2 has the obj_ann_id True, which is neither"),
        ([mark(1, DOG, 0, 2, 1), mark(2, EAR, 0, 1, "")], "annotation 2 has the obj_ann_id '', which is neither"),  # type: ignore
        (
            [mark(1, CAT, 0, 2, 1), mark(2, EAR, 0, 1, 1)],
            "annotation 2, a dog's ear, has the obj_ann_id 1, which is a cat: name its own object",
        ),
        (
            [mark(1, DOG, 0, 2, 1), mark(2, EAR, 0, 1, 1), mark(3, LEG, 0, 1, 2)],
            "annotation 3, a dog's leg, has the obj_ann_id 2, which is a dog's ear: name the annotation of its object",
        ),
        ([mark(1, DOG, 0, 2, 1), mark(2, DOG, 0, 1, 1)], "annotation 2, a dog, has the obj_ann_id 1: an object names"),
    ],
)
def test_owners_that_cannot_be(files, annotations: list[dict[str, Any]], message: str) -> None:
    files.photo("other.jpg", HEIGHT, WIDTH)
    path = write(files, annotations)
    content = json.loads(path.read_text())
    content["images"].append({"id": 2, "file_name": "other.jpg"})
    path.write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        open_dataset("coco", files.root)
    assert message in str(error.value)
    report = check_dataset("coco", files.root, "test")
    assert sum(message in problem.message for problem in report.problems) == 1
    assert [str(error.value)] == [str(problem) for problem in report.problems][:1]


def test_parts_alone_tell_no_objects_apart(files) -> None:
    write(files, [mark(1, EAR, 0, 2), mark(2, EAR, 4, 5)])
    with pytest.raises(UsageError, match="do not tell objects of one kind apart: annotate whole objects as well"):
        open_dataset("coco", files.root).with_instances()
    files.labels("images/x.png", [[0]])
    files.labels("labels/x.png", [[0]])
    files.text("classes.txt", "dog's ear\n")
    with pytest.raises(UsageError, match="annotate the objects as COCO JSON"):
        open_dataset("index-png", files.root).with_instances()


# -- PACO -- ----------------------------------------------------------------------------------------------------------

PACO = [
    {"id": 207, "name": "car_(automobile)", "supercategory": "OBJECT"},
    {"id": 378, "name": "dog", "supercategory": "OBJECT"},
    {"id": 713, "name": "napkin", "supercategory": "OBJECT"},
    {"id": 2138, "name": "dog:ear", "supercategory": "PART"},
    {"id": 2449, "name": "car_(automobile):wheel", "supercategory": "PART"},
]
TEST_FILE = "annotations/paco_lvis_v1_test.json"


def write_paco(
    files, annotations: list[dict[str, Any]], categories: Any = None, name: str = TEST_FILE, **image: Any
) -> Path:
    files.photo("val2017/000000000001.jpg", HEIGHT, WIDTH)
    lists: dict[str, Any] = {"neg_category_ids": [207, 2449], "not_exhaustive_category_ids": [2138]}
    lists["file_name"] = "val2017/000000000001.jpg"
    return write(files, annotations, PACO if categories is None else categories, name, **{**lists, **image})


PACO_DOGS = [
    mark(10, 378, 0, 5, 10),
    mark(11, 2138, 0, 2, 10),
    mark(20, 378, 4, 9, 20),  # over a pixel of the first
    mark(30, 713, 10, 12, 30),
    {**mark(31, 2138, 0, 1, 20), "segmentation": []},  # left out, as PACO's reader does
]


def test_paco(files) -> None:
    write_paco(files, PACO_DOGS)
    dataset = open_dataset("paco", files.root)
    assert dataset.vocabulary.names == ("dog's ear", "car (automobile)'s wheel")
    assert (dataset.keys(), dataset.exhaustive) == (("000000000001",), False)
    assert len(dataset.seen) == 2  # no split into seen and unseen is published
    whole = dataset.with_instances()
    sample = whole[0]
    names = names_of(whole)
    # Equally large: the later of the two dogs lies on top. The napkin has no parts, and so is no word.
    assert sample.instances is not None
    assert first(sample.instances) == [0] * 4 + [1] * 5 + [-1] + [2] * 2
    assert first(sample.object_labels) == [1] * 9 + [-1] + [-2] * 2
    truth = whole.regions(0, sample)
    # Regions keep what lies under others.
    assert named(truth, names) == {
        ("dog", 0): ([0, 1, 2, 3, 4], False),
        ("dog's ear", 0): ([0, 1], False),
        ("dog", 1): ([4, 5, 6, 7, 8], False),
    }
    assert {names[label] for label in truth.negative or ()} == {"car (automobile)", "car (automobile)'s wheel"}
    assert {names[label] for label in truth.not_exhaustive} == {"dog's ear"}
    report = check_dataset("paco", files.root)
    assert report.ok
    assert [note.message for note in report.notes if note.kind == "left out"] == [
        "1 annotation is left out, without a mask"
    ]
    assert [note.kind for note in report.notes].count("missing split") == 1


def test_an_object_of_paco_without_a_mask_has_no_region(files) -> None:
    """PACO's evaluator knows nothing of it; its parts count all the same."""
    write_paco(files, [{**mark(10, 378, 0, 5, 10), "segmentation": []}, mark(11, 2138, 0, 2, 10)])
    dataset = open_dataset("paco", files.root).with_instances()
    truth = dataset.regions(0, dataset[0])
    assert named(truth, names_of(dataset)) == {("dog's ear", 0): ([0, 1], False)}


@pytest.mark.parametrize(
    ("place", "root"),
    [
        ("paco_lvis_v1_test.json", "."),
        ("annotations/paco_lvis_v1_test.json", "."),
        ("paco_lvis_v1/paco_lvis_v1_test.json", "."),
        ("paco_lvis_v1_test.json", "paco_lvis_v1_test.json"),
    ],
)
def test_where_pacos_files_may_lie(files, place: str, root: str) -> None:
    write_paco(files, PACO_DOGS, name=place)
    assert len(open_dataset("paco", files.root / root)) == 1


def test_pacos_files_are_not_read_as_coco(files) -> None:
    file = write_paco(files, PACO_DOGS)
    with pytest.raises(DataError, match=r"in the form of PACO, such as 'dog:.*': name it as the data set paco"):
        open_dataset("coco", file)
    names = [one["name"] for one in json.loads(file.read_text())["categories"]]
    words = {name: "dog's ear" if name == "dog:ear" else None for name in names}
    assert open_dataset("coco", file, mapping=words).vocabulary.names == ("dog's ear",)


@pytest.mark.parametrize(
    ("make", "split", "options", "message"),
    [
        (lambda files: None, "test", {}, "has no paco_lvis_v1_test.json, nor has its folder annotations: unpack"),
        (
            lambda files: write_paco(files, PACO_DOGS, name="paco_lvis_v1_val.json"),
            "test",
            {},
            "name paco_lvis_v1_val.json with --annotations",
        ),
        (lambda files: write_paco(files, PACO_DOGS), "train", {}, "has no paco_lvis_v1_train.json"),
        (lambda files: write_paco(files, PACO_DOGS), "test", {"object": "dog"}, "--object does not apply to paco"),
        (
            lambda files: write_paco(files, [mark(1, EAR, 0, 1)], CATEGORIES),
            "test",
            {},
            'has no category such as "dog:ear", so it is not PACO\'s: name it as the data set coco',
        ),
        (
            lambda files: write_paco(files, PACO_DOGS, neg_category_ids=7),
            "test",
            {},
            "entry 0 of 'images' has the neg_category_ids 7, which is not a list: write a list of category ids",
        ),
        (
            lambda files: write_paco(files, PACO_DOGS, neg_category_ids=[207, 9]),
            "test",
            {},
            "entry 0 of 'images' has 9 in its neg_category_ids, which is not the id of a category",
        ),
        (
            lambda files: write_paco(files, PACO_DOGS, not_exhaustive_category_ids=[207, None]),
            "test",
            {},
            "has None in its not_exhaustive_category_ids",
        ),
        (
            lambda files: write_paco(files, [mark(1, 2138, 0, 1, 5)]),
            "test",
            {},
            "annotation 1 has the obj_ann_id 5, which no annotation has",
        ),
        (
            lambda files: write_paco(files, [mark(1, 207, 0, 3, 1), mark(2, 2138, 0, 1, 1)]),
            "test",
            {},
            "annotation 2, a dog's ear, has the obj_ann_id 1, which is a car (automobile)",
        ),
        (
            lambda files: (files.root / TEST_FILE).write_text("{") if write_paco(files, []) else None,
            "test",
            {},
            "paco_lvis_v1_test.json: ",
        ),
        (
            lambda files: write_paco(files, PACO_DOGS, [*PACO, {"id": 3000, "name": "dog:"}]),
            "test",
            {},
            "part",
        ),
    ],
)
def test_files_that_are_not_pacos(files, make, split: Any, options: dict[str, Any], message: str) -> None:
    make(files)
    with pytest.raises(PartCLIPSegError) as error:
        open_dataset("paco", files.root, split, **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [HEIGHT, WIDTH], "counts": "1"}, "do not fill the photo"),
        ({"size": [WIDTH, HEIGHT], "counts": columns(0, 2)["counts"]}, "are for the size"),
        ("mask", "neither a list of polygons nor run lengths"),
        ([[0, 0, 1e9, 0, 0, 1]], "far outside the photo"),
    ],
)
def test_broken_masks_are_named_by_their_annotation(files, segmentation: Any, message: str) -> None:
    write_paco(files, [*PACO_DOGS, {**mark(40, 378, 0, 1, 40), "segmentation": segmentation}])
    dataset = open_dataset("paco", files.root).with_instances()
    for read in (lambda: dataset[0], lambda: dataset.records[0].source.read_regions(dataset.records[0].photo, (4, 12))):
        with pytest.raises(DataError, match="annotation 40 of photo 000000000001") as error:
            read()
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("stated", "area"),
    [
        ({"area": 5000.5}, 5000.5),  # public evaluators sort regions into small, medium and large by it
        ({}, 20.0),
        *(({"area": wrong}, 20.0) for wrong in (None, 0, -3, "20", True, [20], float("nan"), 1e300)),
    ],
)
def test_areas_are_those_that_the_file_states(files, stated: dict[str, Any], area: float) -> None:
    two_ears = [mark(2, EAR, 0, 1, 1, area=900), mark(3, EAR, 4, 5, 1, area=900)]  # one region, so the area is its own
    write(files, [mark(1, DOG, 0, 5, 1, **stated), *two_ears])
    dataset = open_dataset("coco", files.root).with_instances()
    regions = {one.label: one.area for one in dataset.regions(0, dataset[0]).regions}
    ear, dog = dataset.vocabulary.names.index("dog's ear"), len(dataset.vocabulary) + 1
    assert regions == {ear: 8.0, dog: area}


@pytest.mark.parametrize(
    ("lists", "exhaustive"),
    [
        ({}, True),
        ({"neg_category_ids": []}, False),  # nobody looked for a dog's leg or a cat's ear
        ({"neg_category_ids": [LEG, CAT_EAR, CAT]}, True),  # all that is not annotated is absent
        ({"neg_category_ids": [LEG, CAT_EAR, CAT], "not_exhaustive_category_ids": [DOG]}, False),
        ({"not_exhaustive_category_ids": [DOG]}, False),
    ],
)
def test_whether_all_else_is_background(files, lists: dict[str, Any], exhaustive: bool) -> None:
    write(files, [mark(1, DOG, 0, 4, 1), mark(2, EAR, 1, 2, 1)], **lists)
    assert open_dataset("coco", files.root).exhaustive == exhaustive


def test_a_photo_without_lists_knows_all_that_is_absent(files) -> None:
    write_paco(files, PACO_DOGS, neg_category_ids=None, not_exhaustive_category_ids=None)
    dataset = open_dataset("paco", files.root).with_instances()
    truth = dataset.regions(0, dataset[0])
    assert (truth.negative, truth.not_exhaustive) == (None, frozenset())


# -- training -- ------------------------------------------------------------------------------------------------------


def test_training_on_crops_around_objects_reads_instances(files) -> None:
    write(files, TWO_DOGS, name="train.json")
    recipe = replace(own_data(), held_out=0, augmentation=Augmentation(object_crop=0.5))
    plain = replace(recipe, augmentation=Augmentation())
    for some, has_instances in ((recipe, True), (plain, False)):
        sample = open_training_data(some, files.root).train[0]  # type: ignore
        assert (sample.instances is not None) == has_instances
    write(files, [mark(1, EAR, 0, 2)], name="train.json")
    assert len(open_training_data(plain, files.root).train) == 1
    with pytest.raises(UsageError, match="do not tell objects of one kind apart"):
        open_training_data(recipe, files.root)
