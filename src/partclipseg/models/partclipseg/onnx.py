"""The ONNX graph of PartCLIPSeg's decoder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.export import Dim

from partclipseg.models.clipseg_onnx import TRACED, CLIPSegDecoderGraph, clipseg_graphs, encoded_example
from partclipseg.models.onnx import OnnxGraph
from partclipseg.models.partclipseg.model import PartCLIPSegModel


class PartCLIPSegDecoderGraph(CLIPSegDecoderGraph):
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
        """Compute logits `[B, N_c + 1, h, w]`, `[B, N_o + 1, h, w]` and `[B, N_p, h, w]` of the words.

        The embeddings are `[N_p, D]` and `[N_o, D]`, the class arrays int64 `[N_c]`.
        """
        num_parts = part_embeddings.shape[0]
        conditions = self.conditions(part_embeddings, object_embeddings)
        features, grid = self.features(class_tokens, patches, conditions)
        rows = self.model.class_rows(class_to_part, class_to_object, num_parts, conditions.shape[0])
        words = self.model.decoder.logits(features, grid).float()
        classes = self.model.decoder.class_logits(features, conditions, *rows, grid)
        return classes.float(), words[:, num_parts:], words[:, :num_parts]


def part_graphs(model: PartCLIPSegModel) -> dict[str, OnnxGraph]:
    """Return the three graphs of a model on the CPU."""
    example, sizes = encoded_example(model)
    classes = torch.arange(TRACED["classes"])
    words = (torch.rand(TRACED[name], model.config.projection_dim) for name in ("parts", "objects"))
    decoder = OnnxGraph(
        PartCLIPSegDecoderGraph(model),
        (*example, *words, classes % TRACED["parts"], classes % TRACED["objects"]),
        (*sizes, *({0: Dim(name)} for name in ("parts", "objects")), *({0: Dim("classes")},) * 2),
        prompts={"part_embeddings": ("{part}",), "object_embeddings": ("{object}",)},
    )
    return clipseg_graphs(model, decoder)
