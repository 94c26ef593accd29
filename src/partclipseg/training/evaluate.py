"""Scores on the held-out share of the training data, while training."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from partclipseg.data.loader import PartDataset
from partclipseg.data.sample import objects_in
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.evaluation.scores import Protocol
from partclipseg.training.words import PromptTokens


class HeldOutScores(NamedTuple):
    """Mean IoU in percent over the labelled classes of the held-out photos."""

    pred_all: float
    oracle_obj: float


@torch.inference_mode()
def score_held_out(
    model: Any,
    words: PromptTokens,
    dataset: PartDataset,
    *,
    batch_size: int,
    precision: str = "float32",
    rank: int = 0,
    world_size: int = 1,
) -> HeldOutScores:
    """Predict every record of `dataset` at its own size; the processes share the records.

    `model` is put into evaluation mode and back. Every process gets the scores of all records.
    """
    protocols: tuple[Protocol, ...] = ("pred_all", "oracle_obj")
    evaluators = {protocol: Evaluator(words.vocabulary, protocol=protocol, boundary=None) for protocol in protocols}
    was_training = model.training
    model.eval()
    device = words.input_ids.device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with autocast:
        encoded = words.encode(model)
    indices = range(rank, len(dataset), world_size)
    for start in range(0, len(indices), batch_size):
        samples = [dataset[index] for index in indices[start : start + batch_size]]
        with autocast:
            inputs = model.prepare([sample.image for sample in samples])
            output = model(inputs, encoded)
        sizes = [sample.part_labels.shape for sample in samples]
        present = [objects_in(sample.object_labels) for sample in samples]
        predictions = {
            "pred_all": model.maps_of(output, inputs, encoded, sizes),
            "oracle_obj": model.maps_of(output, inputs, encoded, sizes, present),
        }
        for protocol, evaluator in evaluators.items():
            for sample, prediction in zip(samples, predictions[protocol], strict=True):
                evaluator.update(prediction.label_map, sample.part_labels, key=sample.key)
    model.train(was_training)
    for evaluator in evaluators.values():
        _merge_processes(evaluator, world_size)
    return HeldOutScores(**{name: evaluator.running_iou() for name, evaluator in evaluators.items()})


def _merge_processes(evaluator: Evaluator, world_size: int) -> None:
    if world_size == 1:
        return
    states: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(states, evaluator.state_dict())
    for state in states:
        evaluator.merge_state_dict(state)
