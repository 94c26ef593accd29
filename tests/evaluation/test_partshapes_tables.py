"""The tables of benchmarks/partshapes.py, on results of two seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from partclipseg.evaluation.choices import PROTOCOLS, RULES
from partclipseg.models.partcatseg.config import CATSegConfig, PartCATSegConfig

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
from partshapes import filter_scores
from partshapes_tables import summary_of, tables
from partshapes_variants import VARIANTS, ordered


def scores(value: float) -> dict[str, Any]:
    figures = {"iou": value, "recall": value + 1, "boundary_iou": value + 2}
    rules = [
        {"rule": rule, "all": 0.0, "seen": value, "unseen": value, "harmonic": value + 10 * place}
        for place, rule in enumerate(RULES)
    ]
    groups = dict.fromkeys(("seen", "unseen", "harmonic"), figures)
    return {
        protocol: {**groups, "small_parts": {"iou": value + 3, "recall": None}, "rules": rules}
        for protocol in PROTOCOLS
    }


def result(variant: str, seed: int, value: float, budget: str = "steps", **more: Any) -> dict[str, Any]:
    return {
        "variant": variant, "seed": seed, "budget": budget, "steps": 1000, "seconds": 50.0, "machine": "a GPU",
        "scores": scores(value), **more,
    }  # fmt: skip


RESULTS = [
    result("default", 0, 30.0, looks={"scores": {"one look": scores(31.0), "two looks": scores(35.0)}}),
    result("default", 1, 32.0),
    result("partcatseg", 0, 40.0, filters={"affinity": scores(39.0)}, processes_on_the_gpu=3),
    result("partcatseg", 0, 36.0, budget="time of default"),
]


def test_mean_and_deviation_of_the_seeds():
    summary = summary_of(RESULTS, VARIANTS)
    assert list(summary) == ["default", "partcatseg", "partcatseg, time of default"]
    found = summary["default"]["pred_all harmonic iou"]
    assert (found["mean"], found["values"]) == (31.0, [30.0, 32.0])
    assert found["std"] == pytest.approx(2**0.5)
    assert summary["default"]["oracle_obj harmonic iou, ov-parts"]["mean"] == 51.0
    assert summary["default"]["look two looks: strict harmonic iou"]["values"] == [35.0]
    assert summary["partcatseg"]["strict small parts recall"]["mean"] is None
    assert [summary[name]["processes_on_the_gpu"] for name in ("default", "partcatseg")] == [[1], [3]]


def test_every_table():
    text = tables(summary_of(RESULTS, VARIANTS))
    iou = "31.0 ± 1.4 | 31.0 ± 1.4 | 31.0 ± 1.4"
    assert f"| Pred-All | default | 2 | 1,000 | 50.0 | {iou} | 32.0 | 33.0 | 34.0 |" in text
    assert "| partcatseg | 40.0 | 50.0 | 60.0 | 40.0 | 50.0 | 60.0 |" in text
    equal_time = text.partition("**Equal training time**")[2].partition("**A second look")[0]
    assert equal_time.index("| Pred-All | default |") < equal_time.index("|  | partcatseg, time of default | 1 |")
    assert "| default | two looks | 35.0 / 35.0 / 35.0 |" in text
    assert "| partcatseg | affinity | 39.0 / 39.0 / 39.0 |" in text
    assert "Equal training time" not in tables(summary_of(RESULTS[:3], VARIANTS))


def test_the_most_important_runs_come_first():
    runs = ordered(VARIANTS, [0, 1])
    assert [name for name, _ in runs[:4]] == ["default", "partcatseg", "catseg", "clipseg"]
    assert [seed for _, seed in runs[:8]] == [0] * 4 + [1] * 4
    assert sorted(runs) == sorted((name, seed) for name in VARIANTS for seed in (0, 1))


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        ((False, False), {"attention filter": (True, False), "affinity": (False, True)}),
        ((True, False), {"without attention filter": (False, False), "affinity": (True, True)}),
        ((False, True), {"attention filter": (True, True), "without affinity": (False, False)}),
        ((True, True), {"without attention filter": (False, True), "without affinity": (True, False)}),
    ],
)
def test_each_filter_is_switched_the_other_way(trained, expected):
    config = PartCATSegConfig(attention_filter=trained[0], pair_affinity=trained[1])

    def filters():
        return config.attention_filter, config.pair_affinity

    assert filter_scores(config, filters) == expected
    assert filters() == trained, "later scores must see the model as it was trained"
    with pytest.raises(ValueError, match="no scene"):
        filter_scores(config, fail)
    assert filters() == trained
    assert filter_scores(CATSegConfig(), filters) == {}


def fail():
    raise ValueError("no scene")
