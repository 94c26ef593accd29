"""Embeddings of tokens that a text tower lacks."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


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
