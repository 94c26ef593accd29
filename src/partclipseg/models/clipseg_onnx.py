"""ONNX graphs of the families on CLIPSeg: photo encoder, text encoder and decoder, every size free but the widths.

The model is cut by how often each graph runs: the photo encoder once per photo, the text encoder once per
vocabulary, the decoder for each pair of the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from partclipseg.models.onnx import OnnxGraph

if TYPE_CHECKING:
    from partclipseg.models.clipseg_towers import CLIPSegTowers

TRACED = {"batch": 2, "rows": 6, "columns": 7, "parts": 13, "objects": 17, "classes": 19, "words": 23, "length": 4}
"""Sizes of the example input for the trace: all different, since the exporter unifies equal sizes, and none is 1,
which it treats as fixed."""


class CLIPSegPhotoGraph(nn.Module):
    """Photo encoder; the class token is a separate output so that patches keep their grid."""

    inputs = ("pixel_values",)
    outputs = ("class_tokens", "patches")

    def __init__(self, model: CLIPSegTowers) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Encode `[B, 3, H, W]` as `[L, B, V]` and `[L, B, g, g', V]`, one for each of the L decoder layers."""
        activations = torch.stack(self.model.encode_photo(pixel_values)).float()  # [L, B, T, V]
        return activations[:, :, 0], activations[:, :, 1:].unflatten(2, self.model.grid(pixel_values))


class CLIPSegTextGraph(nn.Module):
    """Text encoder: tokens to embeddings."""

    inputs = ("input_ids", "attention_mask")
    outputs = ("text_embeddings",)

    def __init__(self, model: CLIPSegTowers) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed tokens and mask, int64 `[K, length]` each, as `[K, D]`."""
        return self.model.encode_text(input_ids, attention_mask).float()


class CLIPSegDecoderGraph(nn.Module):
    """Decoder of single words, with the background last."""

    inputs = ("class_tokens", "patches", "text_embeddings")
    outputs = ("object_part_logits",)

    def __init__(self, model: CLIPSegTowers) -> None:
        super().__init__()
        self.model = model

    def features(self, class_tokens: Tensor, patches: Tensor, conditions: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Decode encoded photos and `conditions [N, D]`; return features `[B, N, g·g', C]` and their grid."""
        tokens = torch.cat([class_tokens.unsqueeze(2), patches.flatten(2, 3)], dim=2).to(self.model.dtype)
        features, _ = self.model.decoder.condition_features(tokens.unbind(), conditions)
        return features, (patches.shape[2], patches.shape[3])

    def conditions(self, *embeddings: Tensor) -> Tensor:
        """Return all words and, last, the background: `[N, D]`."""
        return torch.cat([*(words.to(self.model.dtype) for words in embeddings), self.model.background])

    def forward(self, class_tokens: Tensor, patches: Tensor, text_embeddings: Tensor) -> Tensor:
        """Compute logits `[B, N_c + 1, h, w]` of `text_embeddings [N_c, D]`."""
        features, grid = self.features(class_tokens, patches, self.conditions(text_embeddings))
        return self.model.decoder.logits(features, grid).float()


def clipseg_graphs(model: CLIPSegTowers, decoder: OnnxGraph) -> dict[str, OnnxGraph]:
    """Return ``photo_encoder`` and ``text_encoder`` of a model on the CPU, and its ``decoder``."""
    config, text, vision = model.config, model.config.text_config, model.config.vision_config
    photo = torch.rand(TRACED["batch"], 3, TRACED["rows"] * vision.patch_size, TRACED["columns"] * vision.patch_size)
    tokens = torch.full((TRACED["words"], TRACED["length"]), text.eos_token_id)
    rows, columns, length = Dim("rows"), Dim("columns"), Dim("length", max=text.max_position_embeddings)
    of_photo = {0: Dim("batch"), 2: vision.patch_size * rows, 3: vision.patch_size * columns}
    return {
        "photo_encoder": OnnxGraph(
            CLIPSegPhotoGraph(model),
            (photo,),
            (of_photo,),
            # The exporter loses the names of two sizes behind the division by the patch size.
            {1: [len(config.extract_layers), "batch", "rows", "columns", vision.hidden_size]},
        ),
        "text_encoder": OnnxGraph(
            CLIPSegTextGraph(model), (tokens, torch.ones_like(tokens)), ({0: Dim("words"), 1: length},) * 2
        ),
        "decoder": decoder,
    }


def encoded_example(model: CLIPSegTowers) -> tuple[tuple[Tensor, ...], tuple[dict[int, Any], ...]]:
    """Return an example of the photo encoder's outputs, the decoder's first inputs, and their free sizes."""
    config = model.config
    grid = (TRACED["rows"], TRACED["columns"])
    activations = torch.rand(
        len(config.extract_layers), TRACED["batch"], grid[0] * grid[1] + 1, config.vision_config.hidden_size
    )
    batch, rows, columns = Dim("batch"), Dim("rows"), Dim("columns")
    example = activations[:, :, 0], activations[:, :, 1:].unflatten(2, grid)
    return example, ({1: batch}, {1: batch, 2: rows, 3: columns})
