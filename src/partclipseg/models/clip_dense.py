"""Features of every patch of a photo in CLIP's joint space, which several methods compare with words.

Letters in shapes: B photos, D joint width of CLIP, V width of its vision tower, g feature grid, N = g·g patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPModel
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

from partclipseg.models.positions import ResizedPositions


class _KeepingEmbeddings(CLIPVisionEmbeddings):
    resized: ResizedPositions

    def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        resize = partial(super().interpolate_pos_encoding, embeddings, height, width)  # it takes their shape alone
        return self.resized(self.position_embedding.weight, (height, width), resize)


def keep_positions(clip: CLIPModel) -> None:
    """Let the photo tower keep its resized position embeddings until they change; weights keep their names."""
    embeddings: Any = clip.vision_model.embeddings
    embeddings.__class__, embeddings.resized = _KeepingEmbeddings, ResizedPositions()


def dense_features(clip: CLIPModel, pixels: Tensor, attention: bool = False) -> Tensor:
    """Compute features of every patch in CLIP's joint space: `pixels [B, 3, H, W]` → `[B, D, g, g]`, not normalised.

    Without `attention` the last block of the tower replaces attention by the value of each token itself.
    """
    hidden = pixels
    for states in block_inputs(clip, pixels):
        hidden = states
    return last_block(clip, hidden, pixels.shape[-1], attention)


def block_inputs(clip: CLIPModel, pixels: Tensor) -> Iterator[Tensor]:
    """Yield the input `[B, 1 + N, V]` of each block of the tower, the class token first."""
    vision: Any = clip.vision_model
    hidden = vision.pre_layrnorm(vision.embeddings(pixels, interpolate_pos_encoding=True))  # [B, 1 + N, V]
    for layer in vision.encoder.layers[:-1]:
        yield hidden
        hidden = layer(hidden, attention_mask=None)
    yield hidden


def last_block(clip: CLIPModel, hidden: Tensor, width: int, attention: bool = False) -> Tensor:
    """Compute `[B, D, g, g]` of the last block's input `[B, 1 + N, V]`, of photos `width` pixels wide.

    Captions teach CLIP's class token alone, and its patches agree with words where the last block leaves them to
    themselves. Patches that were taught words themselves agree more with the block as it was taught: with `attention`.
    """
    vision: Any = clip.vision_model
    last = vision.encoder.layers[-1]
    if attention:
        hidden = last(hidden, attention_mask=None)
    else:
        hidden = hidden + last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(hidden)))
        hidden = hidden + last.mlp(last.layer_norm2(hidden))
    features = clip.visual_projection(vision.post_layernorm(hidden))  # [B, 1 + N, D]
    edge = width // vision.embeddings.patch_size
    return features[:, 1:].transpose(1, 2).unflatten(2, (-1, edge))  # [B, D, g, g]


@torch.no_grad()
def patch_attention(layer: Any, hidden: Tensor) -> Tensor:
    """Compute a block's attention between patches, averaged over the heads, of its input `[B, 1 + N, V]`.

    Returns `[B, N, N]`, rows are queries; without the class token's column their sums are less than 1.
    """
    attention, states = layer.self_attn, layer.layer_norm1(hidden)
    query, key = (
        project(states).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # [B, heads, 1 + N, d]
        for project in (attention.q_proj, attention.k_proj)
    )
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    return scores.float().softmax(-1).mean(1)[:, 1:, 1:]
