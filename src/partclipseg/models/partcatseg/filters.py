"""Two filters of costs by CLIP's attention, after HOPS (CVPR 2026); both are off unless the configuration asks.

HOPS's released code multiplies the costs of its first stage by the attention that most of CLIP's blocks agree on. Its
affinity for the second stage is written there and never switched on. What differs here: rows of the filter are divided
by their sums, so that the trained convolution after it sees costs of the size that it knows; the attention of CLIP's
last block is taken where CLIP computes it, not from a second pass of that block.

Letters in shapes: L blocks of CLIP, B photos, N = g·g patches, g feature grid, X any number of maps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel

from partclipseg.models.clip_dense import block_inputs, dense_features, last_block, patch_attention

if TYPE_CHECKING:
    from partclipseg.models.partcatseg.config import CATSegConfig

SINKHORN_ROUNDS = 5
"""Number of times that rows and columns of the affinity are divided by their sums."""


class Patches(NamedTuple):
    """CLIP's patches of photos."""

    vectors: Tensor
    """`[B, D, g, g]`: unit vectors; with the attention filter, weighted means of them."""
    affinity: Tensor | None
    """`[B, N, N]`: mixes the costs of the second stage; None where that is off."""


def patches(config: CATSegConfig, clip: CLIPModel, pixels: Tensor) -> Patches:
    """Compute the patches of photos `[B, 3, S, S]`, filtered as the configuration says."""
    if not config.attention_filter and not config.pair_affinity:
        return Patches(F.normalize(dense_features(clip, pixels, config.patch_attention), dim=1), None)
    hidden = list(block_inputs(clip, pixels))
    vectors = F.normalize(last_block(clip, hidden[-1], pixels.shape[-1], config.patch_attention), dim=1)
    layers = clip.vision_model.encoder.layers
    attention = torch.stack([patch_attention(layer, x) for layer, x in zip(layers, hidden, strict=True)])
    if config.attention_filter:
        # A cost is linear in the patch's vector, so mixing the vectors mixes the costs of all words.
        vectors = mix(vectors, divided_by_rows(agreed_attention(attention)))
    return Patches(vectors, affinity(attention) if config.pair_affinity else None)


def agreed_attention(attention: Tensor) -> Tensor:
    """Average `attention [L, B, N, N]` over the blocks where more than a third of them exceed their mean, else 0.

    Rows of the result, `[B, N, N]`, sum to less than 1.
    """
    votes = (attention > attention.mean((-2, -1), keepdim=True)).sum(0)  # [B, N, N]
    return attention.mean(0) * (3 * votes > len(attention))


def divided_by_rows(weights: Tensor) -> Tensor:
    """Divide each row of `[B, N, N]` by its sum; a row of zeros becomes that of the identity."""
    sums = weights.sum(-1, keepdim=True)
    identity = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    return torch.where(sums > 0, weights / sums.clamp(min=torch.finfo(weights.dtype).tiny), identity)


def affinity(attention: Tensor) -> Tensor:
    """Compute the symmetric affinity `[B, N, N]` of `attention [L, B, N, N]`; its rows and columns sum to 1."""
    weights = doubly_stochastic(attention.mean(0))
    return (weights + weights.mT) / 2


def doubly_stochastic(weights: Tensor) -> Tensor:
    """Bring rows and columns of positive `weights [B, N, N]` to sums of 1 by Sinkhorn's iterations, columns last."""
    for _ in range(SINKHORN_ROUNDS):
        weights = weights / weights.sum(-1, keepdim=True)
        weights = weights / weights.sum(-2, keepdim=True)
    return weights


def mix(values: Tensor, weights: Tensor) -> Tensor:
    """Replace each place of `values [B, X, g, g]` by the sum of all places with its row of `weights [B, N, N]`."""
    mixed = values.flatten(2) @ weights.mT.to(values.dtype)  # [B, X, N]
    return mixed.unflatten(2, values.shape[2:])
