"""Features of every patch of a photo in CLIP's joint space, which several methods compare with words.

Letters in shapes: B photos, D joint width of CLIP, V width of its vision tower, g feature grid.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import CLIPModel


def dense_features(clip: CLIPModel, pixels: Tensor) -> Tensor:
    """Compute features of every patch in CLIP's joint space: `pixels [B, 3, H, W]` → `[B, D, g, g]`, not normalised.

    The last block of the tower replaces attention by the value of each token itself.
    """
    vision: Any = clip.vision_model
    hidden = vision.pre_layrnorm(vision.embeddings(pixels, interpolate_pos_encoding=True))  # [B, 1 + g·g, V]
    for layer in vision.encoder.layers[:-1]:
        hidden = layer(hidden, attention_mask=None)  # [B, 1 + g·g, V]
    last = vision.encoder.layers[-1]
    attention = last.self_attn
    hidden = hidden + attention.out_proj(attention.v_proj(last.layer_norm1(hidden)))
    hidden = hidden + last.mlp(last.layer_norm2(hidden))
    features = clip.visual_projection(vision.post_layernorm(hidden))  # [B, 1 + g·g, D]
    edge = pixels.shape[-1] // vision.embeddings.patch_size
    return features[:, 1:].transpose(1, 2).unflatten(2, (-1, edge))  # [B, D, g, g]
