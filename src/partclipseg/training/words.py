"""Tokens of a vocabulary's prompts, which are embedded again in every training step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from partclipseg.models.interface import PartModel, Words
from partclipseg.vocabulary import Vocabulary


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
        tokens = tokenizer(model.prompts(vocabulary), padding="longest", truncation=True, return_tensors="pt")
        return cls(
            vocabulary,
            torch.as_tensor(tokens["input_ids"], device=device),
            torch.as_tensor(tokens["attention_mask"], device=device),
            torch.from_numpy(vocabulary.class_to_part).to(device),
            torch.from_numpy(vocabulary.class_to_object).to(device),
        )

    def encode(self, model: PartModel) -> Words:
        """Return the words with embeddings from the model's present weights."""
        embeddings = model.encode_text(self.input_ids, self.attention_mask)
        return Words(self.vocabulary, embeddings, self.class_to_part, self.class_to_object)
