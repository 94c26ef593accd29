"""PartPQ: the public evaluator's figures, examples by hand, and what the score must not depend on."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.partpq import NOTHING, UNKNOWN_PART, PanopticClass, PanopticMaps, PartPQ

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "reference" / "golden" / "instances" / "partpq"
CLASSES = [
    PanopticClass("dog", parts=True),
    PanopticClass("car", parts=True),
    PanopticClass("ball"),
    PanopticClass("grass", thing=False),
    PanopticClass("sky", thing=False),
]
GROUPS = {
    "plain_evalspec.yaml": {},
    # Parts that are one, and cars whose pixels without a part are of part 2.
    "grouped_evalspec.yaml": {(1, 4): 3, (2, 3): 2, (2, 0): 2},
}


def golden_truth(path: Path, groups: dict[tuple[int, int], int]) -> PanopticMaps:
    """Class, instance and part of uids: two digits, three more and two more; what has fewer has no instance or part."""
    uids = np.asarray(Image.open(path)).astype(np.int64)
    digits = np.where(uids > 99_999, 7, np.where(uids > 99, 5, 2))
    classes = uids // 10 ** (digits - 2)
    instances = np.where(digits > 2, uids // 10 ** np.maximum(digits - 5, 0) % 1000, NOTHING)
    parts = np.where(digits == 7, uids % 100, 0)
    for (label, part), merged in groups.items():
        parts = np.where((classes == label) & (parts == part), merged, parts)
    evaluated = (classes >= 1) & (classes <= len(CLASSES))
    return PanopticMaps(np.where(evaluated, classes - 1, NOTHING), instances, parts - 1)


def golden_prediction(path: Path) -> PanopticMaps:
    classes, instances, parts = np.moveaxis(np.asarray(Image.open(path)).astype(np.int64), 2, 0)
    evaluated = (classes >= 1) & (classes <= len(CLASSES))
    parts = np.where(parts == 255, UNKNOWN_PART, parts - 1)
    return PanopticMaps(np.where(evaluated, classes - 1, NOTHING), instances, parts)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden photos are not beside the repository")
@pytest.mark.parametrize("case", ["plain", "grouped"])
def test_every_figure_of_the_public_evaluator_is_met(case: str) -> None:
    expected = json.loads((GOLDEN / "dev" / "expected.json").read_text())[case]
    counts = PartPQ(CLASSES)
    for key, classes in expected["per_photo_tp_fp_fn_iousum"].items():
        truth = golden_truth(GOLDEN / "dev" / "gt" / f"{key}.tif", GROUPS[expected["spec"]])
        assert counts.update(truth, golden_prediction(GOLDEN / "dev" / "pred" / f"{key}.png"), key)
        record = counts.record(key)
        for label, figures in classes.items():
            assert record[int(label) - 1].tolist() == pytest.approx(figures, abs=1e-9), (key, label)
    scores = counts.compute()
    for label, figures in expected["per_class"].items():
        found = scores.classes[int(label) - 1]
        ours = {"PartPQ": found.pq, "PartSQ": found.sq, "PartRQ": found.rq}
        assert ours == pytest.approx({name: 100 * value for name, value in figures.items()}, abs=1e-9)
    means = (("", scores.all), ("_parts", scores.with_parts), ("_noparts", scores.without_parts))
    for (suffix, found), figures in zip(means, expected["average"], strict=True):
        for name, value in (("PartPQ", found.pq), ("PartSQ", found.sq), ("PartRQ", found.rq)):
            assert value == pytest.approx(100 * figures[f"{name}{suffix}"], abs=1e-9)


DOG_ON_GROUND = [PanopticClass("dog", parts=True), PanopticClass("ground", thing=False)]


def row(classes: str, instances: str, parts: str) -> PanopticMaps:
    """Maps of one row, a character for each pixel: digits, ``.`` for none, ``?`` for an unknown part."""
    values = {".": NOTHING, "?": UNKNOWN_PART, **{str(digit): digit for digit in range(10)}}
    return PanopticMaps(*(np.array([[values[one] for one in text]]) for text in (classes, instances, parts)))


# Ten pixels. Two dogs (class 0) of three pixels each, with head (part 0) and leg (part 1); ground (class 1) between.
TRUTH = row("0001100011", "000..111..", "001..011..")


@pytest.mark.parametrize(
    ("prediction", "dog", "ground"),
    [
        # All right: three labels (surroundings, head, leg) of IoU 1.
        (TRUTH, (2, 0, 0, 2.0), (1, 0, 0, 1.0)),
        # The first dog's head is a leg throughout: surroundings 1, head 0, leg 1/3.
        (row("0001100011", "000..111..", "111..011.."), (2, 0, 0, (1 + 0 + 1 / 3) / 3 + 1), (1, 0, 0, 1.0)),
        # One dog for both: of six pixels each dog is three, not more than half; two are missed, one is false.
        (row("0001100011", "000..000..", "001..011.."), (0, 1, 2, 0.0), (1, 0, 0, 1.0)),
        # The second dog's leg belongs to the first: IoU of the first 3/5; of the second 1/3, so one false, one missed.
        # Surroundings of the first 5 of 7, head 1, leg 1 of 3.
        (row("0001100011", "000..100..", "001..011.."), (1, 1, 1, (5 / 7 + 1 + 1 / 3) / 3), (1, 0, 0, 1.0)),
        # A head that is left open: head 1 of 2, surroundings and leg 1, and nothing for the open pixel.
        (row("0001100011", "000..111..", "0?1..011.."), (2, 0, 0, (1 + 1 / 2 + 1) / 3 + 1), (1, 0, 0, 1.0)),
        # Nothing at all: what is missed.
        (row("." * 10, "." * 10, "." * 10), (0, 0, 2, 0.0), (0, 0, 1, 0.0)),
        # An invented third dog on the ground: the ground shrinks to half, which is no match.
        (row("0000000011", "00022111..", "00100011.."), (2, 1, 0, None), (0, 1, 1, 0.0)),
    ],
)
def test_examples_by_hand(prediction: PanopticMaps, dog: tuple, ground: tuple) -> None:
    counts = PartPQ(DOG_ON_GROUND)
    counts.update(TRUTH, prediction, "row")
    found = counts.record("row")
    assert found[0, :3].tolist() == list(dog[:3])
    if dog[3] is not None:
        assert found[0, 3] == pytest.approx(dog[3])
    assert found[1].tolist() == pytest.approx(ground)


def test_means_leave_out_classes_that_do_not_occur() -> None:
    counts = PartPQ([*DOG_ON_GROUND, PanopticClass("cat", parts=True)])
    counts.update(TRUTH, row("0001100011", "000..000..", "001..011.."), "one dog for both")
    scores = counts.compute()
    assert (scores.all.pq, scores.all.classes) == (50.0, 2)
    assert (scores.with_parts.pq, scores.with_parts.classes) == (0.0, 1)
    assert (scores.without_parts.pq, scores.without_parts.sq, scores.without_parts.rq) == (100.0, 100.0, 100.0)
    assert math.isnan(scores.classes[2].pq)
    assert scores.to_dict()["classes"][2]["pq"] is None
    assert math.isnan(PartPQ(DOG_ON_GROUND).running())


@pytest.mark.parametrize(
    ("truth", "prediction", "dog"),
    [
        # On void nothing is wrong: an invented dog there does not count, nor what a dog covers of it.
        (row("000.......", "000.......", "001......."), row("0000000000", "0001111111", "0010000000"), (1, 0, 0, 1.0)),
        # Half a dog on void and half on ground counts: more than half must lie on void.
        (row("000..11111", "000.......", "001......."), row("000..00000", "000..11111", "001..00000"), (1, 1, 0, 1.0)),
        (row("000..11111", "000.......", "001......."), row("000000.111", "000111....", "001000...."), (1, 0, 0, 1.0)),
        # A crowd is neither missed nor found twice.
        (row("0001100011", "000.......", "001..011.."), TRUTH, (1, 0, 0, 1.0)),
        # A dog without any labelled part joins the crowd.
        (row("0001100011", "000..111..", "001......."), TRUTH, (1, 0, 0, 1.0)),
        # Pixels of a dog without a labelled part do not count for its parts.
        (row("0001100011", "000..111..", "0.1..011.."), row("0001100011", "000..111..", "001..011.."), (2, 0, 0, 2.0)),
    ],
)
def test_what_is_not_scored(truth: PanopticMaps, prediction: PanopticMaps, dog: tuple) -> None:
    counts = PartPQ(DOG_ON_GROUND)
    counts.update(truth, prediction, "row")
    assert counts.record("row")[0].tolist() == pytest.approx(dog)


def test_what_is_no_thing_has_number_0_where_it_has_none() -> None:
    """Half of the ground has the number 0 and half of it none: one segment, which one prediction matches."""
    counts = PartPQ(DOG_ON_GROUND)
    prediction = row("1111111111", "0000000000", "..........")
    counts.update(row("1111111111", "00000.....", ".........."), prediction, "row")
    assert counts.record("row")[1].tolist() == [1, 0, 0, 1.0]


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (TRUTH, row("0", "0", "0"), "the sizes [1, 1], [1, 1], [1, 1], the truth [1, 10]"),
        (TRUTH, TRUTH._replace(parts=np.zeros((2, 5), int)), "bring them to the size of the photo"),
        (TRUTH, TRUTH._replace(classes=TRUTH.classes + 1), "has the class 2; there are the classes 0 to 1"),
        (TRUTH._replace(classes=TRUTH.classes - 2), TRUTH, "the truth has the class -2"),
        (TRUTH._replace(parts=TRUTH.parts - 1), TRUTH, "the truth has the part -2: parts are counted from 0"),
        (TRUTH, TRUTH._replace(parts=TRUTH.parts - 2), "the prediction has the part -3"),
    ],
)
def test_maps_that_do_not_fit_are_refused(truth: PanopticMaps, prediction: PanopticMaps, message: str) -> None:
    counts = PartPQ(DOG_ON_GROUND)
    with pytest.raises(PartCLIPSegError) as error:
        counts.update(truth, prediction, "row")
    assert message in str(error.value)
    assert "row" not in counts


@pytest.mark.parametrize("classes", [[], [PanopticClass("dog"), PanopticClass("dog", parts=True)]])
def test_classes_need_names_that_differ(classes: list[PanopticClass]) -> None:
    with pytest.raises(UsageError, match="names that differ"):
        PartPQ(classes)


def random_maps(seed: int) -> PanopticMaps:
    chance = np.random.default_rng(seed)
    blocks = chance.integers(-1, 2, (2, 4, 4)).repeat(3, 1).repeat(3, 2)
    parts = chance.integers(-1, 3, (12, 12))
    return PanopticMaps(blocks[0], np.where(blocks[0] == 0, blocks[1], 0), parts)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_order_processes_and_numbers_do_not_matter(seed: int, order: list[int]) -> None:
    pairs = [(random_maps(seed + 2 * i), random_maps(seed + 2 * i + 1)) for i in range(4)]
    whole, first, second = (PartPQ(DOG_ON_GROUND) for _ in range(3))
    for i, (truth, prediction) in enumerate(pairs):
        whole.update(truth, prediction, str(i))
    for place, i in enumerate(order):
        truth, prediction = pairs[i]
        renamed = prediction._replace(instances=np.where(prediction.instances >= 0, 7 - prediction.instances, -1))
        (first if place % 2 else second).update(truth, renamed, str(i))
    first.update(*pairs[order[0]], str(order[0]))  # counted by both, and so once
    state = torch.load(saved(second), weights_only=True)
    first.merge_state_dict(state)
    assert first.compute().to_dict() == whole.compute().to_dict()
    assert len(first) == 4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_truth_itself_is_found_whole(seed: int) -> None:
    truth = random_maps(seed)
    counts = PartPQ(DOG_ON_GROUND)
    counts.update(truth, truth, "same")
    for item in counts.compute().classes:
        assert (item.fp, item.fn) == (0, 0)
        assert math.isnan(item.pq) or item.pq == pytest.approx(100)


def saved(counts: PartPQ) -> io.BytesIO:
    content = io.BytesIO()
    torch.save(counts.state_dict(), content)
    content.seek(0)
    return content


def test_a_state_of_other_results_is_refused() -> None:
    first, second = PartPQ(DOG_ON_GROUND), PartPQ(DOG_ON_GROUND)
    first.update(TRUTH, TRUTH, "row")
    second.update(TRUTH, row("." * 10, "." * 10, "." * 10), "row")
    with pytest.raises(PartCLIPSegError, match="'row' was scored twice with different results"):
        first.merge_state_dict(second.state_dict())
    with pytest.raises(PartCLIPSegError, match="other classes"):
        first.merge_state_dict(PartPQ(CLASSES).state_dict())
    assert not first.update(TRUTH, TRUTH, "row")
