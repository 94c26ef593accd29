"""Every score of the published evaluation on six records, both protocols."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from partclipseg import Evaluator, Vocabulary
from partclipseg.data.sample import UNLABELLED
from partclipseg.evaluation.scores import Scores

SHARED = Path(__file__).resolve().parents[3] / "shared"
MAPS = SHARED / "reference" / "golden" / "metrics" / "maps.safetensors"
EXPECTED = json.loads((Path(__file__).parent / "expected_scores.json").read_text(encoding="utf-8"))
PREDICTIONS = {"oracle_obj": "oracle_prediction", "pred_all": "pred_all_prediction"}


def published_names(scores: Scores) -> dict[str, float]:
    """Our scores under the names of the published evaluation."""
    named = {
        "mIoU": scores.all.iou,
        "fwIoU": scores.frequency_weighted_iou,
        "mACC": scores.all.recall,
        "pACC": scores.all.pixel_accuracy,
        "mRecall": scores.all.recall,
        "h-IoU": scores.harmonic.iou,
        "h-bIoU": scores.harmonic.boundary_iou,
        "h-Recall": scores.harmonic.recall,
    }
    for suffix, members in (("base", scores.seen), ("unbase", scores.unseen)):
        named[f"mIoU-{suffix}"] = members.iou
        named[f"pAcc-{suffix}"] = members.pixel_accuracy
        named[f"mRecall-{suffix}"] = members.recall
        named[f"Boundary-mIoU-{suffix}"] = members.boundary_iou
    for item in scores.classes:
        named[f"IoU-{item.name}"] = item.iou
        named[f"ACC-{item.name}"] = named[f"Recall-{item.name}"] = item.recall
        named[f"BoundaryIoU-{item.name}"] = item.boundary_iou
    return named


@pytest.mark.skipif(not MAPS.is_file(), reason="the golden maps are not beside the repository")
@pytest.mark.parametrize("protocol", ["oracle_obj", "pred_all"])
def test_every_published_score_is_met(protocol: str) -> None:
    maps = load_file(MAPS)
    evaluator = Evaluator(
        Vocabulary.from_names(EXPECTED["classes"]), EXPECTED["seen"], protocol=protocol, boundary="reference"
    )
    for record in range(6):
        labels = maps[f"{record}.labels"]
        prediction = maps[f"{record}.{PREDICTIONS[protocol]}"]
        evaluator.update(
            np.where(prediction == EXPECTED["background_label"], UNLABELLED, prediction),
            np.where(labels == EXPECTED["ignore_label"], UNLABELLED, labels),
            key=str(record),
        )
    ours = published_names(evaluator.compute())
    assert set(ours) == set(EXPECTED[protocol])
    for name, expected in EXPECTED[protocol].items():
        if expected is None:
            assert math.isnan(ours[name]), name
        else:
            # Both sides divide the same integers in double precision.
            assert ours[name] == pytest.approx(expected, abs=1e-9), name
