"""Labels that published evaluators resize before they count them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.evaluation.photos import EvaluationPhoto, RecordLabels
from partclipseg.evaluation.resized_labels import resize_there_and_back
from partclipseg.evaluation.run import score
from partclipseg.maps.label_maps import LabelMaps
from partclipseg.vocabulary import Vocabulary

WORDS = Vocabulary.from_names(["dog's ear", "dog's tail"])


@pytest.mark.parametrize("case", ["case_a", "catseg_a"])
def test_labels_of_records_are_those_of_the_golden(shared: Path, case: str) -> None:
    """The labels at the model's size, brought back to the photo's, as PartCATSeg's evaluator does."""
    from safetensors.torch import load_file

    tensors = load_file(shared / "reference" / "golden" / "partcatseg" / case / "tensors.safetensors")
    for record in ("test.0", "test.1"):
        resized, ignored = tensors[f"{record}.part_labels_resized"], 255
        classes = resized.unique()
        # A record ignores the labels of other objects, before it is resized.
        own = torch.isin(tensors["photo.part_labels"], classes[classes != ignored])
        labels = torch.where(own, tensors["photo.part_labels"], ignored)
        expected = F.interpolate(resized[None, None].float(), labels.shape, mode="nearest")[0, 0].int()
        found = resize_there_and_back(labels, (resized.shape[0], resized.shape[1]))
        assert torch.equal(found, expected)
        assert not torch.equal(found, labels)


class Perfect:
    """A segmenter that predicts the labels themselves, and whose model first resizes photos."""

    def __init__(self, labels: np.ndarray, first_size: tuple[int, int]) -> None:
        self.labels = torch.from_numpy(labels).long()
        self.model = SimpleNamespace(first_size=lambda size: first_size, takes_object_masks=False, ahead_shape=None)

    def prepare(self, images):
        return {"pixel_values": torch.zeros(len(images), 1)}

    def label_maps(self, inputs, vocabulary, sizes, present=None):
        zeros = torch.zeros_like(self.labels)
        return [LabelMaps(self.labels, zeros, zeros.float()) for _ in sizes]


@pytest.mark.parametrize(
    ("rule", "first_size", "moved"),
    [
        ("partclipseg", (64, 88), set()),
        ("partcatseg", (64, 88), {"oracle_obj", "pred_all"}),
        ("partcatseg", (68, 94), set()),
        ("ov-parts", (64, 88), {"oracle_obj"}),
    ],
)
def test_the_rule_of_partcatseg_resizes_the_labels_of_records(rule, first_size, moved) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (68, 94)).astype(np.int32)
    record = RecordLabels("a", labels, np.zeros_like(labels))
    photo = EvaluationPhoto("a", np.zeros((68, 94, 3), np.uint8), (record,))
    evaluators = {name: Evaluator(WORDS, None, name, None, rule=rule) for name in ("oracle_obj", "pred_all", "strict")}
    score(Perfect(labels, first_size), WORDS, [photo], evaluators)
    assert {name for name, evaluator in evaluators.items() if evaluator.compute().all.iou < 100} == moved


@pytest.mark.parametrize(("ahead_shape", "moved"), [(None, False), ((32, 32), True)])
def test_the_rule_of_ov_parts_takes_the_size_of_models_that_resize_photos(ahead_shape, moved) -> None:
    """One that takes the photo as it is moves no label; photos of other models are resized to 800 pixels first."""
    labels = np.random.default_rng(0).integers(0, 2, (68, 94)).astype(np.int32)
    photo = EvaluationPhoto("a", np.zeros((68, 94, 3), np.uint8), (RecordLabels("a", labels, np.zeros_like(labels)),))
    segmenter = Perfect(labels, (68, 94))
    segmenter.model.ahead_shape = ahead_shape
    evaluator = Evaluator(WORDS, None, "oracle_obj", None, rule="ov-parts")
    score(segmenter, WORDS, [photo], {"oracle_obj": evaluator})
    assert (evaluator.compute().all.iou < 100) == moved
