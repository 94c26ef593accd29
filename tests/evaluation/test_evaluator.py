from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partclipseg import Evaluator, Vocabulary
from partclipseg.data.sample import OUTSIDE
from partclipseg.errors import PartCLIPSegError, UsageError

VOCABULARY = Vocabulary.from_names(["cat's ear", "cat's leg", "dog's ear"])
EAR, LEG, DOG = 0, 1, 2


def scores_of(prediction: list, labels: list, objects: list | None = None, **options: Any):
    evaluator = Evaluator(VOCABULARY, **options)
    evaluator.update(
        np.array(prediction, np.int32),
        np.array(labels, np.int32),
        None if objects is None else np.array(objects, np.int32),
    )
    return evaluator.compute()


def random_record(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(-1, 3, (12, 14), dtype=np.int32)
    objects = np.where(labels >= 0, VOCABULARY.class_to_object[labels], generator.integers(-2, 2, (12, 14)))
    return generator.integers(-1, 3, (12, 14), dtype=np.int32), labels, objects.astype(np.int32)


# One row of pixels: an ear found, an ear taken for a leg, an ear missed, an unlabelled pixel inside the object
# and one outside of it, both predicted as ear, and one outside predicted as nothing.
PREDICTION = [[EAR, LEG, -1, EAR, EAR, -1]]
LABELS = [[EAR, EAR, EAR, -1, -1, -1]]
OBJECTS = [[0, 0, 0, 0, -1, -1]]


@pytest.mark.parametrize(
    ("protocol", "iou"),
    [
        # The missed ear counts as a label only where predictions of background count.
        ("oracle_obj", 100 * 1 / 2),
        ("pred_all", 100 * 1 / 3),
        ("strict", 100 * 1 / 4),  # the ear predicted outside the object is an error, the one inside is not
    ],
)
def test_protocols_differ_by_what_they_count(protocol: str, iou: float) -> None:
    scores = scores_of(PREDICTION, LABELS, OBJECTS, protocol=protocol)
    assert scores.classes[EAR].iou == pytest.approx(iou)
    assert scores.records == 1


def test_an_object_outside_the_vocabulary_is_ignored_by_strict() -> None:
    inside = scores_of(PREDICTION, LABELS, [[0, 0, 0, 0, OUTSIDE, OUTSIDE]], protocol="strict")
    assert inside.classes[EAR].iou == pytest.approx(100 / 3)


def test_strict_only_adds_errors_to_pred_all() -> None:
    for seed in range(20):
        strict, published = (Evaluator(VOCABULARY, protocol=p) for p in ("strict", "pred_all"))
        for evaluator in (strict, published):
            evaluator.update(*random_record(seed))
        for ours, theirs in zip(strict.compute().classes, published.compute().classes, strict=True):
            assert ours.recall == theirs.recall
            assert ours.iou <= theirs.iou


def test_sets_of_classes() -> None:
    scores = scores_of([[EAR, EAR, LEG, DOG]], [[EAR, LEG, LEG, DOG]], seen=["cat's ear", 1])
    assert scores.seen.iou == pytest.approx(50)  # ear 1/2, leg 1/2
    assert scores.seen.recall == pytest.approx(75)
    assert scores.seen.pixel_accuracy == pytest.approx(100 * 2 / 3)
    assert scores.unseen.iou == 100
    assert scores.harmonic.iou == pytest.approx(2 * 50 * 100 / 150)
    assert scores.all.pixel_accuracy == pytest.approx(75)
    assert scores.frequency_weighted_iou == pytest.approx((50 + 2 * 50 + 100) / 4)
    assert [item.seen for item in scores.classes] == [True, True, False]


def test_without_unseen_classes_those_scores_are_undefined() -> None:
    scores = scores_of([[EAR]], [[EAR]], boundary=None)
    assert math.isnan(scores.unseen.iou)
    assert math.isnan(scores.harmonic.iou)
    assert math.isnan(scores.all.boundary_iou)
    assert scores.to_dict()["unseen"] == {
        "iou": None, "recall": None, "pixel_accuracy": None, "boundary_iou": None
    }  # fmt: skip


def test_nothing_counted_gives_undefined_scores() -> None:
    scores = Evaluator(VOCABULARY).compute()
    assert scores.records == 0
    assert math.isnan(scores.all.iou)
    assert math.isnan(scores.frequency_weighted_iou)


def test_small_parts_are_those_below_the_area() -> None:
    labels = np.full((10, 20), EAR, np.int32)
    labels[0, :2] = LEG  # exactly 1 % of the photo
    labels[1, 0] = DOG  # below it
    prediction = labels.copy()
    prediction[1, 1] = DOG
    evaluator = Evaluator(VOCABULARY, small_part_area=0.01)
    evaluator.update(prediction, labels)
    small = evaluator.compute().small_parts
    assert (small.parts, small.iou, small.recall) == (1, 50, 100)
    # A record in which the part is large does not enter.
    evaluator.update(np.full((4, 4), EAR, np.int32), np.full((4, 4), DOG, np.int32))
    assert evaluator.compute().small_parts == small


def test_duplicates_are_ignored_and_records_without_key_always_count() -> None:
    evaluator = Evaluator(VOCABULARY)
    assert evaluator.update(*random_record(0), key="a")
    once = evaluator.compute()
    counts = evaluator.regions.total.copy()
    assert not evaluator.update(*random_record(1), key="a")
    np.testing.assert_array_equal(evaluator.regions.total, counts)
    evaluator.update(*random_record(0))
    evaluator.update(*random_record(0))
    assert len(evaluator) == 3
    assert evaluator.compute().classes[0].pixels == 3 * once.classes[0].pixels


@pytest.mark.parametrize("protocol", ["oracle_obj", "pred_all", "strict"])
@given(order=st.permutations(range(6)), cut=st.integers(0, 6))
@settings(max_examples=15)
def test_any_order_any_split_any_restart_gives_the_same_scores(protocol: str, order: list[int], cut: int) -> None:
    whole = Evaluator(VOCABULARY, seen=[0], protocol=protocol)
    for seed in range(6):
        whole.update(*random_record(seed), key=str(seed))
    first, second = (Evaluator(VOCABULARY, seen=[0], protocol=protocol) for _ in range(2))
    for seed in order[: cut + 1]:  # one record may be in both
        first.update(*random_record(seed), key=str(seed))
    second.load_state_dict(Evaluator(VOCABULARY, seen=[0], protocol=protocol).state_dict())
    for seed in order[cut:]:
        second.update(*random_record(seed), key=str(seed))
    first.merge(second)
    assert first.compute() == whole.compute()


def test_state_of_other_options_is_refused() -> None:
    state = Evaluator(VOCABULARY, protocol="strict", boundary=None).state_dict()
    with pytest.raises(PartCLIPSegError, match=r"saved scores .* \(protocol, boundary\)"):
        Evaluator(VOCABULARY).load_state_dict(state)
    with pytest.raises(PartCLIPSegError, match=r"scores to merge .* \(seen\)"):
        Evaluator(VOCABULARY).merge(Evaluator(VOCABULARY, seen=[1]))


def test_photos_are_ranked_by_their_own_score() -> None:
    evaluator = Evaluator(VOCABULARY)
    labels = np.array([[EAR, EAR, LEG, -1]], np.int32)
    evaluator.update(labels, labels, key="good")
    evaluator.update(np.array([[EAR, LEG, LEG, EAR]], np.int32), labels, key="fair")
    evaluator.update(labels, np.full_like(labels, -1), key="nothing labelled")
    assert evaluator.record_iou("good") == 100
    assert evaluator.record_iou("fair") == pytest.approx(50)
    assert math.isnan(evaluator.record_iou("nothing labelled"))
    assert evaluator.running_iou() == pytest.approx(evaluator.compute().all.iou)


def test_arrays_and_tensors_of_any_integer_type_count_alike() -> None:
    prediction, labels, _ = random_record(3)
    labels.flags.writeable = False
    first, second = Evaluator(VOCABULARY), Evaluator(VOCABULARY)
    first.update(prediction, labels)
    second.update(torch.from_numpy(prediction).long(), labels.astype(np.int8))
    np.testing.assert_array_equal(first.regions.total, second.regions.total)


LABEL_MAP = np.zeros((2, 3), np.int32)


@pytest.mark.parametrize(
    ("prediction", "labels", "message"),
    [
        (LABEL_MAP, np.full((2, 3), 255), "labels: the value 255 is no class; .* 0 to 2"),
        (np.full((2, 3), 3), LABEL_MAP, "prediction: the value 3 is no class"),
        (np.full((2, 3), -2), LABEL_MAP, "prediction: the value -2 is no class"),
        (np.zeros((3, 2), int), LABEL_MAP, r"labels has the size \[2, 3\], the prediction \[3, 2\]"),
        (np.zeros((2, 3)), LABEL_MAP, r"prediction must be a map of integers .*float64"),
        (np.zeros((1, 2, 3), int), LABEL_MAP, r"prediction must be .* \[1, 2, 3\]"),
        (np.zeros((0, 3), int), LABEL_MAP, r"prediction must be .* \[0, 3\]"),
    ],
)
def test_wrong_maps_are_named(prediction: np.ndarray, labels: np.ndarray, message: str) -> None:
    evaluator = Evaluator(VOCABULARY)
    with pytest.raises(PartCLIPSegError, match=message):
        evaluator.update(prediction, labels)
    assert len(evaluator) == 0


def test_strict_needs_the_objects() -> None:
    with pytest.raises(PartCLIPSegError, match="strict protocol needs object_labels"):
        Evaluator(VOCABULARY, protocol="strict").update(LABEL_MAP, LABEL_MAP)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "pred-all"}, "unknown protocol 'pred-all'"),
        ({"boundary": "both"}, "unknown boundary 'both'"),
        ({"seen": [0, 3]}, "seen class 3 is not in the vocabulary of 3"),
        ({"seen": ["cow's ear"]}, "seen class \"cow's ear\" is not"),
        ({"small_part_area": 5.0}, "from 0 to 1, not 5.0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Evaluator(VOCABULARY, **options)


def test_the_reference_boundary_refuses_more_than_8_bits() -> None:
    many = Vocabulary.from_dict({"thing": [f"part {index}" for index in range(256)]})
    with pytest.raises(UsageError, match="at most 255 classes"):
        Evaluator(many, boundary="reference")
    Evaluator(many)
