"""The vocabulary as a model takes it: prompts tokenised once, and the index arrays on the model's device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from partclipseg.vocabulary import Vocabulary


@dataclass(frozen=True)
class Words:
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
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: Vocabulary,
        device: torch.device | str = "cpu",
    ) -> Words:
        """Tokenise the prompts that `model` (either class) wants for `vocabulary`."""
        tokens = tokenizer(model.prompts(vocabulary), padding="longest", truncation=True, return_tensors="pt")
        return cls(
            vocabulary,
            torch.as_tensor(tokens["input_ids"], device=device),
            torch.as_tensor(tokens["attention_mask"], device=device),
            torch.from_numpy(vocabulary.class_to_part).to(device),
            torch.from_numpy(vocabulary.class_to_object).to(device),
        )

    def encode(self, model: Any) -> Tensor:
        """Embeddings `[K, D]` of the prompts with the model's present weights."""
        return model.encode_text(self.input_ids, self.attention_mask)

    def arguments(self, text_embeddings: Tensor) -> dict[str, Any]:
        """What a forward pass takes beside the photos."""
        return {
            "text_embeddings": text_embeddings,
            "class_to_part": self.class_to_part,
            "class_to_object": self.class_to_object,
            "num_parts": len(self.vocabulary.parts),
        }
