"""Tokens of a vocabulary's prompts, which are embedded again in every training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from partclipseg.models.interface import PartModel, Words
from partclipseg.vocabulary import Vocabulary


class Tokens(NamedTuple):
    """Tokens of K prompts."""

    input_ids: Tensor
    """int64 `[K, L]`."""
    attention_mask: Tensor
    """int64 `[K, L]`."""

    @classmethod
    def of(cls, prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase, device: torch.device | str) -> Tokens:
        """Tokenise prompts, padded to the longest of them."""
        tokens = tokenizer(list(prompts), padding="longest", truncation=True, return_tensors="pt")
        return cls(*(torch.as_tensor(tokens[name], device=device) for name in cls._fields))


@dataclass(frozen=True)
class PromptTokens:
    """Tokens and indices of one vocabulary for one model."""

    vocabulary: Vocabulary
    input_ids: Tensor
    """int64 `[K, L]`, `K` prompts, padded to the longest of them."""
    attention_mask: Tensor
    """int64 `[K, L]`."""
    class_to_part: Tensor
    """int64 `[N_c]`."""
    class_to_object: Tensor
    """int64 `[N_c]`."""

    @classmethod
    def tokenise(
        cls,
        model: PartModel,
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: Vocabulary,
        device: torch.device | str = "cpu",
    ) -> PromptTokens:
        """Tokenise the prompts that `model` wants for `vocabulary`."""
        return cls(
            vocabulary,
            *Tokens.of(model.prompts(vocabulary), tokenizer, device),
            torch.from_numpy(vocabulary.class_to_part).to(device),
            torch.from_numpy(vocabulary.class_to_object).to(device),
        )

    def encode(self, model: PartModel) -> Words:
        """Return the words with embeddings from the model's present weights."""
        embeddings = model.encode_text(self.input_ids, self.attention_mask)
        return Words(self.vocabulary, embeddings, self.class_to_part, self.class_to_object)
