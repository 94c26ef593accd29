"""The description of a model's ONNX graphs, and of what feeds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class PhotoInput:
    """One input of a photo encoder: how it is made of an RGB photo in 0..255."""

    size: tuple[int, int]
    """Height and width, in pixels."""
    mean: tuple[float, ...]
    """Subtracted from the values of each channel."""
    std: tuple[float, ...]
    """Divisor of the values of each channel."""


@dataclass(frozen=True)
class PhotoInputs:
    """The inputs of a photo encoder that takes photos resized twice: first the whole photo, then for each input."""

    inputs: dict[str, PhotoInput]
    """Inputs of the encoder, by the name of the graph's input."""
    first_edges: tuple[int, int] | None = None
    """Shortest edge after the first resizing, and longest edge that it may lead to, in pixels; None: as it is."""
    divisor: int = 1
    """Normalised photos are padded with zeros to multiples of so many pixels, at the bottom and on the right."""


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
    photos: PhotoInputs | None = None
    """Inputs of a photo encoder; None for `pixel_values` alone, resized once to any multiple of the patch."""
    prompts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Prompts whose embeddings `[K, D]` are an input of a decoder, by its name, with places for `{part}` and
    `{object}`. Those of `part_embeddings` are filled for each part, of `object_embeddings` for each object, all others
    for each class; the prompts of a word stand together."""
    threshold: float | None = None
    """Probability that a class must reach in a decoder without background among its outputs; None with background."""
