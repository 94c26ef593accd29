"""The decoders: a CLIPSeg decoder for many conditions at once, and the composition of parts with objects.

Letters in shapes: B photos, N conditions (words and background), K classes (object-parts and background),
T image tokens (one class token, then g·g'), D word width, C decoder width, V vision width, h·w logits.
Method: Choi et al., "Understanding Multi-Granularity for Open-Vocabulary Part Segmentation" (NeurIPS 2024),
on Lüddecke & Ecker, "Image Segmentation Using Text and Image Prompts" (CVPR 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init

from partclipseg.model.config import PartCLIPSegConfig

RECOMPUTED_ROWS = 64
"""Rows of what is recomputed that are held at once: in the released size 128 MB of a hidden layer in bfloat16, of
which the backward pass needs three, and enough to keep a GPU busy."""


class FiLM(nn.Module):
    """Feature-wise linear modulation: scales and shifts features by a word."""

    def __init__(self, word_width: int, width: int) -> None:
        super().__init__()
        self.mul = nn.Linear(word_width, width)
        self.add = nn.Linear(word_width, width)

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        """`features [B, 1 or N, T, C]`, `words [N, D]` or one set a photo `[B, N, D]` → `[B, N, T, C]`."""
        return self.mul(words).unsqueeze(-2) * features + self.add(words).unsqueeze(-2)


class DecoderLayer(nn.Module):
    """A post-norm transformer layer that can also return the attention of chosen rows."""

    def __init__(self, width: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.recompute = False
        """Compute the hidden features anew in the backward pass: most of what a training step would keep."""
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.norm2 = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, attention_rows: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """`x [M, T, C]` → the same shape, and the head-averaged attention `[R, T, T]` of `attention_rows [R]`.

        Only the asked rows' probabilities are ever held in memory; the layer itself uses fused attention.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # 3 x [M, heads, T, C/heads]
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = self.norm1(x + self.project(mixed.transpose(1, 2).flatten(2)))  # [M, T, C]
        x = self.norm2(x + (_recomputed(self.feed_forward, x) if self.recompute else self.feed_forward(x)))
        if attention_rows is None:
            return x, None
        # The probabilities of all rows together would be a large part of what a training step keeps.
        return x, _recomputed(mean_attention, *(rows.index_select(0, attention_rows) for rows in (q, k)))

    def feed_forward(self, x: Tensor) -> Tensor:
        """`[M, T, C]` → the same shape, through the hidden layer."""
        # Flat first: the product is then no view, of which a ReLU in place would cost copies in the backward pass.
        flat = x.flatten(0, 1)
        fused = x.is_cuda and type(self.expand) is nn.Linear  # and not what an adapter put in its place
        hidden = _linear_relu(flat, self.expand) if fused else F.relu(self.expand(flat), inplace=True)
        return self.contract(hidden).view_as(x)


def _linear_relu(x: Tensor, linear: nn.Linear) -> Tensor:
    """ReLU of a linear layer as one product: the result is written once, in place of written, read and written.

    This reads the layer's weights; its hooks are not called.
    """
    inputs = x, linear.weight, linear.bias
    if torch.is_autocast_enabled(x.device.type):  # which does not know this product
        dtype = torch.get_autocast_dtype(x.device.type)
        inputs = (some.to(dtype) for some in inputs)
    return _relu_product(*inputs)


# An operator, not an `autograd.Function`: PyTorch 2.11 compiles the latter so that `_recomputed` keeps its result.
@torch.library.custom_op(
    "partclipseg::relu_product", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor bias) -> Tensor"
)
def _relu_product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    product: Any = torch._addmm_activation  # pyright: ignore[reportPrivateImportUsage]
    return product(bias, x, weight.t())


@_relu_product.register_fake
def _shape(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2], output)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, result = ctx.saved_tensors
    gradient = torch.ops.aten.threshold_backward(gradient, result, 0)
    return gradient @ weight, gradient.t() @ x, gradient.sum(0)


_relu_product.register_autograd(_gradients, setup_context=_save)


def mean_attention(q: Tensor, k: Tensor) -> Tensor:
    """Attention, averaged over the heads, of queries and keys `[R, heads, T, C/heads]`: float32 `[R, T, T]`."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [R, heads, T, T]
    return scores.softmax(-1, dtype=torch.float32).mean(1)


def _recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`function` of rows of the inputs, of which the backward pass keeps the inputs alone and computes the rest anew.

    Sums over rows, which are all that gradients of weights are, then come piece by piece: equal up to rounding.
    """
    pieces = zip(*(x.split(RECOMPUTED_ROWS) for x in inputs), strict=True)
    # Nothing is random here, and a CUDA graph could not save the generator's state.
    return torch.cat([checkpoint(function, *some, use_reentrant=False, preserve_rng_state=False) for some in pieces])


class UpsamplingHead(nn.Sequential):
    """Token features to logits, CLIPSeg's complex form (3×3 convolution, two transposed ones) or simple form (one).

    The transposed convolutions tile without overlap (kernel = stride), so each is a matrix product per token. The
    fine pixels of a token stay together until the last one is known: one copy in all, and channels always innermost.
    """

    def __init__(self, config: PartCLIPSegConfig) -> None:
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
        """`[M, g·g', C]` → `[M, h, w]`."""
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


def _upsampled(head: UpsamplingHead, features: Tensor, grid: tuple[int, int]) -> Tensor:
    """`[B, N, g·g', C]` → `[B, N, h, w]`."""
    # Rows in one layout, whatever they come from: few compiled variants of the head then serve all calls.
    return head(features.flatten(0, 1).contiguous(), grid).unflatten(0, features.shape[:2])


class ConditionDecoder(nn.Module):
    """CLIPSeg's decoder, run for every condition of every photo: the baseline is this and nothing more."""

    def __init__(self, config: PartCLIPSegConfig) -> None:
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
        """Token features of every condition, without the class token.

        Args:
            activations: one `[B, T, V]` per decoder layer, deepest first.
            conditions: `[N, D]`, or `[B, N, D]` where each photo has its own.
            attention_rows: int64 `[R]`, rows of the flattened `B·N` whose attention is wanted.

        Returns `[B, N, T-1, C]`, and the last layer's attention `[R, T, T]` or None.
        """
        return self.decode(self.reduce_photo(activations), conditions, attention_rows)

    def reduce_photo(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """What all conditions of a photo share: `[B, T, V]` of each layer → `[B, 1, T, C]`."""
        return [reduce(a).unsqueeze(1) for a, reduce in zip(activations, self.reduce, strict=True)]

    def decode(
        self, reduced: Sequence[Tensor], conditions: Tensor, attention_rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`condition_features` of photos that `reduce_photo` has prepared, `[B, 1, T, C]` for each layer."""
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

    def logits(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """Up-sample `[B, N, g·g', C]` to `[B, N, h, w]`."""
        return _upsampled(self.upsample, features, grid)


class PartDecoder(ConditionDecoder):
    """Adds the object-parts: features and words of a part and an object are merged, then modulated again."""

    def __init__(self, config: PartCLIPSegConfig) -> None:
        super().__init__(config)
        width, word_width = config.reduce_dim, config.projection_dim
        self.merge_features = nn.Linear(2 * width, width)
        """[part features ; object features] → class features."""
        self.merge_words = nn.Linear(2 * word_width, word_width)
        """[object word ; part word] → class word."""
        self.class_film = FiLM(word_width, width)
        self.class_upsample = UpsamplingHead(config)

    def class_logits(
        self,
        features: Tensor,
        conditions: Tensor,
        part_rows: Tensor,
        object_rows: Tensor,
        object_word_rows: Tensor,
        grid: tuple[int, int],
    ) -> Tensor:
        """Logits of K classes, each a pair of conditions.

        Args:
            features: `[B, N, g·g', C]` from `condition_features`.
            conditions: `[N, D]`.
            part_rows, object_rows: int64 `[K]`, the two conditions of each class.
            object_word_rows: int64 `[K]`, the condition whose word stands for the object; `object_rows` in the
                intended method.

        Returns `[B, K, h, w]`.
        """
        words = self.class_words(conditions, part_rows, object_word_rows)
        return self.pair_logits(self.merge_halves(features), words, part_rows, object_rows, grid)

    # Both merges are linear, so each condition goes through its half once and pairs are sums of halves.

    def merge_halves(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What each condition gives to its classes, as a part and as an object: `[B, N, g·g', C]` → twice the same."""
        of_part, of_object = self.merge_features.weight.chunk(2, dim=1)
        return F.linear(features, of_part, self.merge_features.bias), F.linear(features, of_object)

    def class_words(self, conditions: Tensor, part_rows: Tensor, object_word_rows: Tensor) -> Tensor:
        """Words of K classes, `[K, D]`, of the conditions `[N, D]` that the rows, int64 `[K]`, name."""
        of_object, of_part = self.merge_words.weight.chunk(2, dim=1)
        return (
            F.linear(conditions, of_object, self.merge_words.bias)[object_word_rows]
            + F.linear(conditions, of_part)[part_rows]
        )

    def pair_logits(
        self,
        halves: tuple[Tensor, Tensor],
        words: Tensor,
        part_rows: Tensor,
        object_rows: Tensor,
        grid: tuple[int, int],
    ) -> Tensor:
        """Logits `[B, K, h, w]` of K pairs: `merge_halves`, `[B, N, g·g', C]` each, joined, modulated by `[K, D]`."""
        merged = halves[0].index_select(1, part_rows) + halves[1].index_select(1, object_rows)  # [B, K, g·g', C]
        return _upsampled(self.class_upsample, self.class_film(merged, words), grid)

    @torch.no_grad()
    def copy_to_classes(self) -> None:
        """Start the classes' FiLM and up-sampling head as copies of the conditions' own, as published."""
        for target, source in ((self.class_film, self.film), (self.class_upsample, self.upsample)):
            for copy, original in zip(target.parameters(), source.parameters(), strict=True):
                init.copy_(copy, original)

    @torch.no_grad()
    def average_merges(self) -> None:
        """Start both merges as the mean of their halves: an untrained class is its part and object averaged."""
        for merge in (self.merge_features, self.merge_words):
            half = torch.eye(merge.out_features, dtype=merge.weight.dtype, device=merge.weight.device) / 2
            init.copy_(merge.weight, torch.cat([half, half], dim=1))
            init.zeros_(merge.bias)

    @torch.no_grad()
    def randomise_merges(self) -> None:
        """Start both merges at random, as the reference does."""
        for merge in (self.merge_features, self.merge_words):
            merge.reset_parameters()
