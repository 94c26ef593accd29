"""The models as three ONNX graphs, every size free but the widths.

The cut follows how often each is needed: the photo encoder once a photo, the text encoder once a vocabulary, the
decoder for each pair of the two. Inputs and outputs are float32 and int64, whatever the model computes in.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import Dim

from partclipseg.model.clipseg import CLIPSegBaseline
from partclipseg.model.partclipseg import PartCLIPSegModel

TRACED = {"batch": 2, "rows": 6, "columns": 7, "parts": 13, "objects": 17, "classes": 19, "words": 23, "length": 4}
"""Sizes of the example that the graphs are traced with: all different, since the exporter takes equal ones for the
same, and none 1, which it takes for fixed. A check at other sizes shows that nothing was."""


class PhotoEncoder(nn.Module):
    """Photos to the activations that the decoder reads, the class token apart so that patches keep their grid."""

    inputs = ("pixel_values",)
    outputs = ("class_tokens", "patches")

    def __init__(self, model: PartCLIPSegModel | CLIPSegBaseline) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, 3, H, W]` → `[L, B, V]` and `[L, B, g, g', V]`, one for each of the L decoder layers."""
        activations = torch.stack(self.model.encode_photo(pixel_values)).float()  # [L, B, T, V]
        return activations[:, :, 0], activations[:, :, 1:].unflatten(2, self.model.grid(pixel_values))


class TextEncoder(nn.Module):
    """Tokens to embeddings."""

    inputs = ("input_ids", "attention_mask")
    outputs = ("text_embeddings",)

    def __init__(self, model: PartCLIPSegModel | CLIPSegBaseline) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 `[K, length]` twice → `[K, D]`."""
        return self.model.encode_text(input_ids, attention_mask).float()


class Decoder(nn.Module):
    """The baseline's decoder: steps of `CLIPSegBaseline.forward` that follow the towers."""

    inputs = ("class_tokens", "patches", "text_embeddings")
    outputs = ("object_part_logits",)

    def __init__(self, model: PartCLIPSegModel | CLIPSegBaseline) -> None:
        super().__init__()
        self.model = model

    def features(self, class_tokens: Tensor, patches: Tensor, conditions: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Encoded photos and `conditions [N, D]` to features `[B, N, g·g', C]`, and their grid."""
        tokens = torch.cat([class_tokens.unsqueeze(2), patches.flatten(2, 3)], dim=2).to(self.model.dtype)
        features, _ = self.model.decoder.condition_features(tokens.unbind(), conditions)
        return features, (patches.shape[2], patches.shape[3])

    def conditions(self, *embeddings: Tensor) -> Tensor:
        """All words and, last, the background: `[N, D]`."""
        return torch.cat([*(words.to(self.model.dtype) for words in embeddings), self.model.background])

    def forward(self, class_tokens: Tensor, patches: Tensor, text_embeddings: Tensor) -> Tensor:
        """`text_embeddings [N_c, D]` → `[B, N_c + 1, h, w]`."""
        features, grid = self.features(class_tokens, patches, self.conditions(text_embeddings))
        return self.model.decoder.logits(features, grid).float()


class PartDecoder(Decoder):
    """PartCLIPSeg's decoder: steps 3 to 5 of `PartCLIPSegModel.forward`, with sizes that stay symbols."""

    inputs = ("class_tokens", "patches", "part_embeddings", "object_embeddings", "class_to_part", "class_to_object")
    outputs = ("object_part_logits", "object_logits", "part_logits")
    model: PartCLIPSegModel

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        class_tokens: Tensor,
        patches: Tensor,
        part_embeddings: Tensor,
        object_embeddings: Tensor,
        class_to_part: Tensor,
        class_to_object: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`[N_p, D]`, `[N_o, D]` and int64 `[N_c]` twice → `[B, N_c + 1, h, w]`, `[B, N_o + 1, …]`, `[B, N_p, …]`."""
        num_parts = part_embeddings.shape[0]
        conditions = self.conditions(part_embeddings, object_embeddings)
        features, grid = self.features(class_tokens, patches, conditions)
        rows = self.model.class_rows(class_to_part, class_to_object, num_parts, conditions.shape[0])
        words = self.model.decoder.logits(features, grid).float()
        classes = self.model.decoder.class_logits(features, conditions, *rows, grid)
        return classes.float(), words[:, num_parts:], words[:, :num_parts]


def trace(model: PartCLIPSegModel | CLIPSegBaseline) -> dict[str, torch.onnx.ONNXProgram]:
    """``photo_encoder``, ``text_encoder`` and ``decoder`` of a model on the CPU."""
    config, text, vision = model.config, model.config.text_config, model.config.vision_config
    size = TRACED
    dim = {name: Dim(name) for name in size} | {"length": Dim("length", max=text.max_position_embeddings)}
    photo = torch.rand(size["batch"], 3, size["rows"] * vision.patch_size, size["columns"] * vision.patch_size)
    tokens = torch.full((size["words"], size["length"]), text.eos_token_id)
    activations = torch.rand(
        len(config.extract_layers), size["batch"], size["rows"] * size["columns"] + 1, vision.hidden_size
    )
    encoded = (activations[:, :, 0], activations[:, :, 1:].unflatten(2, (size["rows"], size["columns"])))
    of_encoded = ({1: dim["batch"]}, {1: dim["batch"], 2: dim["rows"], 3: dim["columns"]})

    programs = {
        "photo_encoder": _export(
            PhotoEncoder(model),
            (photo,),
            ({0: dim["batch"], 2: vision.patch_size * dim["rows"], 3: vision.patch_size * dim["columns"]},),
        ),
        "text_encoder": _export(
            TextEncoder(model), (tokens, torch.ones_like(tokens)), ({0: dim["words"], 1: dim["length"]},) * 2
        ),
    }
    # The exporter loses the names of these two behind the division by the patch size.
    patches = programs["photo_encoder"].model.graph.outputs[1]
    patches.shape = ir.Shape([len(config.extract_layers), "batch", "rows", "columns", vision.hidden_size])

    words = {name: torch.rand(size[name], config.projection_dim) for name in ("words", "parts", "objects")}
    if isinstance(model, CLIPSegBaseline):
        programs["decoder"] = _export(Decoder(model), (*encoded, words["words"]), (*of_encoded, {0: dim["words"]}))
        return programs
    classes = torch.arange(size["classes"])
    programs["decoder"] = _export(
        PartDecoder(model),
        (*encoded, words["parts"], words["objects"], classes % size["parts"], classes % size["objects"]),
        (*of_encoded, *({0: dim[name]} for name in ("parts", "objects", "classes", "classes"))),
    )
    return programs


def _export(module: Any, example: tuple[Tensor, ...], sizes: tuple[Any, ...]) -> torch.onnx.ONNXProgram:
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            dynamic_shapes=sizes,
            input_names=list(module.inputs),
            output_names=list(module.outputs),
            verbose=False,
        )
    assert program is not None  # which only the older exporter returns
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # the exporter's stack traces, with the paths of this machine
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says about its own insides; errors are raised all the same."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
