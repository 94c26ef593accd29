"""Words that a tokenizer of whole words lacks, and their embeddings in a text tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import models
from torch import nn


def is_word_level(tokenizer: Any) -> bool:
    """Whether a tokenizer knows whole words only, and maps all others to one token."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and isinstance(backend.model, models.WordLevel)


def add_words(tokenizer: Any, words: Sequence[str]) -> None:
    """Add words to a tokenizer of whole words, in place, with the next numbers in their order."""
    known = tokenizer.get_vocab()
    numbered = {word: len(known) + index for index, word in enumerate(words)}
    tokenizer.backend_tokenizer.model = models.WordLevel({**known, **numbered}, unk_token=str(tokenizer.unk_token))


@torch.no_grad()
def add_token_embeddings(text_model: Any, text_config: Any, count: int) -> nn.Parameter:
    """Add `count` embeddings to a CLIP text tower, in place, and return the grown matrix `[W + count, D]`.

    They are drawn from torch's global generator with mean and deviation of the old ones in each dimension.
    """
    embedding = text_model.embeddings.token_embedding
    old = embedding.weight  # [W, D]
    new = torch.randn(count, old.shape[1], dtype=old.dtype, device=old.device) * old.std(0) + old.mean(0)
    embedding.weight = nn.Parameter(torch.cat([old, new]), requires_grad=old.requires_grad)
    embedding.num_embeddings = text_config.vocab_size = len(embedding.weight)
    return embedding.weight
