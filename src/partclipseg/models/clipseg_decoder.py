"""CLIPSeg's decoder, run for many conditions at once.

Letters in shapes: B photos, N conditions (words and background), T image tokens (one class token, then g·g'),
D word width, C decoder width, V vision width, h·w logits.
Source: Lüddecke & Ecker, "Image Segmentation Using Text and Image Prompts" (CVPR 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from partclipseg.models.clipseg_config import CLIPSegTowersConfig
from partclipseg.models.int8 import Int8Linear, int8_mlp
from partclipseg.models.kernels import linear_relu
from partclipseg.models.recomputing import recomputed_by_rows


class FiLM(nn.Module):
    """Feature-wise linear modulation: scales and shifts features by a word."""

    def __init__(self, word_width: int, width: int) -> None:
        super().__init__()
        self.mul = nn.Linear(word_width, width)
        self.add = nn.Linear(word_width, width)

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        """Modulate `features [B, 1 or N, T, C]` by `words [N, D]`, or `[B, N, D]`, to `[B, N, T, C]`."""
        return self.mul(words).unsqueeze(-2) * features + self.add(words).unsqueeze(-2)


class DecoderLayer(nn.Module):
    """Post-norm transformer layer that can also return the attention of chosen rows."""

    def __init__(self, width: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.recompute = False
        """Whether the backward pass computes the hidden features again; they are most of a training step's memory."""
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.norm2 = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, attention_rows: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map `x [M, T, C]` to its shape, and return the head-averaged attention `[R, T, T]` of `attention_rows [R]`.

        Only the asked rows' probabilities are ever held in memory; the layer itself uses fused attention.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # 3 x [M, heads, T, C/heads]
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = self.norm1(x + self.project(mixed.transpose(1, 2).flatten(2)))  # [M, T, C]
        x = self.norm2(x + (recomputed_by_rows(self.feed_forward, x) if self.recompute else self.feed_forward(x)))
        if attention_rows is None:
            return x, None
        # Probabilities of all rows together would take much of a training step's memory.
        return x, recomputed_by_rows(mean_attention, *(rows.index_select(0, attention_rows) for rows in (q, k)))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Map `x [M, T, C]` through the hidden layer, to its shape."""
        if isinstance(self.expand, Int8Linear) and isinstance(self.contract, Int8Linear):
            return int8_mlp(x.flatten(0, 1), self.expand, self.contract).view_as(x)
        # Flatten first: `nn.Linear` returns a view for 3-D input, and an in-place ReLU on a view makes autograd
        # copy it.
        return self.contract(linear_relu(x.flatten(0, 1), self.expand)).view_as(x)


def mean_attention(q: Tensor, k: Tensor) -> Tensor:
    """Compute attention, averaged over heads, of queries and keys `[R, heads, T, C/heads]`: float32 `[R, T, T]`."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [R, heads, T, T]
    return scores.softmax(-1, dtype=torch.float32).mean(1)


class UpsamplingHead(nn.Sequential):
    """Maps token features to logits, in CLIPSeg's complex form (a 3×3 convolution, two transposed ones) or simple one.

    The transposed convolutions tile without overlap (kernel = stride), so each is a matrix product per token. The
    fine pixels of a token stay together until the last one is known: one copy in all, and channels always innermost.
    """

    def __init__(self, config: CLIPSegTowersConfig) -> None:
        width, patch = config.reduce_dim, config.vision_config.patch_size
        if not config.use_complex_transposed_convolution:
            super().__init__(nn.ConvTranspose2d(width, 1, patch, stride=patch))
            return
        step = patch // 4
        super().__init__(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width // 2, step, stride=step),
            nn.ReLU(),
            nn.ConvTranspose2d(width // 2, 1, step, stride=step),
        )

    def forward(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """Up-sample `features [M, g·g', C]` to logits `[M, h, w]`."""
        x = features.unflatten(1, grid)  # [M, g, g', C]
        steps: list[int] = []
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                x = layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            elif isinstance(layer, nn.ConvTranspose2d):
                inner, outer, step, _ = layer.weight.shape
                weight = layer.weight.permute(2, 3, 1, 0).reshape(step * step * outer, inner)
                bias = None if layer.bias is None else layer.bias.repeat(step * step)
                x = F.linear(x, weight, bias).unflatten(-1, (step, step, outer))  # [M, g, g', (s, s)…, s, s, C']
                steps.append(step)
            else:
                x = layer(x)
        x = x.squeeze(-1)
        rows, columns = [1, *range(3, x.ndim, 2)], [2, *range(4, x.ndim, 2)]
        scale = math.prod(steps)
        return x.permute(0, *rows, *columns).reshape(x.shape[0], grid[0] * scale, grid[1] * scale)


def upsampled(head: UpsamplingHead, features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Up-sample features by `head`: `[B, N, g·g', C]` → `[B, N, h, w]`."""
    # One memory layout for all callers, so that few compiled variants of the head serve them.
    return head(features.flatten(0, 1).contiguous(), grid).unflatten(0, features.shape[:2])


class ConditionDecoder(nn.Module):
    """CLIPSeg's decoder, run for every condition of every photo."""

    def __init__(self, config: CLIPSegTowersConfig) -> None:
        super().__init__()
        depth, vision = len(config.extract_layers), config.vision_config
        self.conditional_layer = config.conditional_layer
        self.film = FiLM(config.projection_dim, config.reduce_dim)
        self.reduce = nn.ModuleList(nn.Linear(vision.hidden_size, config.reduce_dim) for _ in range(depth))
        self.layers = nn.ModuleList(
            DecoderLayer(
                config.reduce_dim,
                config.decoder_num_attention_heads,
                config.decoder_intermediate_size,
                vision.layer_norm_eps,
            )
            for _ in range(depth)
        )
        self.upsample = UpsamplingHead(config)

    def condition_features(
        self, activations: Sequence[Tensor], conditions: Tensor, attention_rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Compute token features of every condition, without the class token.

        Args:
            activations: one `[B, T, V]` per decoder layer, deepest first.
            conditions: `[N, D]`, or `[B, N, D]` where each photo has its own.
            attention_rows: int64 `[R]`, rows of the flattened `B·N` whose attention is wanted.

        Returns `[B, N, T-1, C]`, and the last layer's attention `[R, T, T]` or None.
        """
        return self.decode(self.reduce_photo(activations), conditions, attention_rows)

    def reduce_photo(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """Reduce the activations, which all conditions of a photo share: `[B, T, V]` of each layer → `[B, 1, T, C]`."""
        return [reduce(a).unsqueeze(1) for a, reduce in zip(activations, self.reduce, strict=True)]

    def decode(
        self, reduced: Sequence[Tensor], conditions: Tensor, attention_rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Compute `condition_features` of photos prepared by `reduce_photo`, `[B, 1, T, C]` for each layer."""
        x, attention = None, None
        for index, (shared, layer) in enumerate(zip(reduced, self.layers, strict=True)):
            x = shared if x is None else shared + x  # [B, 1 or N, T, C]
            if index == self.conditional_layer:
                x = self.film(x, conditions)  # [B, N, T, C]
            last = index == len(self.layers) - 1
            flat, attention = layer(x.flatten(0, 1), attention_rows if last else None)
            x = flat.unflatten(0, x.shape[:2])
        assert x is not None
        return x[:, :, 1:], attention

    def initialise_composition(self) -> None:
        """Initialise the layers that compose classes of conditions; CLIPSeg has none."""

    def logits(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """Up-sample `[B, N, g·g', C]` to `[B, N, h, w]`."""
        return upsampled(self.upsample, features, grid)
