"""The three benchmarks, translated by hand on tiny maps."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from partclipseg.data.datasets import open_dataset
from partclipseg.data.problem import DataError
from partclipseg.data.sample import OUTSIDE, UNLABELLED, objects_in
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.vocabulary import Vocabulary

_ = UNLABELLED
X = OUTSIDE


def check(sample, parts: list[list[int]], objects: list[list[int]]) -> None:
    assert sample.part_labels.dtype == sample.object_labels.dtype == np.int32
    assert sample.image.shape == (*sample.part_labels.shape, 3)
    np.testing.assert_array_equal(sample.part_labels, parts)
    np.testing.assert_array_equal(sample.object_labels, objects)


def test_pascal_trains_on_the_seen_vocabulary(pascal) -> None:
    dataset = open_dataset("pascal-part-116", pascal.root, "train")
    assert (len(dataset), len(dataset.vocabulary), dataset.seen) == (1, 74, tuple(range(74)))
    assert dataset.keys() == ("2008_1",)
    h, p = dataset.vocabulary.names.index("person's hair"), dataset.vocabulary.object_index("person")
    # The dog is unseen and the boat has no parts: both outside. Part labels decide where the two maps disagree.
    check(
        dataset[0],
        [[h, h, _, _, _, _], [_, _, _, _, _, _], [_, _, _, _, _, _], [_, _, _, _, _, _]],
        [[p, p, _, _, _, _], [p, p, _, X, X, _], [_, _, _, X, _, _], [X, X, _, _, _, _]],
    )


def test_pascal_tests_one_object_at_a_time(pascal) -> None:
    dataset = open_dataset("pascal-part-116", pascal.root)
    assert dataset.keys() == ("2008_2-dog", "2008_2-person")
    assert (len(dataset.vocabulary), len(dataset.seen)) == (116, 74)
    names, d, p = dataset.vocabulary.names, *map(dataset.vocabulary.object_index, ("dog", "person"))
    e, h = names.index("dog's ear"), names.index("person's hair")
    dog, person = dataset[0], dataset[1]
    check(
        dog,
        [[_, _, _, _, _, _], [_, _, _, e, e, _], [_, _, _, _, _, _], [_, _, _, _, _, _]],
        [[X, X, _, _, _, _], [X, X, _, d, d, _], [_, _, _, d, _, _], [X, X, _, _, _, _]],
    )
    check(
        person,
        [[h, h, _, _, _, _], [_, _, _, _, _, _], [_, _, _, _, _, _], [_, _, _, _, _, _]],
        [[p, p, _, _, _, _], [p, p, _, X, X, _], [_, _, _, X, _, _], [X, X, _, _, _, _]],
    )
    assert (objects_in(dog.object_labels), objects_in(person.object_labels)) == ([d], [p])
    assert [names[i].split("'s")[0] in ("dog", "bird", "car", "motorbike", "sheep") for i in range(116)] == [
        i not in dataset.seen for i in range(116)
    ]


def test_pascal_by_object_masks_as_in_ov_parts(pascal) -> None:
    """The object map alone says which labels count: a part of the other object on it does, and one beside it not."""
    dataset = open_dataset("pascal-part-116", pascal.root).by_object_masks()
    names, d, p = dataset.vocabulary.names, *map(dataset.vocabulary.object_index, ("dog", "person"))
    e, h = names.index("dog's ear"), names.index("person's hair")
    dog, person = dataset.samples([0, 1])
    check(
        dog,
        [[_, _, _, _, _, _], [_, _, _, e, _, _], [_, _, _, _, _, _], [_, _, _, _, _, _]],
        [[X, X, _, _, _, _], [X, X, _, d, X, _], [_, _, _, d, _, _], [X, X, _, _, _, _]],
    )
    check(
        person,
        [[h, h, _, _, _, _], [_, _, _, _, e, _], [_, _, _, _, _, _], [_, _, _, _, _, _]],
        [[p, p, _, _, _, _], [p, p, _, X, p, _], [_, _, _, X, _, _], [X, X, _, _, _, _]],
    )


def test_pascal_records_are_the_same_without_the_label_lists(pascal) -> None:
    listed = open_dataset("pascal-part-116", pascal.root).keys()
    for path in pascal.root.glob("annotations_detectron2_part/*.json"):
        path.unlink()
    assert open_dataset("pascal-part-116", pascal.root).keys() == listed


def test_own_words_choose_among_the_labels(pascal) -> None:
    dataset = open_dataset("pascal-part-116", pascal.root, vocabulary="Dog: EAR, tail; zebra: mane")
    assert dataset.keys() == ("2008_2-dog",)
    assert np.unique(dataset[0].part_labels).tolist() == [UNLABELLED, 0]
    assert dataset.seen == ()
    assert open_dataset("pascal-part-116", pascal.root, vocabulary="seen").keys() == ("2008_2-person",)
    with pytest.raises(UsageError, match="no record of an object of the vocabulary"):
        open_dataset("pascal-part-116", pascal.root, vocabulary="zebra: mane")


def test_leftovers_of_macos_are_no_photos(pascal) -> None:
    for folder in ("images/val/._2008_2.jpg", "annotations_detectron2_part/val/._2008_2.png"):
        pascal.text(folder, "Mac OS X")
    assert open_dataset("pascal-part-116", pascal.root).keys() == ("2008_2-dog", "2008_2-person")


def test_ade20k_trains_on_whole_photos(ade20k) -> None:
    dataset = open_dataset("ade20k-part-234", ade20k.root, "train")
    assert (dataset.keys(), len(dataset.vocabulary)) == (("t",), 176)
    w, c = dataset.vocabulary.names.index("car's wheel"), dataset.vocabulary.object_index("car")
    check(
        dataset[0],
        [[w, _, w, _, _, _], [_, _, _, _, _, _], [_, _, _, _, _, _], [_, _, _, _, _, _]],
        [[c, c, c, c, _, _], [c, c, c, _, _, _], [_, _, _, _, X, X], [_, _, _, _, X, X]],
    )


def test_ade20k_tests_instances_of_both_files(ade20k) -> None:
    dataset = open_dataset("ade20k-part-234", ade20k.root)
    assert dataset.keys() == ("v-car-0", "v-car-1", "v-van-2", "t-van-2")  # of the training file, the unseen van only
    names, c, v = dataset.vocabulary.names, *map(dataset.vocabulary.object_index, ("car", "van"))
    w, vw = names.index("car's wheel"), names.index("van's wheel")
    check(  # the other car is outside although it is of the same class; the pixel that both cover counts for each
        dataset[0],
        [[w, _, w, _, _, _], [_, _, _, _, _, _], [_, _, _, _, _, _], [_, _, _, _, _, _]],
        [[c, c, c, X, _, _], [c, c, c, _, _, _], [_, _, _, _, X, X], [_, _, _, _, X, X]],
    )
    check(
        dataset[1],
        [[_, _, w, _, _, _], [_, _, _, _, _, _], [_, _, _, _, _, _], [_, _, _, _, _, _]],
        [[X, X, c, c, _, _], [X, X, X, _, _, _], [_, _, _, _, X, X], [_, _, _, _, X, X]],
    )
    check(
        dataset[3],
        [[_, _, _, _, _, _], [_, _, _, _, _, _], [_, _, _, _, _, vw], [_, _, _, _, _, _]],
        [[X, X, X, X, _, _], [X, X, X, _, _, _], [_, _, _, _, v, v], [_, _, _, _, v, v]],
    )


def test_a_part_of_another_object_inside_an_instance_is_not_its_own(ade20k) -> None:
    content = '{"images": [{"id": 1, "file_name": "v.jpg"}], "annotations": [%s]}'
    whole = '{"id": 1, "image_id": 1, "category_id": 7, "segmentation": [[0, 0, 6, 0, 6, 4, 0, 4]]}'  # 7 is car
    ade20k.text("ade20k_instance_val.json", content % whole)
    sample = open_dataset("ade20k-part-234", ade20k.root, vocabulary="car: wheel; van: wheel")[0]
    assert sample.part_labels[2, 5] == UNLABELLED
    assert sample.object_labels[2, 5] == OUTSIDE
    assert (sample.object_labels == 0).sum() == 23


def test_ade20k_by_object_masks_as_in_ov_parts(ade20k) -> None:
    """All labels within the mask of an instance count, those of another object too."""
    dataset = open_dataset("ade20k-part-234", ade20k.root)
    masks = dataset.by_object_masks()
    assert (masks.keys(), masks.seen) == (dataset.keys(), dataset.seen)
    path = ade20k.root / "ade20k_instance_val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [[0, 0, 6, 0, 6, 4, 0, 4]]
    path.write_text(json.dumps(content))
    whole = open_dataset("ade20k-part-234", ade20k.root)
    found, cut = whole.by_object_masks()[0], whole[0]
    names = whole.vocabulary.names
    assert {names[label] for label in np.unique(cut.part_labels) if label >= 0} == {"car's wheel"}
    assert {names[label] for label in np.unique(found.part_labels) if label >= 0} == {"car's wheel", "van's wheel"}
    assert (found.object_labels == whole.vocabulary.object_index("car")).all()


def test_ade20k_without_the_validation_files_says_so(ade20k, caplog: pytest.LogCaptureFixture) -> None:
    (ade20k.root / "ade20k_instance_val.json").unlink()
    with pytest.raises(PartCLIPSegError, match=r"ade20k_instance_val\.json is missing"):  # half of a split is an error
        open_dataset("ade20k-part-234", ade20k.root)
    for folder in ("images", "annotations_detectron2_part"):
        (ade20k.root / folder / "validation").rename(ade20k.root / folder / "away")
    assert open_dataset("ade20k-part-234", ade20k.root).keys() == ("t-van-2",)
    assert "no validation files" in caplog.text


def test_part_imagenet_takes_the_object_from_the_file_name(part_imagenet) -> None:
    train = open_dataset("part-imagenet", part_imagenet.root, "train")
    assert (train.keys(), len(train.vocabulary)) == (("n02423022_1",), 92)
    test = open_dataset("part-imagenet", part_imagenet.root)
    assert (test.keys(), len(test.vocabulary)) == (("n02423022_1", "n02422699_7"), 147)
    names, o = test.vocabulary.names, test.vocabulary.object_index("impala")
    h, b = names.index("impala's head"), names.index("impala's body")
    check(
        test[1],
        [[h, h, b, b, b, b], [b, b, b, b, b, b], [_, _, _, _, _, _], [_, _, _, _, _, _]],
        [[o, o, o, o, o, o], [o, o, o, o, o, o], [_, _, _, _, _, _], [_, _, _, _, _, _]],
    )


def test_part_imagenet_refuses_parts_that_the_object_has_not(part_imagenet, rectangle: Callable) -> None:
    photos = [{"id": 1, "file_name": "n02422699_7.JPEG"}]
    side_mirror = 26
    annotations = [{"id": 4, "image_id": 1, "category_id": side_mirror, "segmentation": [rectangle(0, 0, 2, 2)]}]
    part_imagenet.json("val.json", {"images": photos, "annotations": annotations})
    with pytest.raises(DataError, match="annotation 4 of photo n02422699_7: impala's side mirror is not in"):
        open_dataset("part-imagenet", part_imagenet.root)[0]


def test_data_sets_and_their_errors_travel_between_processes(pascal) -> None:
    dataset = open_dataset("pascal-part-116", pascal.root)
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[0].part_labels, dataset[0].part_labels)
    (pascal.root / "images/val/2008_2.jpg").unlink()
    with pytest.raises(DataError) as caught:
        copy[0]
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.problem.kind == "missing photo"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("coco-part", "test", {}), "unknown data set 'coco-part'"),
        (("pascal-part-116", "val", {}), "unknown split 'val'"),
        (("pascal-part-116", "test", {"object": "car"}), "--object does not apply to pascal-part-116"),
        (("index-png", "test", {"annotations": "x.json"}), "--annotations does not apply to index-png"),
    ],
)
def test_wrong_names_are_named(pascal, arguments: tuple, message: str) -> None:
    name, split, own = arguments
    with pytest.raises(UsageError, match=message):
        open_dataset(name, pascal.root, split, **own)


def test_vocabulary_may_be_given_ready_made(pascal) -> None:
    words = Vocabulary.from_dict({"person": ["hair"]})
    assert open_dataset("pascal-part-116", pascal.root, "train", words).vocabulary is words
