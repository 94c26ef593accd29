"""ONNX graphs of PartCATSeg and CAT-Seg: photo encoder, text encoder and decoder; photos and words in any number.

The sizes of the photos are the model's own: the aggregation works on a fixed grid.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.export import Dim

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.onnx import OnnxGraph, PhotoInput, PhotoInputs
from partclipseg.models.partcatseg.aggregator import AppearanceGuidance
from partclipseg.models.partcatseg.filters import patches
from partclipseg.models.partcatseg.model import CATSegModel, PartCATSegModel
from partclipseg.models.partcatseg.towers import DINOGuidance, text_vectors

TRACED = {"batch": 2, "parts": 5, "objects": 7, "classes": 11, "words": 13, "length": 4}
"""Sizes of the example inputs: all different and none 1, since the exporter unifies equal sizes and fixes 1."""


class CATSegPhotoGraph(nn.Module):
    """Photo encoder: both towers and the projected guidance."""

    inputs = ("pixel_values", "guidance_pixels")
    outputs = ("features", "guidance", "guidance_2x", "guidance_4x")

    def __init__(self, model: CATSegModel) -> None:
        super().__init__()
        self.config, self.clip = model.config, model.clip
        self.aggregator, self.guidance = model.aggregator, model.guidance
        if isinstance(model.guidance, DINOGuidance):
            self.guidance = _at_final_size(model.guidance, int(model.config.guidance_image_size or 0))

    def forward(self, pixel_values: Tensor, guidance_pixels: Tensor) -> tuple[Tensor, ...]:
        """Encode `[B, 3, S, S]` and `[B, 3, S', S']` as vectors `[B, D, g, g]` and guidance at g, 2g and 4g."""
        dtype = self.clip.dtype
        features = patches(self.config, self.clip, pixel_values.to(dtype)).vectors
        guidance = self.aggregator.guidance(self.guidance(guidance_pixels.to(dtype)))
        return features.float(), *(level.float() for level in guidance)


class CATSegTextGraph(nn.Module):
    """Text encoder: tokens to unit vectors."""

    inputs = ("input_ids", "attention_mask")
    outputs = ("text_embeddings",)

    def __init__(self, model: CATSegModel) -> None:
        super().__init__()
        self.clip = model.clip
        text: Any = model.config.clip_config.text_config
        self.end: int = text.eos_token_id

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed tokens and mask, int64 `[K, length]` each, as `[K, D]`; padding is replaced by the end token."""
        return text_vectors(self.clip, input_ids * attention_mask + self.end * (1 - attention_mask)).float()


class CATSegDecoderGraph(nn.Module):
    """CAT-Seg's aggregation and decoder."""

    inputs: ClassVar[tuple[str, ...]] = (*CATSegPhotoGraph.outputs, "class_embeddings")
    outputs = ("object_part_probabilities",)

    def __init__(self, model: CATSegModel) -> None:
        super().__init__()
        self.model = model

    def texts(self, *embeddings: Tensor) -> tuple[Tensor, ...]:
        """Return the prompts' vectors by word, `[words, P, D]` each, and last the background's, `[1, P, D]`."""
        model, count = self.model, len(self.model.config.templates)
        background = model.background_texts(count)
        return *(words.to(model.dtype).unflatten(0, (-1, count)) for words in embeddings), background

    def photos(self, *tensors: Tensor) -> tuple[Tensor, AppearanceGuidance]:
        """Return the photo encoder's outputs in the model's number type."""
        features, *guidance = (tensor.to(self.model.dtype) for tensor in tensors)
        return features, AppearanceGuidance(*guidance)

    def probabilities(self, embedding: Tensor, guidance: AppearanceGuidance) -> Tensor:
        """Decode an aggregated embedding `[B, T, g, g, C]` to probabilities `[B, T, 4g, 4g]`."""
        return self.model.aggregator.decode(embedding, guidance).float().sigmoid()

    def forward(
        self, features: Tensor, guidance: Tensor, guidance_2x: Tensor, guidance_4x: Tensor, class_embeddings: Tensor
    ) -> Tensor:
        """Compute probabilities `[B, N_c + 1, 4g, 4g]`, background last, of `class_embeddings [N_c · P, D]`."""
        photo, levels = self.photos(features, guidance, guidance_2x, guidance_4x)
        volume = self.model.aggregator.aggregate(photo, torch.cat(self.texts(class_embeddings)), levels)
        return self.probabilities(volume.embedding, levels)


class PartCATSegDecoderGraph(CATSegDecoderGraph):
    """PartCATSeg's two stages: steps 1, 3 and 4 of `PartCATSegModel.volumes`."""

    inputs: ClassVar[tuple[str, ...]] = (
        *CATSegPhotoGraph.outputs,
        *("part_embeddings", "object_embeddings", "class_embeddings", "class_to_part", "class_to_object"),
    )
    model: PartCATSegModel

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        features: Tensor,
        guidance: Tensor,
        guidance_2x: Tensor,
        guidance_4x: Tensor,
        part_embeddings: Tensor,
        object_embeddings: Tensor,
        class_embeddings: Tensor,
        class_to_part: Tensor,
        class_to_object: Tensor,
    ) -> Tensor:
        """Compute probabilities `[B, N_c + 1, 4g, 4g]` of the words.

        The three kinds of embeddings are `[N · P, D]`, the class arrays int64 `[N_c]`.
        """
        aggregator = self.model.aggregator
        photo, levels = self.photos(features, guidance, guidance_2x, guidance_4x)
        parts, objects, classes, background = self.texts(part_embeddings, object_embeddings, class_embeddings)
        first = aggregator.aggregate(photo, torch.cat([parts, objects, background]), levels)
        part_rows, object_rows = self.model.pair_rows(class_to_part, class_to_object, parts.shape[0], objects.shape[0])
        texts = torch.cat([classes, background])
        second = aggregator.aggregate_pairs(first.embedding, part_rows, object_rows, texts, levels)
        return self.probabilities(second.embedding, levels)


def cost_graphs(model: CATSegModel) -> dict[str, OnnxGraph]:
    """Return the three graphs of a model on the CPU. Raises `PartCLIPSegError` for one with `pair_affinity`."""
    if model.config.pair_affinity:
        raise PartCLIPSegError(
            "a PartCATSeg with pair_affinity has no graph for ONNX: set pair_affinity to false in its config.json, or "
            "train it without"
        )
    config, count = model.config, len(model.config.templates)
    edges = {"pixel_values": config.image_size, "guidance_pixels": int(config.guidance_image_size or 0)}
    statistics = {
        "pixel_values": (config.image_mean, config.image_std),
        "guidance_pixels": (config.guidance_mean, config.guidance_std),
    }
    photos = PhotoInputs(
        {name: PhotoInput((edge, edge), *map(tuple, statistics[name])) for name, edge in edges.items()},
        None if config.shortest_edge is None else (config.shortest_edge, config.longest_edge),
        1 if config.repaired("padding") else config.size_divisibility,
    )
    batch, words, length = Dim("batch"), Dim("words"), Dim("length", max=model.longest_prompt)
    example = tuple(torch.rand(TRACED["batch"], 3, edge, edge) for edge in edges.values())
    tokens = torch.full((TRACED["words"], TRACED["length"]), config.clip_config.text_config.eos_token_id)
    encoder = CATSegPhotoGraph(model)
    with torch.no_grad():
        encoded = encoder.forward(*example)

    sources = {"part": "{part}", "object": "{object}", "class": "{object}'s {part}"}
    if not isinstance(model, PartCATSegModel):
        sources = {"class": sources["class"]}
    prompts = {
        f"{kind}_embeddings": tuple(template.replace("{}", word) for template in config.templates)
        for kind, word in sources.items()
    }
    counts = {"part": "parts", "object": "objects", "class": "classes"}
    width = config.clip_config.projection_dim
    texts = tuple(torch.rand(TRACED[counts[kind]] * count, width) for kind in sources)
    sizes: tuple[dict[int, Any], ...] = tuple({0: count * Dim(counts[kind])} for kind in sources)
    decoder = CATSegDecoderGraph(model)
    if isinstance(model, PartCATSegModel):
        decoder = PartCATSegDecoderGraph(model)
        classes = torch.arange(TRACED["classes"])
        texts += (classes % TRACED["parts"], classes % TRACED["objects"])
        sizes += ({0: Dim("classes")},) * 2
    return {
        "photo_encoder": OnnxGraph(encoder, example, ({0: batch},) * 2, photos=photos),
        "text_encoder": OnnxGraph(
            CATSegTextGraph(model), (tokens, torch.ones_like(tokens)), ({0: words, 1: length},) * 2
        ),
        "decoder": OnnxGraph(decoder, (*encoded, *texts), (*({0: batch},) * 4, *sizes), prompts=prompts),
    }


def _at_final_size(guidance: DINOGuidance, edge: int) -> DINOGuidance:
    """Return a copy with position embeddings for photos of `edge` pixels, so that the graph need not resize them."""
    guidance = copy.deepcopy(guidance)
    rows = edge // guidance.tower.config.patch_size
    with torch.no_grad():
        positions = guidance.positions(rows, rows)
    guidance.tower.embeddings.position_embeddings = nn.Parameter(positions, requires_grad=False)
    return guidance
