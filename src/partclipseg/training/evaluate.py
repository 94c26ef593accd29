"""Score the held-out share of the training data during training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from partclipseg.data.loader import PartDataset
from partclipseg.evaluation.run import evaluate
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.maps.label_maps import LabelMaps
from partclipseg.models.interface import Inputs, PartModel, Words
from partclipseg.training.words import PromptTokens
from partclipseg.vocabulary import Vocabulary


class HeldOutScores(NamedTuple):
    """Mean IoU in percent over the labelled classes of the held-out photos; NaN where nothing is labelled."""

    pred_all: float
    oracle_obj: float

    @property
    def known(self) -> bool:
        """Whether anything is labelled in the held-out photos."""
        return not math.isnan(self.pred_all)


def score_held_out(
    model: PartModel,
    tokenizer: PreTrainedTokenizerBase,
    words: PromptTokens,
    dataset: PartDataset,
    *,
    batch_size: int,
    precision: str = "float32",
    rank: int = 0,
    world_size: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> HeldOutScores:
    """Score every record of `dataset` at its own size; the processes share the records.

    `model` is put into evaluation mode and back. Every process gets the scores of all records. `on_progress` is called
    after each batch with the number of photos done and to do in this process; it may raise to stop the scoring.
    """
    was_training = model.training
    try:
        scores = evaluate(
            _InTraining(model, tokenizer, words, precision),
            dataset,
            ("pred_all", "oracle_obj"),
            seen=range(len(dataset.vocabulary)),
            boundary=None,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            on_progress=on_progress,
        )
    finally:
        model.train(was_training)
    return HeldOutScores(scores["pred_all"].seen.iou, scores["oracle_obj"].seen.iou)


class _InTraining(PartSegmenter):
    """Segmenter of a model in training, with the run's tokens and the model's number type."""

    def __init__(
        self, model: PartModel, tokenizer: PreTrainedTokenizerBase, words: PromptTokens, precision: str
    ) -> None:
        super().__init__(model, tokenizer, words.vocabulary)
        self._mixed = precision == "bfloat16"
        with torch.inference_mode(), self._autocast():
            self._encoded = words.encode(model)

    def words(self, vocabulary: Vocabulary) -> Words:
        return self._encoded

    def label_maps(
        self,
        inputs: Inputs,
        vocabulary: Vocabulary,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None = None,
        with_background: bool = False,
    ) -> list[LabelMaps]:
        if not self._mixed:
            return super().label_maps(inputs, vocabulary, sizes, present_objects, with_background)
        # Every class is decoded: in bfloat16, products of another shape round to other labels (0.4 % in Oracle-Obj).
        with self._autocast():
            return PartModel.label_maps(self.model, inputs, self._encoded, sizes, present_objects, with_background)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._mixed)
