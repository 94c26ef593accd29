"""Cost aggregation: from similarities of patches and words to logits of every class.

Letters in shapes: B photos, T classes of a volume (background last), P prompt templates, D joint width, C hidden
width, G photo guidance width, Q text guidance width, g feature grid, w window, d = C / heads, 4g = edge of the logits.
Sources: Cho et al., "CAT-Seg" (CVPR 2024); Choi et al., "Fine-Grained Image-Text Correspondence with Cost
Aggregation for Open-Vocabulary Part Segmentation" (CVPR 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init

from partclipseg.models.partcatseg.config import CATSegConfig
from partclipseg.models.partcatseg.filters import mix

CLASSES_AT_ONCE = 64
"""Number of (photo, class) pairs in a pass of the convolutions, spatial attention and the decoder; all pass at once if
gradients are recorded, which keep everything anyway."""
SCORES_AT_ONCE = 1 << 25
"""Number of scores of class attention in memory at a time, with the same exception."""


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
        hidden, (coarse, middle, fine) = config.hidden_dim, config.guidance_dims
        near, far = config.decoder_guidance_dims
        self.cost_embedding = nn.Conv2d(len(config.templates), hidden, 7, padding=3)
        self.guidance_projection = nn.Conv2d(coarse, config.appearance_guidance_dim, 3, padding=1)
        self.text_projection = nn.Linear(config.clip_config.projection_dim, config.text_guidance_dim)
        self.decoder_guidance_projections = nn.ModuleList(
            [nn.Conv2d(middle, near, 3, padding=1), nn.Conv2d(fine, far, 3, padding=1)]
        )
        self.layers = nn.ModuleList(AggregationLayer(config, self.attention) for _ in range(config.num_layers))
        self.decoder1 = UpBlock(hidden, near, config.decoder_dims[0])
        self.decoder2 = UpBlock(config.decoder_dims[0], far, config.decoder_dims[1])
        self.head = nn.Conv2d(config.decoder_dims[1], 1, 3, padding=1)

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
        for some in chunks(texts.shape[0], CLASSES_AT_ONCE // photo.shape[0]):
            # 1. Cost: cosine of every patch with every prompt.
            cost = torch.einsum("bdyx,tpd->btpyx", photo, F.normalize(texts[some], dim=-1))  # [B, t, P, g, g]
            # 2. Embedding: each class's own image of P channels.
            embeddings.append(embed(self.cost_embedding, cost))  # [B, t, g, g, C]
            similarities.append(cost.mean(2))  # [B, t, g, g]
        # 3. Aggregation, guided by photo and text.
        embedding = self.run(self.layers, torch.cat(embeddings, 1), texts, guidance)
        return Volume(embedding, torch.cat(similarities, 1))

    def run(self, layers: nn.ModuleList, embedding: Tensor, texts: Tensor, guidance: AppearanceGuidance) -> Tensor:
        """Pass `embedding [B, T, g, g, C]` through aggregation layers; the same shape."""
        text = self.text_guidance(texts)
        for layer in layers:
            embedding = self._call(layer, embedding, guidance.grid, text)
        return embedding

    def _call(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return again(function, *inputs)
        return function(*inputs)

    def decode(self, embedding: Tensor, guidance: AppearanceGuidance) -> Tensor:
        """Decode each class alone: `embedding [B, T, g, g, C]` → logits `[B, T, 4g, 4g]`."""
        batch, classes = embedding.shape[:2]
        logits = [
            self._call(self._decode, embedding[:, some], guidance.decoder1, guidance.decoder2)
            for some in chunks(classes, CLASSES_AT_ONCE // batch, always=self.recompute)
        ]
        return torch.cat(logits, 1)

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
        self.pair_cost_embedding = nn.Conv2d(len(config.templates), hidden, 7, padding=3)
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
        # 1. Features: the projection of [part ; object] is a sum of two, each computed once for a word.
        part_weight, object_weight = self.pair_projection.weight.flatten(1).chunk(2, 1)  # [D, C] each
        embeddings, similarities = [], []
        for some in chunks(texts.shape[0], CLASSES_AT_ONCE // words.shape[0]):
            (parts, part_of), (objects, object_of) = once(part_rows[some]), once(object_rows[some])
            from_part = F.linear(words[:, parts], part_weight, self.pair_projection.bias)  # [B, n, g, g, D]
            from_object = F.linear(words[:, objects], object_weight)  # [B, n, g, g, D]
            features = F.normalize(from_part[:, part_of] + from_object[:, object_of], dim=-1)  # [B, t, g, g, D]
            # 2. Cost: each class's own features against its own prompts alone.
            cost = torch.einsum("btyxd,tpd->btpyx", features, F.normalize(texts[some], dim=-1))  # [B, t, P, g, g]
            if affinity is not None:
                cost = mix(cost.flatten(1, 2), affinity).view_as(cost)
            # 3. Embedding.
            embeddings.append(embed(self.pair_cost_embedding, cost))  # [B, t, g, g, C]
            similarities.append(cost.mean(2))  # [B, t, g, g]
        # 4. Aggregation, guided as in the first stage.
        embedding = self.run(self.pair_layers, torch.cat(embeddings, 1), texts, guidance)
        return Volume(embedding, torch.cat(similarities, 1))


class AggregationLayer(nn.Module):
    """Mixes the places of each class, then the classes at each pooled place."""

    def __init__(self, config: CATSegConfig, attention: str) -> None:
        super().__init__()
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
        x = torch.cat([self.spatial(x[:, some], photo) for some in chunks(classes, CLASSES_AT_ONCE // batch)], 1)
        return x + self.classes(x, text)

    def spatial(self, x: Tensor, photo: Tensor) -> Tensor:
        """Mix the places of `x [B, T, g, g, C]`, which keeps its shape; `photo [B, g, g, G]` is normalised."""
        return self.block2(self.block1(x, photo), photo)


class WindowBlock(nn.Module):
    """Attends within windows of a class's grid; the photo guides queries and keys."""

    def __init__(self, width: int, guidance: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width + guidance, width)
        self.key = nn.Linear(width + guidance, width)
        self.value = nn.Linear(width, width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, photo: Tensor) -> Tensor:
        """Map `x [B, T, g, g, C]`, with `photo [B, g, g, G]`, to its own shape."""
        a, photo = self.norm1(x), photo.unsqueeze(1)  # [B, 1, g, g, G]
        if self.shift:
            a, photo = (t.roll((-self.shift, -self.shift), dims=(2, 3)) for t in (a, photo))
        q, k, v = guided(self.query, a, photo), guided(self.key, a, photo), self.value(a)
        mixed = self.project(self.attend(q, k, v))
        x = x + (mixed.roll((self.shift, self.shift), dims=(2, 3)) if self.shift else mixed)
        return x + self.mlp(self.norm2(x))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mix the values within windows: three times `[B, T, g, g, C]`, shifted → the same shape."""
        batch, classes, grid, _, width = q.shape
        q, k, v = (self.split(t) for t in (q, k, v))  # [B·T, windows·heads, w·w, d]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask(grid, q))
        side, window = grid // self.window, self.window
        mixed = mixed.view(batch, classes, side, side, self.heads, window, window, width // self.heads)
        return mixed.permute(0, 1, 2, 5, 3, 6, 4, 7).reshape(batch, classes, grid, grid, width)

    def split(self, x: Tensor) -> Tensor:
        """Split `[B, T, g, g, C]` into windows and heads `[B·T, windows·heads, w·w, d]`."""
        x = x.flatten(0, 1).unflatten(-1, (self.heads, -1))  # [B·T, g, g, heads, d]
        x = x.unflatten(2, (-1, self.window)).unflatten(1, (-1, self.window))  # [B·T, n, w, n, w, heads, d]
        return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(1, 3)

    def mask(self, grid: int, like: Tensor) -> Tensor | None:
        """Return -100 between places that only the shift brought into one window: `[windows·heads, w·w, w·w]`."""
        if not self.shift:
            return None
        place = torch.arange(grid, device=like.device)
        region = (place >= grid - self.window).long() + (place >= grid - self.shift)  # [g]: 0, 1 or 2
        region = (3 * region[:, None] + region).unflatten(1, (-1, self.window)).unflatten(0, (-1, self.window))
        region = region.transpose(1, 2).flatten(2).flatten(0, 1)  # [windows, w·w]
        differ = region[:, None, :] != region[:, :, None]  # [windows, w·w, w·w]
        return (-100.0 * differ).to(like.dtype).repeat_interleave(self.heads, 0)


class ClassBlock(nn.Module):
    """Attends between the classes at each place of a pooled grid; the texts guide queries and keys."""

    def __init__(self, width: int, guidance: int, heads: int, pooling: int, attention: str) -> None:
        """Make the block; `attention` is "query", whose softmax runs over the queries, or "linear"."""
        super().__init__()
        self.heads, self.pooling = heads, pooling
        self.attend: Callable[[Tensor, Tensor, Tensor], Tensor] = ATTENTIONS[attention]
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width + guidance, width)
        self.key = nn.Linear(width + guidance, width)
        self.value = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Map `x [B, T, g, g, C]`, with `text [T, Q]`, to its own shape; the result contains the pooled `x`."""
        batch, classes, grid, _, width = x.shape
        pooled = F.avg_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), self.pooling)  # [B·T, C, g', g']
        edge = grid // self.pooling
        places = pooled.view(batch, classes, width, edge * edge).permute(0, 3, 1, 2).flatten(0, 1)  # [B·g'·g', T, C]
        at_once = SCORES_AT_ONCE // (self.heads * classes * (classes + width))
        places = torch.cat([self.mix(places[some], text) for some in chunks(places.shape[0], at_once)])
        # Channels last: in the other order a GPU's resizing walks through all channels of a place one after the other.
        pooled = places.unflatten(0, (batch, -1)).transpose(1, 2).reshape(-1, edge, edge, width).permute(0, 3, 1, 2)
        spread = F.interpolate(pooled, (grid, grid), mode="bilinear", align_corners=True)  # [B·T, C, g, g]
        return spread.permute(0, 2, 3, 1).view(batch, classes, grid, grid, width)

    def mix(self, x: Tensor, text: Tensor) -> Tensor:
        """Mix the classes of `x [n, T, C]`, which keeps its shape."""
        a = self.norm1(x)
        q, k, v = guided(self.query, a, text), guided(self.key, a, text), self.value(a)  # [n, T, C]
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))  # [n, heads, T, d]
        x = x + self.attend(q, k, v).transpose(1, 2).flatten(2)
        return x + self.mlp(self.norm2(x))


def query_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with the softmax over the queries, then each query's weights divided by their sum: `[n, heads, T, d]`.

    The weights are computed again in the backward pass: those of all layers would be most of what a step stores.
    """
    return again(_query_attention, q, k, v) if torch.is_grad_enabled() else _query_attention(q, k, v)


def _query_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # Every share has 1e-8 added before the division; both are applied to the small result, not to all T · T shares.
    least, (classes, width) = 1e-8, q.shape[-2:]
    shares = (k @ (q / width**0.5).transpose(-2, -1)).softmax(-1)  # [n, heads, T keys, T queries]
    mixed = shares.transpose(-2, -1) @ v + least * v.sum(-2, keepdim=True)  # [n, heads, T queries, d]
    return mixed / (shares.sum(-2).unsqueeze(-1) + classes * least)


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with the kernel (elu + 1)(elu + 1) in place of the softmax: `[n, heads, T, d]`."""
    q, k = F.elu(q) + 1, F.elu(k) + 1
    classes = v.shape[-2]
    values = k.transpose(-2, -1) @ (v / classes)  # [n, heads, d, d]; divided to keep half precision in range
    return q @ values * classes / (q @ k.sum(-2).unsqueeze(-1) + 1e-6)


ATTENTIONS = {"query": query_attention, "linear": linear_attention}


class UpBlock(nn.Module):
    """Doubles the resolution, joins guidance, then convolves twice."""

    def __init__(self, width: int, guidance: int, out: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(width, width - guidance, 2, stride=2)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(out // 16, out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(out // 16, out)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Map `x [B·T, C, e, e]` and `guidance [B, E, 2e, 2e]` to `[B·T, C', 2e, 2e]`."""
        x = self.up(x)  # [B·T, C - E, 2e, 2e]
        # The convolution of [x ; guidance] is a sum of two, of which the second is computed once for a photo.
        own, guided_by = self.conv1.weight.split([x.shape[1], guidance.shape[1]], 1)
        x = F.conv2d(x, own, padding=1).unflatten(0, (guidance.shape[0], -1))  # [B, T, C', 2e, 2e]
        x = (x + F.conv2d(guidance, guided_by, padding=1).unsqueeze(1)).flatten(0, 1)
        x = F.relu(self.norm1(x))
        return F.relu(self.norm2(self.conv2(x)))


def embed(convolution: nn.Conv2d, cost: Tensor) -> Tensor:
    """Embed a cost `[B, T, P, g, g]` as `[B, T, g, g, C]`."""
    return convolution(cost.flatten(0, 1)).permute(0, 2, 3, 1).unflatten(0, cost.shape[:2])


def guided(layer: nn.Linear, x: Tensor, guidance: Tensor) -> Tensor:
    """Apply `layer` to [x ; guidance] as a sum of two products, since `guidance` is shared along dimensions of `x`."""
    own, guided_by = layer.weight.split([x.shape[-1], guidance.shape[-1]], 1)
    return F.linear(x, own) + F.linear(guidance, guided_by, layer.bias)


def again(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Call a function of the inputs that is computed again in the backward pass; nothing in it may be random."""
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore


def once(rows: Tensor) -> tuple[Tensor | slice, Tensor | slice]:
    """Say which words to compute for the `rows`, int64 `[T]`, and where each row stands among them.

    In training they are all words, and in an exported graph one for each row: there no size may depend on values.
    """
    if torch.compiler.is_exporting():
        return rows, slice(None)
    if torch.is_grad_enabled():
        return slice(None), rows
    return rows.unique(return_inverse=True)


def chunks(count: int, at_once: int, always: bool = False) -> Iterator[slice]:
    """Yield slices of `count` items, at least one each; a single one while gradients are recorded, unless `always`.

    An exported graph, whose counts are symbols, has a single one too.
    """
    if torch.compiler.is_exporting():
        yield slice(None)
        return
    step = count if torch.is_grad_enabled() and not always else max(1, at_once)
    for start in range(0, count, step):
        yield slice(start, start + step)
