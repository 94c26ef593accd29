"""The three rules of averaging on one confusion matrix, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from partclipseg import Evaluator
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.choices import RULES, Protocol, Rule
from partclipseg.evaluation.report import rule_table, score_table
from partclipseg.evaluation.resized_labels import ov_parts_size, resize_there_and_back

WORDS = ["a's x", "a's y", "b's x", "b's y", "b's z"]
EDGE = 40
"""Height and width of the maps, which OV-PARTS' rule resizes to 20 times as much and back: no label moves."""
LABELS = np.tile(np.repeat([0, 1, 2, 3], 10), (EDGE, 1))
"""Ten columns of each of four classes; the fifth has none."""
FOUND = np.tile(np.concatenate([[0] * 5 + [-1] * 5, [-1] * 10, [2] * 4 + [-1] * 6, [-1] * 10]), (EDGE, 1))
"""IoU 5/10, 0/10, 4/10, 0/10: the seen classes 0 and 1, the unseen 2 and 3."""
WITH_FIFTH = np.concatenate([FOUND[:, :30], np.full((EDGE, 10), 4)], axis=1)
"""The same, and the fourth class is taken for the fifth, which has no label: IoU 0/10."""


def scores_of(prediction: np.ndarray, rule="partclipseg", protocol="pred_all"):
    evaluator = Evaluator(WORDS, seen=[0, 1], protocol=protocol, boundary=None, rule=rule)
    evaluator.update(prediction, LABELS, np.zeros_like(LABELS))
    return evaluator.compute()


BY_HAND = {
    # rule: seen, unseen, harmonic; then with the fifth class predicted
    ("pred_all", "partclipseg"): ((25, 20, 200 / 9), (25, 20, 200 / 9)),  # (50 + 0) / 2, (40 + 0) / 2
    ("pred_all", "partcatseg"): ((50, 40, 400 / 9), (50, 40, 400 / 9)),  # 50 / 1, 40 / 1
    ("pred_all", "ov-parts"): ((25, 20, 200 / 9), (25, 40 / 3, 400 / 23)),  # (40 + 0) / 3 with the fifth
    # Oracle-Obj does not count a pixel that is called background: 5/5 and 4/4 are left, and 0/10 with the fifth.
    ("oracle_obj", "partclipseg"): ((100, 100, 100), (100, 50, 200 / 3)),  # (100 + 0) / 2
    ("oracle_obj", "partcatseg"): ((100, 100, 100), (100, 100, 100)),
    ("oracle_obj", "ov-parts"): ((100, 100, 100), (100, 100 / 3, 50)),  # (100 + 0) / 3
}


@pytest.mark.parametrize(("protocol", "rule"), BY_HAND)
def test_by_hand(protocol, rule):
    for prediction, expected in zip((FOUND, WITH_FIFTH), BY_HAND[protocol, rule], strict=True):
        scores = scores_of(prediction, rule, protocol)
        # rel: sums of doubles
        assert (scores.seen.iou, scores.unseen.iou, scores.harmonic.iou) == pytest.approx(expected, rel=1e-12)
        found = next(one for one in scores.rules if one.rule == rule)
        assert (found.all, found.seen, found.unseen, found.harmonic) == (
            scores.all.iou, scores.seen.iou, scores.unseen.iou, scores.harmonic.iou
        )  # fmt: skip


def test_the_rule_changes_no_other_score():
    first, *others = (scores_of(WITH_FIFTH, rule) for rule in RULES)
    for other in others:
        assert other.rules == first.rules
        assert [item.iou for item in other.classes] == [item.iou for item in first.classes]
        assert (other.all.recall, other.all.pixel_accuracy) == (first.all.recall, first.all.pixel_accuracy)
        assert other.frequency_weighted_iou == first.frequency_weighted_iou


def test_nothing_found_has_no_mean_by_partcatseg():
    scores = scores_of(np.full_like(LABELS, -1), "partcatseg")
    assert math.isnan(scores.seen.iou)
    assert scores.rules[0].seen == scores.rules[2].seen == 0


def test_strict_has_one_rule():
    scores = scores_of(FOUND, "partcatseg", "strict")
    assert (scores.rule, scores.rules) == ("partclipseg", ())
    assert scores.seen.iou == 25


def test_the_report_shows_the_chosen_rule_beside_the_others():
    scores = scores_of(FOUND, "partcatseg")
    assert score_table(scores).rows[0] == ("mIoU", "45.00", "50.00", "40.00", "44.44")
    table = rule_table(scores)
    assert [row[0].endswith("(chosen)") for row in table.rows] == [False, True, False]
    assert [row[-1] for row in table.rows] == ["22.22", "44.44", "22.22"]
    assert "compare figures of one rule only" in table.note
    said = "also counts classes without labels that were predicted"
    assert said in table.note
    assert said not in rule_table(scores_of(FOUND, "partcatseg", "oracle_obj")).note


@pytest.mark.parametrize(
    ("rule", "protocol", "note"),
    [
        ("partclipseg", "pred_all", "as published. With --rule partcatseg labels are resized as that evaluator does."),
        ("partclipseg", "oracle_obj", "only. With --rule ov-parts or partcatseg labels are resized as that evaluator "),
        ("partcatseg", "oracle_obj", "to the size that the model first resizes photos to, if it does. With --rule ov-"),
        ("partcatseg", "pred_all", "as PartCATSeg's evaluator does: to the size that the model first resizes photos"),
        ("ov-parts", "oracle_obj", "as OV-PARTS' evaluator does: to a shortest edge of 800 pixels, or that of a model"),
        ("ov-parts", "pred_all", "as published. With --rule partcatseg labels are resized as that evaluator does."),
    ],
)
def test_the_report_says_which_labels_were_counted(rule, protocol, note):
    assert note in rule_table(scores_of(FOUND, rule, protocol)).note


def test_an_unknown_rule_is_refused():
    with pytest.raises(UsageError, match="unknown rule 'mean': choose one of partclipseg, partcatseg, ov-parts"):
        Evaluator(WORDS, rule="mean")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("size", "moved"),
    [
        *(((800, 800), False), ((400, 1000), True), ((37, 53), True), ((1600, 900), True)),
        *(((1, 1), False), ((3, 4000), True)),
    ],
)
def test_labels_of_ov_parts_are_those_of_two_interpolations(size, moved):
    labels = torch.from_numpy(np.random.default_rng(0).integers(-1, 7, size)).short()
    height, width = size
    scale = min(800 / min(size), 1333 / max(size))
    resized = (int(height * scale + 0.5), int(width * scale + 0.5))
    there = torch.nn.functional.interpolate(labels[None, None].float(), resized, mode="nearest")
    expected = torch.nn.functional.interpolate(there, size, mode="nearest")[0, 0].short()
    found = resize_there_and_back(labels, ov_parts_size(size))
    assert torch.equal(found, expected)
    assert torch.equal(found, labels) != moved


def test_the_rule_of_ov_parts_resizes_the_labels_of_oracle_obj_only():
    labels = np.random.default_rng(1).integers(0, 2, (1600, 900))
    found = {}
    cases: list[tuple[Rule, Protocol]] = [
        ("partclipseg", "oracle_obj"), ("ov-parts", "oracle_obj"), ("ov-parts", "pred_all")
    ]  # fmt: skip
    for rule, protocol in cases:
        evaluator = Evaluator(["dog's ear", "dog's tail"], protocol=protocol, boundary=None, rule=rule)
        evaluator.update(labels, labels)
        found[rule, protocol] = evaluator.compute().all.iou
    assert found["partclipseg", "oracle_obj"] == found["ov-parts", "pred_all"] == 100
    assert found["ov-parts", "oracle_obj"] < 100  # 1,600 rows become 1,422, so that some are lost


def test_counts_of_resized_labels_are_not_mixed_with_others():
    plain, *resized = (Evaluator(["dog's ear"], protocol="oracle_obj", boundary=None, rule=rule) for rule in RULES)
    for one, other in ((plain, resized[0]), (resized[0], plain), (plain, resized[1]), (resized[1], resized[0])):
        with pytest.raises(PartCLIPSegError, match=r"other options \(labels\)"):
            one.load_state_dict(other.state_dict())
