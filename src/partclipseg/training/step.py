"""Compute the losses of one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from partclipseg.data.loader import Batch
from partclipseg.losses.labels import one_object, present_pairs
from partclipseg.losses.masks import LossCounts
from partclipseg.models.interface import Inputs, PartModel
from partclipseg.processes import step_seed
from partclipseg.training.recipe import Recipe
from partclipseg.training.retention import WordRetention
from partclipseg.training.words import PromptTokens

PAIRS_PER_PHOTO = 24
"""Maximum number of object-parts per photo, on average over the batch, for attention control on a GPU: a fixed bound
lets the step be one graph."""

PHOTOS = "photos."
"""Prefix of the model's own inputs in the inputs of a step."""

TEACHER = "teacher."
"""Prefix of the same photos as the teacher of word retention prepares them: its family may be another."""


class StepLosses:
    """Computes this process's share of the losses of a step, from the inputs of one micro-batch."""

    def __init__(
        self,
        recipe: Recipe,
        model: PartModel,
        words: PromptTokens,
        loss: Any,
        retention: WordRetention | None,
        processes: PartialState,
    ) -> None:
        """Make the losses of a run.

        Args:
            recipe: the run's recipe.
            model: a `PartModel` in training mode.
            words: the tokens of the vocabulary.
            loss: what `PartModel.build_loss` made.
            retention: the word retention, or None.
            processes: the process group; its device is the model's.
        """
        self.recipe, self.model, self.words = recipe, model, words
        self.loss, self.retention, self.processes = loss, retention, processes
        self.device = processes.device or torch.device("cpu")
        self.logits_size: tuple[int, int] | None = None

    def inputs(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return all inputs of a step on the device; the model's own inputs begin with `PHOTOS`."""
        inputs = {}
        if self.loss.needs_attention:
            # Labels of files are in main memory; on a GPU a bound avoids waiting for the device.
            capacity = PAIRS_PER_PHOTO * len(batch.part_labels) if self.device.type == "cuda" else None
            inputs["attention_pairs"] = present_pairs(batch.part_labels, len(self.words.vocabulary), capacity)
        if self.retention is not None:
            generator = torch.Generator().manual_seed(step_seed(self.recipe.seed, step))
            inputs["retained"] = self.retention.draw(generator)
        inputs = {name: value.to(self.device, non_blocking=True) for name, value in inputs.items()}
        batch = batch.to(self.device)
        if self.retention is not None:
            inputs |= _named(TEACHER, self.retention.teacher.prepare(batch.photos))
        photos, part_labels = self.model.prepare(batch.photos), batch.part_labels
        if self.model.takes_object_masks:
            # The numbers come from the CPU's generator, whose seed is the step's, and not from the device.
            draws = torch.rand(len(part_labels), len(self.words.vocabulary.objects)).to(self.device, non_blocking=True)
            part_labels, masks = one_object(part_labels, batch.object_labels, self.words.class_to_object, draws)
            photos = self.model.with_object_masks(photos, masks)
        return {
            **_named(PHOTOS, photos),
            "part_labels": part_labels,
            "object_labels": batch.object_labels,
            **inputs,
        }

    def counts(self, micro_batches: Sequence[Mapping[str, Tensor]]) -> Tensor | None:
        """Sum the denominators of the means over all micro-batches and processes; None if there is one share only."""
        if len(micro_batches) * self.processes.num_processes == 1:
            return None
        counts = torch.zeros(len(LossCounts._fields), device=self.device)
        for inputs in micro_batches:
            of_share = self.loss.counts(
                inputs["part_labels"],
                inputs["object_labels"],
                self.words.class_to_object,
                self._size(inputs),
                self.model.attention_tokens(_photos(inputs)),
                inputs.get("attention_pairs"),
            )
            counts += torch.stack(of_share)
        if self.processes.num_processes > 1:
            torch.distributed.all_reduce(counts)
        return counts

    def _size(self, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
        size = self.logits_size  # all photos of a run have one
        if size is None:
            with torch.no_grad():
                self.logits_size = size = self.model.logits_size(_photos(inputs), self.words.encode(self.model))
        return size

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute this share's part of the step's terms and their `total`; reads nothing back from the device."""
        pairs, photos = inputs.get("attention_pairs"), _photos(inputs)
        counts = LossCounts(*inputs["counts"]) if "counts" in inputs else None
        extra: dict[str, Tensor] = {}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            words = self.words.encode(self.model)
            output = self.model(photos, words, attention_pairs=pairs)
            if self.retention is not None:
                retained = self.retention(self.model, photos, _photos(inputs, TEACHER), inputs["retained"])
                shares = self.recipe.gradient_accumulation * self.processes.num_processes
                extra["retention"] = self.recipe.retention.weight * retained / shares  # shares are equally large
        terms = self.loss(
            output,
            inputs["part_labels"],
            inputs["object_labels"],
            words.class_to_part,
            words.class_to_object,
            pairs,
            counts,
        )
        return {**terms, **extra, "total": torch.stack([terms["total"], *extra.values()]).sum()}


def _named(prefix: str, inputs: Inputs) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in inputs.items()}


def _photos(inputs: Inputs, prefix: str = PHOTOS) -> dict[str, Tensor]:
    """Return the prepared photos of the model, or of another `prefix`, among the inputs of a step."""
    return {name.removeprefix(prefix): value for name, value in inputs.items() if name.startswith(prefix)}
