"""Further losses of a step, among them the retention of words that the labels do not cover."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from partclipseg.data.loader import Batch
from partclipseg.losses.retention import WordRetention
from partclipseg.model.clipseg import CLIPSegBaseline
from partclipseg.training.recipe import Recipe

ExtraLosses = Callable[[Any, Batch, torch.Generator], Mapping[str, Tensor]]
"""(model, batch on the device, CPU generator of the step) to further terms, weighted, by name. The generator draws
the same in every process and micro-batch of a step."""


def retain_words(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> ExtraLosses:
    """The recipe's word retention, with its start model as the teacher.

    Raises `PartCLIPSegError` if the start is not a CLIPSeg.
    """
    teacher = CLIPSegBaseline.from_pretrained(recipe.start, dtype=torch.float32, visual_adapter_ratio=0.0)
    tokens = tokenizer(list(recipe.retention.words), padding="longest", truncation=True, return_tensors="pt")
    retention = WordRetention(
        teacher.to(device),
        torch.as_tensor(tokens["input_ids"], device=device),
        torch.as_tensor(tokens["attention_mask"], device=device),
        recipe.retention.words_per_step,
    )

    def extra_losses(model: Any, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        loss = retention(model, batch.pixel_values, retention.draw(generator))
        return {"retention": recipe.retention.weight * loss}

    return extra_losses
