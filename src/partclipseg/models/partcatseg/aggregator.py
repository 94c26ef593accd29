"""Cost aggregation: from similarities of patches and words to logits of every class.

Letters in shapes: B photos, T classes of a volume (background last), P prompt templates, D joint width, C hidden
width, G photo guidance width, Q text guidance width, g feature grid, w window, d = C / heads, 4g = edge of the logits.
Sources: Cho et al., "CAT-Seg" (CVPR 2024); Choi et al., "Fine-Grained Image-Text Correspondence with Cost
Aggregation for Open-Vocabulary Part Segmentation" (CVPR 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from partclipseg.models.partcatseg.chunks import CLASSES_AT_ONCE, SCORES_AT_ONCE, chunks, items_at_once, joined
from partclipseg.models.partcatseg.config import CATSegConfig
from partclipseg.models.partcatseg.convolutions import OneChannelConv2d, WideKernelConv2d
from partclipseg.models.partcatseg.filters import mix
from partclipseg.models.partcatseg.up_block import UpBlock
from partclipseg.models.partcatseg.windows import attend_within_windows
from partclipseg.models.recomputing import recomputed


class AppearanceGuidance(NamedTuple):
    """Projected photo features: at the feature grid, and at twice and four times as many places."""

    grid: Tensor
    """`[B, G, g, g]`."""
    decoder1: Tensor
    """`[B, E, 2g, 2g]`."""
    decoder2: Tensor
    """`[B, E', 4g, 4g]`."""


class Volume(NamedTuple):
    """The aggregated embedding of a cost volume."""

    embedding: Tensor
    """`[B, T, g, g, C]`."""
    similarity: Tensor
    """`[B, T, g, g]`: the cost, averaged over the templates."""


class CostAggregator(nn.Module):
    """Aggregates one cost volume: CAT-Seg, and the first stage of PartCATSeg."""

    attention = "linear"
    """Form of class attention, see `ClassBlock`."""

    def __init__(self, config: CATSegConfig) -> None:
        super().__init__()
        self.recompute = False
        """Keep only the inputs of layers and decoders in training and compute the rest again in the backward pass."""
        self.places = config.grid**2
        self.widest = max(4 * config.hidden_dim, config.clip_config.projection_dim)
        """Number of channels of the widest tensor at a place: a hidden layer's, or the features that make a cost."""
        hidden, (coarse, middle, fine) = config.hidden_dim, config.guidance_dims
        near, far = config.decoder_guidance_dims
        self.cost_embedding = WideKernelConv2d(len(config.templates), hidden, 7)
        self.guidance_projection = nn.Conv2d(coarse, config.appearance_guidance_dim, 3, padding=1)
        self.text_projection = nn.Linear(config.clip_config.projection_dim, config.text_guidance_dim)
        self.decoder_guidance_projections = nn.ModuleList(
            [nn.Conv2d(middle, near, 3, padding=1), nn.Conv2d(fine, far, 3, padding=1)]
        )
        self.layers = nn.ModuleList(AggregationLayer(config, self.attention) for _ in range(config.num_layers))
        self.decoder1 = UpBlock(hidden, near, config.decoder_dims[0], 2 * config.grid)
        self.decoder2 = UpBlock(config.decoder_dims[0], far, config.decoder_dims[1], 4 * config.grid)
        self.head = OneChannelConv2d(config.decoder_dims[1], 4 * config.grid)

    def guidance(self, features: tuple[Tensor, Tensor, Tensor]) -> AppearanceGuidance:
        """Project the guidance tower's features `[B, A, g, g]`, `[B, A', 2g, 2g]`, `[B, A'', 4g, 4g]`."""
        grid, twice, four_times = features
        near, far = self.decoder_guidance_projections
        return AppearanceGuidance(F.relu(self.guidance_projection(grid)), F.relu(near(twice)), F.relu(far(four_times)))

    def text_guidance(self, texts: Tensor) -> Tensor:
        """Project unit vectors of the prompts `[T, P, D]` to `[T, Q]`."""
        return F.relu(self.text_projection(F.normalize(texts.mean(1), dim=-1)))

    def aggregate(self, photo: Tensor, texts: Tensor, guidance: AppearanceGuidance) -> Volume:
        """Compare every patch with every prompt, and aggregate over places and classes.

        `photo [B, D, g, g]` and `texts [T, P, D]` are unit vectors; a photo's may be filtered, see `filters`.
        """
        embeddings, similarities = [], []
        for some in chunks(texts.shape[0], self.at_once(photo)):
            # 1. Cost: cosine of every patch with every prompt.
            cost = torch.einsum("bdyx,tpd->btyxp", photo, F.normalize(texts[some], dim=-1))  # [B, t, g, g, P]
            # 2. Embedding: each class's own image of P channels.
            embeddings.append(embed(self.cost_embedding, cost))  # [B, t, g, g, C]
            similarities.append(cost.mean(-1))  # [B, t, g, g]
        # 3. Aggregation, guided by photo and text.
        embedding = self.run(self.layers, joined(embeddings), texts, guidance)
        return Volume(embedding, joined(similarities))

    def at_once(self, photos: Tensor, scale: int = 1) -> int:
        """Return the number of classes in a pass whose maps have `scale` times the feature grid's edge.

        `photos [B, …]` are of the device and the type in question.
        """
        widest = max(self.widest, self.head.in_channels * scale**2)  # channels of a place of the feature grid
        return items_at_once(widest * self.places, CLASSES_AT_ONCE, photos) // photos.shape[0]

    def run(self, layers: nn.ModuleList, embedding: Tensor, texts: Tensor, guidance: AppearanceGuidance) -> Tensor:
        """Pass `embedding [B, T, g, g, C]` through aggregation layers; the same shape."""
        text = self.text_guidance(texts)
        for layer in layers:
            embedding = self._call(layer, embedding, guidance.grid, text)
        return embedding

    def _call(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return recomputed(function, *inputs) if self.recompute else function(*inputs)

    def decode(self, embedding: Tensor, guidance: AppearanceGuidance) -> Tensor:
        """Decode each class alone: `embedding [B, T, g, g, C]` → logits `[B, T, 4g, 4g]`."""
        pieces = chunks(embedding.shape[1], self.at_once(embedding, scale=4), always=self.recompute)
        levels = guidance.decoder1, guidance.decoder2
        return joined([self._call(self._decode, embedding[:, some], *levels) for some in pieces])

    def _decode(self, embedding: Tensor, near: Tensor, far: Tensor) -> Tensor:
        x = embedding.flatten(0, 1).permute(0, 3, 1, 2)  # [B·t, C, g, g]
        x = self.decoder1(x, near)  # [B·t, 64, 2g, 2g]
        x = self.decoder2(x, far)  # [B·t, 32, 4g, 4g]
        return self.head(x).unflatten(0, embedding.shape[:2]).squeeze(2)  # [B, t, 4g, 4g]


class PartCostAggregator(CostAggregator):
    """Aggregates two cost volumes: parts and objects, then the object-parts composed of them."""

    attention = "query"

    def __init__(self, config: CATSegConfig) -> None:
        super().__init__(config)
        hidden = config.hidden_dim
        self.pair_projection = nn.Conv2d(2 * hidden, config.clip_config.projection_dim, 1)
        self.pair_cost_embedding = WideKernelConv2d(len(config.templates), hidden, 7)
        self.pair_layers = nn.ModuleList(AggregationLayer(config, self.attention) for _ in range(config.num_layers))

    @torch.no_grad()
    def copy_to_pairs(self) -> None:
        """Start the second stage as a copy of the first."""
        for target, origin in ((self.pair_cost_embedding, self.cost_embedding), (self.pair_layers, self.layers)):
            for copy, original in zip(target.parameters(), origin.parameters(), strict=True):
                init.copy_(copy, original)  # leaves alone what from_pretrained has loaded

    def aggregate_pairs(
        self,
        words: Tensor,
        part_rows: Tensor,
        object_rows: Tensor,
        texts: Tensor,
        guidance: AppearanceGuidance,
        affinity: Tensor | None = None,
    ) -> Volume:
        """Compose every class of its part and its object, compare it with its own prompts, and aggregate.

        Args:
            words: the first stage's embedding `[B, N_1, g, g, C]`.
            part_rows, object_rows: int64 `[T]`, what each class is made of; background of itself twice.
            texts: unit vectors `[T, P, D]` of the object-parts.
            guidance: of the photos.
            affinity: `[B, g·g, g·g]`, by which the places of every cost are mixed; None leaves them as they are.
        """
        weight, bias = self.pair_projection.weight.flatten(1), self.pair_projection.bias  # [D, 2C], [D]
        embeddings, similarities = [], []
        for some in chunks(texts.shape[0], self.at_once(words)):
            # 1. Features of [part ; object].
            pairs = torch.cat([chosen(words, rows[some]) for rows in (part_rows, object_rows)], -1)  # [B, t, g, g, 2C]
            features = F.linear(pairs, weight, bias).flatten(2, 3)  # [B, t, g·g, D]
            # 2. Cost: each class's own features against its own prompts alone. A cosine is divided by the length of the
            # features in the end, since they are many times wider.
            products = features @ F.normalize(texts[some], dim=-1).mT  # [B, t, g·g, P]
            cost = (products / lengths(features).to(products.dtype)).view(*pairs.shape[:4], -1)  # [B, t, g, g, P]
            if affinity is not None:
                places_last = cost.movedim(-1, 2)  # [B, t, P, g, g]
                cost = mix(places_last.flatten(1, 2), affinity).view(places_last.shape).movedim(2, -1)
            # 3. Embedding.
            embeddings.append(embed(self.pair_cost_embedding, cost))  # [B, t, g, g, C]
            similarities.append(cost.mean(-1))  # [B, t, g, g]
        # 4. Aggregation, guided as in the first stage.
        embedding = self.run(self.pair_layers, joined(embeddings), texts, guidance)
        return Volume(embedding, joined(similarities))


class AggregationLayer(nn.Module):
    """Mixes the places of each class, then the classes at each pooled place."""

    def __init__(self, config: CATSegConfig, attention: str) -> None:
        super().__init__()
        self.widest = 4 * config.hidden_dim * config.grid**2
        """Number of values of a class in a hidden layer."""
        self.guidance_norm = nn.LayerNorm(config.appearance_guidance_dim)
        window = min(config.window_size, config.grid)
        shift = 0 if config.grid <= config.window_size else window // 2
        sizes = config.hidden_dim, config.appearance_guidance_dim, config.num_heads
        self.block1 = WindowBlock(*sizes, window, 0)
        self.block2 = WindowBlock(*sizes, window, shift)
        self.classes = ClassBlock(
            config.hidden_dim, config.text_guidance_dim, config.num_heads, config.pooling_size, attention
        )

    def forward(self, x: Tensor, guidance: Tensor, text: Tensor) -> Tensor:
        """Map `x [B, T, g, g, C]`, with guidance of photos `[B, G, g, g]` and texts `[T, Q]`, to its own shape."""
        photo = self.guidance_norm(guidance.permute(0, 2, 3, 1))  # [B, g, g, G]
        batch, classes = x.shape[:2]
        at_once = items_at_once(self.widest, CLASSES_AT_ONCE, x) // batch
        x = joined([self.spatial(x[:, some], photo) for some in chunks(classes, at_once)])
        return self.classes(x, text)

    def spatial(self, x: Tensor, photo: Tensor) -> Tensor:
        """Mix the places of `x [B, T, g, g, C]`, which keeps its shape; `photo [B, g, g, G]` is normalised."""
        return self.block2(self.block1(x, photo), photo)


class GuidedBlock(nn.Module):
    """Base class of the attentions: queries and keys are projected from [x ; guidance], values from x."""

    norm2: nn.LayerNorm
    mlp: nn.Sequential

    def __init__(self, width: int, guidance: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width + guidance, width)
        self.key = nn.Linear(width + guidance, width)
        self.value = nn.Linear(width, width)

    def queries_keys_values(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Project `x [..., C]` to queries, keys and values, `[..., 3C]`; `guidance [..., G]` is broadcast to it.

        The product of [x ; guidance] is a sum of two, since `guidance` is shared along dimensions of `x`. That of x is
        one for all three, so that x is read once.
        """
        width, layers = x.shape[-1], (self.query, self.key)
        own = torch.cat([*(layer.weight[:, :width] for layer in layers), self.value.weight])  # [3C, C]
        bias = torch.cat([layer.bias for layer in (*layers, self.value)])
        shared = F.linear(guidance, torch.cat([layer.weight[:, width:] for layer in layers]))  # [..., 2C]
        return F.linear(x, own, bias) + F.pad(shared, (0, width))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Map `x [..., C]` to its own shape; the hidden layer, of width 4C, is not kept in training."""
        return x + self.mlp(self.norm2(x))


class WindowBlock(GuidedBlock):
    """Attends within windows of a class's grid; the photo guides queries and keys."""

    def __init__(self, width: int, guidance: int, heads: int, window: int, shift: int) -> None:
        super().__init__(width, guidance, heads)
        self.window, self.shift = window, shift
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, photo: Tensor) -> Tensor:
        """Map `x [B, T, g, g, C]`, with `photo [B, g, g, G]`, to its own shape."""
        projected = self.queries_keys_values(self.norm1(x), photo.unsqueeze(1))  # [B, T, g, g, 3C]
        x = x + self.project(attend_within_windows(projected, self.heads, self.window, self.shift))
        return recomputed(self.feed_forward, x)


class ClassBlock(GuidedBlock):
    """Attends between the classes at each place of a pooled grid; the texts guide queries and keys."""

    def __init__(self, width: int, guidance: int, heads: int, pooling: int, attention: str) -> None:
        """Make the block; `attention` is "query", whose softmax runs over the queries, or "linear"."""
        super().__init__(width, guidance, heads)
        self.pooling = pooling
        self.attend: Callable[[Tensor, Tensor, Tensor], Tensor] = ATTENTIONS[attention]
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Map `x [B, T, g, g, C]`, with `text [T, Q]`, to its own shape.

        The result is the sum of `x` and what is mixed at the pooled places, which itself contains the pooled `x`.
        """
        batch, classes, grid, _, width = x.shape
        edge = grid // self.pooling
        cells = x.view(batch, classes, edge, self.pooling, edge, self.pooling, width)
        places = cells.mean((3, 5)).permute(0, 2, 3, 1, 4).flatten(0, 2)  # [B·g'·g', T, C]
        scores = self.heads * classes * (classes + width)  # of a place
        at_once = items_at_once(scores, SCORES_AT_ONCE // scores, x)
        places = joined([self.mix(places[some], text) for some in chunks(places.shape[0], at_once)], 0)
        pooled = places.view(batch, edge * edge, classes, width).transpose(1, 2)  # [B, T, g'·g', C]
        # Bilinear resizing as a product: its gradient is one too, where that of `interpolate` adds atomically.
        weights = bilinear_weights(edge, grid, x).expand(batch * classes, -1, -1)  # [B·T, g·g, g'·g']
        return torch.baddbmm(x.flatten(2, 3).flatten(0, 1), weights, pooled.flatten(0, 1)).view(x.shape)

    def mix(self, x: Tensor, text: Tensor) -> Tensor:
        """Mix the classes of `x [n, T, C]`, which keeps its shape."""
        projected = self.queries_keys_values(self.norm1(x), text)  # [n, T, 3C]
        q, k, v = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [n, heads, T, d] each
        x = x + self.attend(q, k, v).transpose(1, 2).flatten(2)
        return recomputed(self.feed_forward, x)


def query_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with the softmax over the queries, then each query's weights divided by their sum: `[n, heads, T, d]`.

    The weights are computed again in the backward pass: those of all layers would be most of what a step stores.
    """
    return recomputed(_query_attention, q, k, v)


def _query_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # Every share has 1e-8 added before the division; both are applied to the small result, not to all T · T shares.
    # Ones beside the values sum the shares in the same product; eight, since a GPU multiplies in eights.
    least, width = 1e-8, q.shape[-1]
    scores = k @ (q / width**0.5).transpose(-2, -1)  # [n, heads, T keys, T queries]
    with torch.autocast(q.device.type, enabled=False):
        shares = scores.softmax(-1)  # sums in float32; autocast would write all scores and shares in it
    values = F.pad(v, (0, 8), value=1.0)  # [n, heads, T keys, d + 8]
    mixed = shares.transpose(-2, -1) @ values + least * values.sum(-2, keepdim=True)  # [n, heads, T queries, d + 8]
    return mixed[..., :width] / mixed[..., width : width + 1]


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with the kernel (elu + 1)(elu + 1) in place of the softmax: `[n, heads, T, d]`."""
    q, k = F.elu(q) + 1, F.elu(k) + 1
    classes = v.shape[-2]
    values = k.transpose(-2, -1) @ (v / classes)  # [n, heads, d, d]; divided to keep half precision in range
    return q @ values * classes / (q @ k.sum(-2).unsqueeze(-1) + 1e-6)


ATTENTIONS = {"query": query_attention, "linear": linear_attention}


def chosen(words: Tensor, rows: Tensor) -> Tensor:
    """Select `words [B, N, …]` by int64 `rows [t]`: `[B, t, …]`.

    By one index of the first dimension, since a GPU copies whole rows fast for that one alone.
    """
    batch, count = words.shape[:2]
    photos = count * torch.arange(batch, device=rows.device)
    return words.flatten(0, 1)[(photos[:, None] + rows).flatten()].unflatten(0, (batch, -1))


def embed(convolution: nn.Conv2d, cost: Tensor) -> Tensor:
    """Embed a cost `[B, T, g, g, P]` as `[B, T, g, g, C]`."""
    maps = cost.flatten(0, 1).permute(0, 3, 1, 2)  # [B·T, P, g, g], channels last in memory
    return convolution(maps).permute(0, 2, 3, 1).unflatten(0, cost.shape[:2]).contiguous()


def lengths(vectors: Tensor) -> Tensor:
    """Return the norms `[..., 1]` of vectors, at least 1e-12, in float32 at least, without a copy in that type."""
    with torch.autocast(vectors.device.type, enabled=False):
        dtype = torch.promote_types(vectors.dtype, torch.float32)
        return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True, dtype=dtype).clamp(min=1e-12)


def bilinear_weights(coarse: int, fine: int, like: Tensor) -> Tensor:
    """Return the weights `[fine², coarse²]` that resize a square map bilinearly, its corners staying corners."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    fines, coarses = (torch.arange(count, device=like.device, dtype=dtype) for count in (fine, coarse))
    place = fines * ((coarse - 1) / max(fine - 1, 1))
    near = (1 - (place[:, None] - coarses).abs()).clamp(min=0)  # [fine, coarse]
    return (near[:, None, :, None] * near[None, :, None, :]).flatten(2).flatten(0, 1).to(like.dtype)
