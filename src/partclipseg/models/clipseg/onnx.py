"""The ONNX graph of the decoder of CLIPSeg without training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.export import Dim

from partclipseg.models.clipseg.plain import PlainCLIPSeg
from partclipseg.models.clipseg_onnx import TRACED, CLIPSegDecoderGraph, clipseg_graphs, encoded_example
from partclipseg.models.onnx import OnnxGraph


class PlainDecoder(CLIPSegDecoderGraph):
    """Decoder of object-parts, whose templates are averaged, without a background."""

    inputs = ("class_tokens", "patches", "class_embeddings")
    model: PlainCLIPSeg

    def classes(self, class_embeddings: Tensor) -> Tensor:
        """Average `[N_c · P, D]`, the P templates of a class together, to `[N_c, D]`."""
        count = len(self.model.prompting.prompts)
        return class_embeddings.to(self.model.dtype).unflatten(0, (-1, count)).mean(1)

    def forward(self, class_tokens: Tensor, patches: Tensor, class_embeddings: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compute logits `[B, N_c, h, w]` of `class_embeddings [N_c · P, D]`."""
        features, grid = self.features(class_tokens, patches, self.classes(class_embeddings))
        return self.model.decoder.logits(features, grid).float()


class GatedDecoder(PlainDecoder):
    """Prompts of the bare object words, for the object gate."""

    inputs = (*PlainDecoder.inputs, "object_embeddings")
    outputs = ("object_part_logits", "object_logits")

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, class_tokens: Tensor, patches: Tensor, class_embeddings: Tensor, object_embeddings: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute logits `[B, N_c, h, w]` and `[B, N_o, h, w]` of `[N_c · P, D]` and `[N_o, D]`."""
        classes = self.classes(class_embeddings)
        conditions = torch.cat([classes, object_embeddings.to(self.model.dtype)])
        features, grid = self.features(class_tokens, patches, conditions)
        logits = self.model.decoder.logits(features, grid).float()
        return logits[:, : classes.shape[0]], logits[:, classes.shape[0] :]


def plain_graphs(model: PlainCLIPSeg) -> dict[str, OnnxGraph]:
    """Return the three graphs of a model on the CPU, for the prompts and the gate that it has now."""
    example, sizes = encoded_example(model)
    asked, width = model.prompting, model.config.projection_dim
    templates = len(asked.prompts)
    words = (torch.rand(TRACED["classes"] * templates, width),)
    classes = Dim("classes")
    counts = ({0: classes if templates == 1 else templates * classes},)
    prompts = {"class_embeddings": asked.prompts}
    if asked.object_gate:
        words += (torch.rand(TRACED["objects"], width),)
        counts += ({0: Dim("objects")},)
        prompts["object_embeddings"] = ("{object}",)
    module = GatedDecoder(model) if asked.object_gate else PlainDecoder(model)
    decoder = OnnxGraph(
        module, (*example, *words), (*sizes, *counts), prompts=prompts, threshold=asked.threshold
    )
    return clipseg_graphs(model, decoder)
