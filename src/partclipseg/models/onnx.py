"""The description of one ONNX graph of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """A module to export, with an example of its inputs."""

    module: nn.Module
    """Module of tensors, float32 or int64 whatever the model's number type; `inputs` and `outputs` name them."""
    example: tuple[Tensor, ...]
    sizes: tuple[dict[int, Any], ...]
    """Free dimensions of each input: index to `torch.export.Dim`."""
    output_shapes: dict[int, list[str | int]] = field(default_factory=dict)
    """Names of an output's dimensions, by its index, where the exporter loses them."""
